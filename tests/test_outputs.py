"""A head without the outputs of forgotten classes: what is left, and how it is audited beside whole ones."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from conftest import TRAINING, Toy
from expunge import audit, forget
from expunge.auditing import audit_folders, plan_audit
from expunge.audits.accuracy import Accuracy
from expunge.audits.few_shot import FewShot
from expunge.audits.information import Information
from expunge.audits.prediction import Prediction, alignment, entropy
from expunge.audits.relearning import Relearning
from expunge.audits.similarity import Similarity
from expunge.case import Audit, open_case
from expunge.datasets.shapes import Shapes
from expunge.errors import ModelError, RequestError, SettingsError
from expunge.experiment import DEFAULT_AUDITS, Experiment, experiment_from, to_values
from expunge.experiment import run as run_experiment
from expunge.forgetting import run_method
from expunge.judging import judge
from expunge.methods.retrain import Retrain
from expunge.network import find_head, rebuild
from expunge.outputs import DROPPED, AmongAll, drop_outputs, reopened
from expunge.report.page import render
from expunge.request import Request
from expunge.result import Result
from expunge.runtime import open_runtime
from expunge.subject import subject_of, weights_of
from test_cli import SHAPES, call

QUICK = tuple(
    FewShot(shots=(5,), counted=5, steps=12)
    if isinstance(one, FewShot)
    else Relearning(max_epochs=2, retain_epochs=1)
    if isinstance(one, Relearning)
    else one
    for one in DEFAULT_AUDITS
)


class Plain(nn.Module):
    """A network that no library builds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(inputs)
        return logits


@pytest.mark.parametrize("plain", [True, False])
def test_the_other_outputs_are_as_they_were(plain: bool, toy: Toy) -> None:
    model = (Plain() if plain else copy.deepcopy(toy.model)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs = torch.randn(5, 1, 8, 8)
    new = drop_outputs(model, (0, 2), 4)
    assert torch.allclose(new(inputs), model(inputs)[:, [1, 3]], atol=1e-6)
    assert find_head(new, 2).weight.shape == (2, find_head(model, 4).in_features)
    assert new.training is False
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    seen = AmongAll(new, (0, 2), 4)(inputs)
    assert torch.equal(seen[:, [1, 3]], new(inputs))
    assert (seen[:, [0, 2]] == -math.inf).all()


def test_a_reopened_output_is_the_mean_of_the_others() -> None:
    model = Plain().eval()
    inputs = torch.randn(5, 1, 8, 8)
    opened = reopened(AmongAll(drop_outputs(model, (1,), 4), (1,), 4))
    logits, old = opened(inputs), model(inputs)
    assert torch.allclose(logits[:, [0, 2, 3]], old[:, [0, 2, 3]], atol=1e-6)
    assert torch.allclose(logits[:, 1], old[:, [0, 2, 3]].mean(dim=1), atol=1e-6)
    assert (logits.argmax(dim=1) != 1).all()
    assert reopened(model) is model


def test_an_output_that_is_not_there_adds_nothing() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0], [1.0, -math.inf, -1.0]])
    assert entropy(logits)[0] == pytest.approx(math.log(2))
    odds = 1 / (1 + math.exp(-2.0))
    assert entropy(logits)[1] == pytest.approx(-odds * math.log(odds) - (1 - odds) * math.log(1 - odds))
    whole = torch.tensor([[3.0, 100.0, 1.0], [1.0, -50.0, 2.0]])
    assert alignment(logits[1:], whole[:1]) == pytest.approx(1.0)
    assert alignment(logits[1:], whole[1:]) == pytest.approx(-1.0)


@pytest.fixture(scope="module")
def retrained(toy: Toy) -> list[nn.Module]:
    """Networks that never saw class 1, with all their outputs."""
    method, parts = Retrain(training=TRAINING), toy.split(1)
    return [
        run_method(method, toy.model, parts, toy.runtime.fresh(seed=seed), rebuild(toy.model)).model
        for seed in range(1, 8)
    ]


def findings_of(unlearned: nn.Module, retrained: list[nn.Module], audits: tuple[Audit, ...], toy: Toy) -> Result:
    case = open_case(toy.split(1), toy.model, drop_outputs(unlearned, (1,), 4), retrained, toy.runtime)
    assert all(isinstance(evidence.model, AmongAll) for evidence in (case.unlearned, *case.retrained))
    assert case.original.model is toy.model
    hashed = [weights_of(model) for model in (toy.model, unlearned, *retrained)]
    about = subject_of(hashed[0], hashed[1], hashed[2:], toy.data)
    return judge(case, audits, to_values(Experiment(head="drop"), toy.split(1)), about)


def test_dropping_an_output_alone_is_no_forgetting(toy: Toy, retrained: list[nn.Module]) -> None:
    *references, held_out = retrained
    audits = (Accuracy(), Prediction(), Similarity(), Information())
    done, honest = (findings_of(model, references, audits, toy).findings for model in (toy.model, held_out))
    assert {one.name for one in done if one.level == 2 and one.inside is False} == {"information/total"}
    assert [one.unlearned for one in done if one.name == "accuracy/forget_test"] == [0.0]
    assert [one.unlearned for one in done if one.name == "similarity/original/head"] == [pytest.approx(1.0)]
    assert not [one.name for one in honest if one.level is not None and one.inside is False]


