"""Adding processes changes nothing: evidence, findings and weights of one process and of several."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
from expunge.checkpoint import load_model
from expunge.data import PARTS, split
from expunge.datasets.shapes import Shapes
from expunge.errors import ModelError, SettingsError, StoppedError
from expunge.forgetting import run_method
from expunge.methods.unsir import Unsir
from expunge.network import Network, rebuild
from expunge.processes import leave, share
from expunge.request import Request
from expunge.resume import resumable
from expunge.runtime import Runtime, open_runtime
from expunge.training import Training, cross_entropy, fit

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
SMALL = {"patch_size": 4, "embed_dim": 24, "num_heads": 3, "depth": 3}
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
    leave()


@pytest.mark.parametrize("count", [2, 3])
def test_one_process_and_several_have_the_same_evidence_and_findings(tmp_path: Path, count: int) -> None:
    for name, fabric in (
        ("one", Fabric(accelerator="cpu", devices=1)),
        ("several", Fabric(accelerator="cpu", devices=count, strategy="ddp_spawn")),
    ):
        (tmp_path / name).mkdir()
        fabric.launch(gather, str(tmp_path / name))  # type: ignore[arg-type]
    expected = load_file(tmp_path / "one" / "0.safetensors")
    told = json.loads((tmp_path / "one" / "0.json").read_text())
    assert {finding["level"] for finding in told} >= {0, 1, 2}
    assert any("/head" in name for name in expected)
    for rank in range(count):
        found = load_file(tmp_path / "several" / f"{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in found.items():  # a product of half as many rows may round otherwise
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6, msg=name)
        others = json.loads((tmp_path / "several" / f"{rank}.json").read_text())
        for one, other in zip(told, others, strict=True):
            for key in ("name", "level", "inside", "informative", "note"):
                assert one[key] == other[key], one["name"]
            for number in NUMBERS:
                assert other[number] == pytest.approx(one[number], rel=1e-4, abs=1e-6), f"{one['name']}: {number}"


def forget(fabric: Fabric, folder: str) -> None:
    """Train a network without batch normalisation in double precision, let it forget, and write its weights."""
    torch.set_num_threads(1)
    runtime = Runtime(fabric=fabric, precision="64-true", seed=3)
    data = Shapes(classes=4, size=8, channels=1, train_rows=323, test_rows=40, noise=0.3).load()
    with runtime.seeded("train/init"):
        model = Network(name="mlp").build(data)
    fit(model, data.train, runtime, Training(epochs=4), stage="train")
    made = run_method(Unsir(), model, split(data, Request(classes=(1,))), runtime, rebuild(model))
    name = f"{fabric.world_size}-{fabric.global_rank}"
    save_file({key: value.clone() for key, value in made.model.state_dict().items()}, f"{folder}/{name}.safetensors")
    told = {"access": {part: asdict(count) for part, count in made.access.items()}, "flops": made.bill.flops}
    Path(f"{folder}/{name}.json").write_text(json.dumps(told))
    leave()


def test_two_processes_train_and_forget_as_one_does(tmp_path: Path) -> None:
    Fabric(accelerator="cpu", devices=1, precision="64-true").launch(forget, str(tmp_path))  # type: ignore[arg-type]
    two = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn", precision="64-true")
    two.launch(forget, str(tmp_path))  # type: ignore[arg-type]
    expected = load_file(tmp_path / "1-0.safetensors")
    told = json.loads((tmp_path / "1-0.json").read_text())
    for rank in (0, 1):
        found = load_file(tmp_path / f"2-{rank}.safetensors")
        for name, value in found.items():
            assert value.dtype == torch.float64
            assert (value - expected[name]).abs().max() < 1e-9, name
        others = json.loads((tmp_path / f"2-{rank}.json").read_text())
        assert others["access"] == told["access"]  # each row is counted once, whoever read it
        assert others["flops"] >= told["flops"]  # each process learns the noise


def expunge(*words: str) -> str:
    """Run a command and return what it printed; its processes find each other by themselves."""
    done = subprocess.run(
        [sys.executable, "-m", "expunge", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_processes_leave_their_group_before_they_end(tmp_path: Path) -> None:
    script = tmp_path / "joined.py"
    script.write_text(
        "import atexit, torch\n"
        "from expunge.runtime import open_runtime\n"
        "atexit.register(lambda: print(torch.distributed.is_initialized(), flush=True))\n"  # what comes first goes last
        "open_runtime(device='cpu', devices=2)\n"
        "print(torch.distributed.is_initialized(), flush=True)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=True)
    assert sorted(done.stdout.split()) == ["False", "False", "True", "True"]


def stopped(fabric: Fabric, folder: str) -> None:
    """Train with a journal and ask one process alone to stop, train on, and write weights and what was said."""
    torch.set_num_threads(1)
    data = Shapes(classes=4, size=8, channels=1, train_rows=320, test_rows=40).load()
    said: list[str] = []
    asked = 0
    runtime = Runtime(fabric=fabric, seed=3)
    with runtime.seeded("train/init"):
        start = Network(name="mlp").build(data)

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        if asked == 70 and fabric.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return cross_entropy(logits, labels, inputs)

    for attempt in range(2):
        model = copy.deepcopy(start)
        try:
            with resumable(replace(runtime, tell=said.append), Path(folder, "out"), {}, (data.train,)) as own:
                fit(model, data.train, own, Training(epochs=8, batch_size=16), stage="train", loss=loss)
        except StoppedError as error:
            said.append(f"{attempt}: {error} after {asked} steps")
    whole = copy.deepcopy(start)
    fit(whole, data.train, runtime, Training(epochs=8, batch_size=16), stage="train")
    told = {"said": said, "steps": asked, "same": all(map(torch.equal, model.parameters(), whole.parameters()))}
    Path(f"{folder}/{fabric.global_rank}.json").write_text(json.dumps(told))
    leave()


def test_when_one_process_is_asked_to_stop_all_save_and_stop_and_go_on_together(tmp_path: Path) -> None:
    two = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    two.launch(stopped, str(tmp_path))  # type: ignore[arg-type]
    for rank in (0, 1):
        told = json.loads((tmp_path / f"{rank}.json").read_text())
        assert told["steps"] == 8 * 20  # none twice
        assert told["same"]
        assert told["said"][0].startswith("0: interrupted: ")
        assert told["said"][0].endswith(" after 128 steps")
        if rank == 0:  # which alone writes, and speaks in a command
            assert "repeat the same command to go on" in told["said"][0]
            assert "going on from the progress" in told["said"][1]


def test_processes_that_share_a_transformer_out_write_a_folder_that_one_loads(tmp_path: Path) -> None:
    common = ["--data", "shapes", *(f"--set=dataset.{word}" for word in ("classes=4", "size=8", "train_rows=200"))]
    small = [f"--set=network.args.{name}={value}" for name, value in SMALL.items()]
    network = ["--network", "vit_tiny_patch16_224", *small, "--set=epochs=2"]
    shared = ["--devices", "2", "--strategy", "fsdp"]
    told = expunge("train", *common, *network, "--out", str(tmp_path / "shared"), *shared)
    assert told.count("Trained") == 1
    alone = open_runtime(device="cpu")
    data = Shapes(classes=4, size=8, train_rows=200).load()
    with alone.seeded("train/init"):
        model = Network(name="vit_tiny_patch16_224", args=SMALL).build(data)
    fit(model, data.train, alone, Training(epochs=2), stage="train")
    found, expected = load_model(tmp_path / "shared").model.state_dict(), model.state_dict()
    for name, value in found.items():  # single precision: sums over rows in another order
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3, msg=name)
    trained = str(tmp_path / "shared")
    for method in ("unsir", "salun"):  # by Adam and SGD, from one part and from two
        out = tmp_path / method
        expunge("forget", trained, *common, "--classes", "1", "--method", method, "--out", str(out), *shared)
        assert load_model(out).about["history"][0]["request"]["classes"] == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"devices": 0}, "expected 1 or more for --devices, got 0"),
        ({"num_nodes": -1}, "expected 1 or more for --num-nodes, got -1"),
        ({"strategy": "fdsp"}, "expected a strategy ddp, fsdp, got 'fdsp'"),
        ({"batch_norm": "none"}, "expected --batch-norm local or sync, got 'none'"),
        ({"device": "cuda:0", "devices": 2}, "expected --device cuda for 2 devices, got 'cuda:0', which is one"),
    ],
)
def test_what_does_not_go_together_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        open_runtime(**words)


def several(device: str) -> Any:
    """Return what `share` asks of a Fabric of two processes."""
    return SimpleNamespace(world_size=2, device=torch.device(device), strategy=None)


def test_batch_normalisation_in_several_processes_has_to_be_chosen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(ModelError, match="expected --batch-norm local or sync for a network with batch normalisation"):
        share(model, several("cpu"), None)
    with pytest.raises(ModelError, match="expected GPUs for --batch-norm sync"):
        share(model, several("cpu"), "sync")
