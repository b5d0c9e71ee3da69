"""Models in half precision: worked on in single, given back in half, audited as they answer."""

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import TRAINING, Toy
from expunge import audit, forget
from expunge.access import Access
from expunge.audits.accuracy import Accuracy
from expunge.audits.relearning import Relearning
from expunge.case import Method, open_case
from expunge.checkpoint import load_model
from expunge.data import Part
from expunge.errors import ModelError
from expunge.forgetting import run_method
from expunge.guard import run_guarded
from expunge.methods.delete import Delete
from expunge.methods.dissolve import Dissolve
from expunge.methods.gated_knowledge_transfer import GatedKnowledgeTransfer
from expunge.methods.head_mask import HeadMask
from expunge.methods.mu_mis import MuMis
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.network import copy_of, rebuild
from expunge.precision import check_trains, in_single, precisions_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.stacked import train_stacked
from expunge.training import fit, predict
from test_cli import SHAPES, call

HALVES = [torch.bfloat16, torch.float16]
METHODS: tuple[Method, ...] = (
    Delete(),
    Dissolve(),
    GatedKnowledgeTransfer(rounds=3, batch_size=32, threshold=0.1),
    HeadMask(),
    MuMis(),
    Retrain(training=TRAINING),
    Unsir(),
)


def half(toy: Toy, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    return copy.deepcopy(toy.model).to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_method_works_on_single_precision_and_the_result_is_rounded_once(
    toy: Toy, method: Method, dtype: torch.dtype
) -> None:
    model, parts = half(toy, dtype), toy.split(1)
    before = copy.deepcopy(model.state_dict())
    made = run_method(method, model, parts, toy.runtime, rebuild(model))
    single = in_single(model)
    wanted = run_method(method, single, parts, toy.runtime, lambda: in_single(rebuild(model)()))
    assert wanted.bill.events == ()
    for name, value in made.model.state_dict().items():
        was = wanted.model.state_dict()[name]
        assert torch.equal(value, was.to(dtype) if was.is_floating_point() else was), name
    assert precisions_of(made.model) == precisions_of(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert made.access == wanted.access
    (event,) = made.bill.events
    called = str(dtype).removeprefix("torch.")
    assert event.startswith(f"the original is in {called}: it was worked on in float32, and the new model rounded back")


def test_small_steps_are_not_rounded_away_one_by_one(toy: Toy) -> None:
    model, parts = half(toy), toy.split(1)
    made = run_method(MuMis(), model, parts, toy.runtime, rebuild(model))
    moved = sum(int((new != old).sum()) for new, old in zip(made.model.parameters(), model.parameters(), strict=True))
    assert moved > 0.5 * sum(weight.numel() for weight in model.parameters())


@settings
class Nudge:
    """Adds a share of itself to every weight."""

    reads: ClassVar[frozenset[Part]] = frozenset()
    share: float = 1e-5

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        new = copy_of(model)
        with torch.no_grad():
            for weight in new.parameters():
                weight.mul_(1 + self.share)
        return new


def test_a_change_of_which_rounding_leaves_nothing_is_refused(toy: Toy) -> None:
    model, parts = half(toy), toy.split(1)
    with pytest.raises(
        ModelError, match=r"^test_precision, .*expected a change that bfloat16 can hold, got one that is"
    ):
        run_method(Nudge(), model, parts, toy.runtime, rebuild(model))
    (event,) = run_method(Nudge(share=1.0), model, parts, toy.runtime, rebuild(model)).bill.events
    assert "undid the change of 0 of " in event
    still = run_method(Nudge(share=0.0), model, parts, toy.runtime, rebuild(model))
    assert still.bill.events[0].endswith("undid the change of 0 of 0 numbers")


def test_mixed_precision_is_kept_tensor_by_tensor(toy: Toy) -> None:
    model, parts = half(toy), toy.split(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    made = run_method(Delete(), model, parts, toy.runtime, rebuild(model))
    assert precisions_of(made.model) == precisions_of(model)
    assert set(precisions_of(model).values()) == {torch.float32, torch.bfloat16, torch.int64}


def test_the_guard_looks_at_what_was_rounded_and_the_audits_at_what_is_given_back(toy: Toy) -> None:
    model, parts = half(toy), toy.split(1)
    made = run_guarded(Unsir(), model, parts, toy.runtime.fresh(), rebuild(model))
    assert made.bill.kept is not None
    assert made.bill.kept.before == toy.accuracy(model, parts, "retain")
    assert made.bill.kept.after == toy.accuracy(made.model, parts, "retain")
    case = open_case(parts, model, made.model, [], toy.runtime)
    logits, _ = predict(made.model, parts["forget_test"], toy.runtime)
    assert torch.equal(case.unlearned.logits["forget_test"], logits), "answers are those of the model as it is"
    assert not torch.equal(predict(case.unlearned.model, parts["forget_test"], toy.runtime)[0], logits)
    curves = {finding.name: finding for finding in Relearning(max_epochs=2, retain_epochs=1)(case)}
    assert curves["relearning/area"].unlearned is not None, "who attacks it trains in single precision"


def test_python_gives_half_back_with_the_output_dropped_and_audits_it(toy: Toy) -> None:
    model: Any = half(toy)
    train, test = toy.data.train, toy.data.test
    made = forget(model, train, classes=[1], head="drop", device="cpu")
    assert set(precisions_of(made.model).values()) == {torch.bfloat16, torch.int64}
    result = audit(model, made, train, test, classes=[1], audits=[Accuracy()], device="cpu")
    found = {finding.name: finding.unlearned for finding in result.findings}
    assert found["accuracy/forget_test"] == 0.0
    assert (found["accuracy/retain_test"] or 0) > 0.9
    assert result.cost is not None
    assert any(event.startswith("the original is in bfloat16") for event in result.cost.events)


def test_training_in_half_precision_is_refused(toy: Toy) -> None:
    model = half(toy)
    told = r"expected weights to train in float32, got 'trunk.* in bfloat16, .*: train model.float\(\)"
    with pytest.raises(ModelError, match=told):
        fit(model, toy.data.train, toy.runtime, TRAINING, stage="train")
    with pytest.raises(ModelError, match=told):
        train_stacked(rebuild(model), toy.data.train, toy.runtime, TRAINING, [0, 1])
    check_trains(model.requires_grad_(False))
    assert in_single(toy.model) is toy.model


def test_a_folder_keeps_the_precision_of_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, out = tmp_path / "original", tmp_path / "out"
    words = ["train", *SHAPES, "--network", "mlp", "--set", "epochs=10", "--out", str(original)]
    assert call(capsys, *words)[0] == 0
    weights = load_file(original / "model.safetensors")
    head = next(name for name in weights if name.startswith("head"))
    stored = {name: value if name == head else value.bfloat16() for name, value in weights.items()}
    save_file(stored, original / "model.safetensors")
    (original / "SHA256SUMS").unlink()
    assert set(precisions_of(load_model(original).model).values()) == {torch.float32}
    code, _, err = call(capsys, "forget", str(original), *SHAPES, "--classes", "1", "--out", str(out))
    assert code == 0
    assert "expunge: the original is in bfloat16: it was worked on in float32" in err
    new = load_file(out / "model.safetensors")
    assert {name: value.dtype for name, value in new.items()} == {name: value.dtype for name, value in stored.items()}
    assert any(not torch.equal(value, stored[name]) for name, value in new.items())
    assert (
        call(capsys, "audit", str(original), str(out), *SHAPES, "--classes", "1", "--out", str(tmp_path / "r"))[0] == 0
    )