def test_every_audit_knows_a_number_or_says_why_not(toy: Toy, retrained: list[nn.Module]) -> None:
    result = findings_of(toy.model, retrained[:2], QUICK, toy)
    for finding in result.findings:
        numbers = [finding.unlearned, finding.original, finding.retrained]
        assert all(number is None or math.isfinite(number) for number in numbers), finding.name
        if finding.name.startswith(("head/", "head_bias/", "inversion/")):
            assert numbers[0] is None
            assert finding.level is None
            assert finding.note == DROPPED
        elif numbers[0] is None:
            assert finding.note, finding.name
    known = {finding.name for finding in result.findings if finding.unlearned is not None}
    assert {"few_shot/area/5_shots", "relearning/area", "prototypes/balanced/10", "probe/forget_test/head"} <= known
    assert "drop" in render(result)


def test_a_retrained_model_without_an_output_beside_one_that_kept_it_is_refused(toy: Toy) -> None:
    dropped = drop_outputs(toy.model, (1,), 4)
    with pytest.raises(ModelError, match=r"expected logits \(rows, 4\) of the retrained 1 model, got \(\d+, 3\)"):
        open_case(toy.split(1), toy.model, toy.model, [dropped], toy.runtime)


def test_python_gives_a_model_of_the_other_classes_and_audits_it(toy: Toy) -> None:
    train, test = (TensorDataset(*rows.batch(np.arange(len(rows)))) for rows in (toy.data.train, toy.data.test))
    torch.manual_seed(0)
    model = Plain()
    made = forget(model, train, classes=[1], head="drop", method="finetune", device="cpu")
    assert made.model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    result = audit(model, made, train, test, classes=[1], audits=QUICK[:2], device="cpu")
    assert next(finding for finding in result.findings if finding.name == "accuracy/forget").unlearned == 0
    with pytest.raises(RequestError, match="expected classes to drop the outputs of, got single rows to forget: keep"):
        forget(model, train, rows=[1], head="drop", method="finetune", device="cpu")


def test_a_model_of_transformers_is_given_back_as_one(toy: Toy) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, num_labels=4,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    train, test = (TensorDataset(*rows.batch(np.arange(len(rows)))) for rows in (toy.data.train, toy.data.test))
    made = [forget(model, train, classes=[1], method="finetune", head=head, device="cpu") for head in ("keep", "drop")]
    assert [type(one.model) for one in made] == [type(model)] * 2
    assert [getattr(one.model.config, "num_labels", None) for one in made] == [4, 3]
    result = audit(model, made[1], train, test, classes=[1], retrained=[made[0].model], audits=QUICK[:2], device="cpu")
    assert result.experiment["network"] == {"name": "ViTForImageClassification"}


def test_an_experiment_drops_outputs_and_can_be_run_again(tmp_path: Path, toy: Toy) -> None:
    values = {
        "head": "drop",
        "references": 2,
        "audits": ["accuracy"],
        "dataset": {"name": "shapes", "classes": 3, "size": 8, "channels": 1, "train_rows": 60, "test_rows": 30},
        "network": {"name": "mlp", "args": {"width": 8}},
        "training": {"epochs": 1},
        "request": {"classes": [2]},
    }
    result = run_experiment(experiment_from(values), toy.runtime, tmp_path / "out")
    assert result.experiment["head"] == "drop"
    config = json.loads((tmp_path / "out" / "unlearned" / "config.json").read_text())
    assert config["num_classes"] == 2
    assert config["label_names"] == ["shape-0", "shape-1"]
    assert config["expunge"]["history"][0]["head"] == "drop"
    assert experiment_from(result.experiment).head == "drop"
    with pytest.raises(SettingsError, match="expected head to be 'keep' or 'drop', got 'off'"):
        experiment_from({"head": "off"})


def test_one_request_after_another_drops_one_output_after_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / name) for name in ("original", "first", "second")]
    assert call(capsys, "train", *SHAPES, "--network", "mlp", "--set", "epochs=2", "--out", folders[0])[0] == 0
    for index, name in enumerate(("shape-1", "shape-2")):
        words = ["--classes", name, "--head", "drop", "--method", "finetune", "--out", folders[index + 1]]
        assert call(capsys, "forget", folders[index], *SHAPES, *words)[::2] == (0, "")
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["label_names"] == ["shape-0", "shape-3"]
    history = config["expunge"]["history"]
    assert [(one["head"], one["request"]) for one in history] == [("drop", {"classes": [1]})] * 2
    dataset = Shapes(classes=4, size=8, train_rows=160, test_rows=80, noise=0.3)
    for original, unlearned, name in ((0, 1, "shape-1"), (1, 2, "shape-2")):
        plan = plan_audit(
            folders[original], folders[unlearned], [], Request(classes=(name,)), dataset, [Accuracy()],
            tmp_path / f"{unlearned}.json", seed=0, overwrite=False, references=2,
        )  # fmt: skip
        result = audit_folders(plan, [Accuracy()], open_runtime(device="cpu"))
        assert result.experiment["head"] == "drop"
        found = next(one for one in result.findings if one.name == "accuracy/forget_test")
        assert (found.unlearned, found.retrained) == (0.0, 0.0)
    both = ["--classes", "shape-1,shape-2", "--audits", "accuracy", "--out", str(tmp_path / "both.json")]
    assert call(capsys, "audit", folders[0], folders[2], *SHAPES, *both)[0] == 0
    code, _, err = call(capsys, "audit", *folders[:2], "--retrained", folders[2], *SHAPES, "--classes", "shape-1")
    assert code == 2
    assert "expected a model of the original's 4 classes, or of those without the forgotten ones, got" in err
