"""Adding processes changes nothing: evidence and findings of one process and of two that share every batch."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

from expunge.audits.accuracy import Accuracy
from expunge.audits.head import Head
from expunge.audits.information import Information
from expunge.audits.membership import Membership
from expunge.audits.prediction import Prediction
from expunge.audits.probe import Probe
from expunge.audits.prototypes import Prototypes
from expunge.audits.rmia import Rmia
from expunge.audits.similarity import Similarity
from expunge.audits.three_sample import ThreeSample
from expunge.case import Audit, open_case
from expunge.data import PARTS, Request, split
from expunge.datasets.shapes import Shapes
from expunge.network import Network
from expunge.runtime import Runtime
from expunge.training import Training, fit

AUDITS: tuple[Audit, ...] = (
    Accuracy(),
    Prediction(),
    Membership(min_rows=10),
    Rmia(min_rows=10),
    ThreeSample(min_rows=10),
    Probe(),
    Prototypes(),
    Similarity(),
    Information(),
    Head(),
)
NUMBERS = ("original", "unlearned", "retrained")


def gather(fabric: Fabric, folder: str) -> None:
    """Write what this process has gathered of five networks, and what the audits find in it."""
    torch.set_num_threads(1)
    alone = Runtime(fabric=Fabric(accelerator="cpu", devices=1))
    data = Shapes(classes=4, size=8, channels=1, train_rows=243, test_rows=131, noise=0.3).load()
    models = []
    for seed in range(5):  # trained by each process by itself, so that the gathering alone is compared
        own = alone.fresh(seed=seed)
        with own.seeded("train/init"):
            models.append(Network(name="small_cnn", args={"width": 4}).build(data))
        rows = data.train if seed < 2 else split(data, Request(classes=(1,)))["retain"]
        fit(models[-1], rows, own, Training(epochs=3), stage="train")
    parts, runtime = split(data, Request(classes=(1,))), Runtime(fabric=fabric)
    case = open_case(parts, models[0], models[1], models[2:], runtime)
    tensors = {}
    for number, evidence in enumerate(case.models):
        for part in PARTS:
            tensors[f"{number}/{part}/logits"] = evidence.logits[part]
            tensors[f"{number}/{part}/labels"] = evidence.labels[part]
            tensors[f"{number}/{part}/feature_labels"] = evidence.feature_labels[part]
            for depth, features in evidence.features.items():
                tensors[f"{number}/{part}/{depth}"] = features[part]
    save_file({name: value.clone() for name, value in tensors.items()}, f"{folder}/{fabric.global_rank}.safetensors")
    findings = [asdict(finding) for audit in AUDITS for finding in audit(case)]
    Path(f"{folder}/{fabric.global_rank}.json").write_text(json.dumps(findings))


def test_one_process_and_two_have_the_same_evidence_and_findings(tmp_path: Path) -> None:
    for name, fabric in (
        ("one", Fabric(accelerator="cpu", devices=1)),
        ("two", Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")),
    ):
        (tmp_path / name).mkdir()
        fabric.launch(gather, str(tmp_path / name))  # type: ignore[arg-type]
    expected = load_file(tmp_path / "one" / "0.safetensors")
    told = json.loads((tmp_path / "one" / "0.json").read_text())
    assert {finding["level"] for finding in told} >= {0, 1, 2}
    assert any("/head" in name for name in expected)
    for rank in (0, 1):
        found = load_file(tmp_path / "two" / f"{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in found.items():  # a product of half as many rows may round otherwise
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6, msg=name)
        others = json.loads((tmp_path / "two" / f"{rank}.json").read_text())
        for one, other in zip(told, others, strict=True):
            for key in ("name", "level", "inside", "informative", "note"):
                assert one[key] == other[key], one["name"]
            for number in NUMBERS:
                assert other[number] == pytest.approx(one[number], rel=1e-4, abs=1e-6), f"{one['name']}: {number}"
