"""The guard: what is lost of the answers to retained rows is said, with the setting to lower."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from conftest import Toy
from expunge import forget
from expunge.access import Access
from expunge.checkpoint import load_model
from expunge.data import Part
from expunge.forgetting import run_method
from expunge.guard import collapse, run_guarded
from expunge.methods.dissolve_data_free import DissolveDataFree
from expunge.methods.unsir import Unsir
from expunge.network import copy_of, rebuild
from expunge.result import Kept, Record, read
from expunge.runtime import Runtime
from expunge.settings import describe, settings
from expunge.training import Training
from test_cli import SHAPES, call


@settings
class Scramble:
    """Reads one retained row and adds noise to all weights: a method that costs as much as its rate is high."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})
    lr: float = 1.0
    training: Training = Training()

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        access["retain"].batch(np.array([0]))
        new, generator = copy_of(model), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in new.parameters():
                weight.add_(self.lr * weight.std() * torch.randn(weight.shape, generator=generator))
        return new


def test_the_line_gives_the_numbers_and_the_setting() -> None:
    kept = Kept(rows=512, before=0.98, after=0.4)
    assert collapse(kept, describe(Unsir())) == (
        "unsir lost 58 points of accuracy on 512 retained rows (98.0% before, 40.0% after; 10 are allowed for): "
        "lower impair_lr"
    )
    assert collapse(kept, describe(DissolveDataFree())).endswith(": lower dissolve.lr")
    assert collapse(kept, {"name": "head_mask"}).endswith(": the method has no learning rate to lower, choose another")


def test_a_collapse_is_rolled_back_and_told_on_the_terminal_and_in_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = str(tmp_path / "original")
    assert call(capsys, "train", *SHAPES, "--network", "mlp", "--set", "epochs=20", "--out", original)[0] == 0
    words = ["forget", original, *SHAPES, "--classes", "1", "--set", "repair_epochs=0"]
    code, _, err = call(capsys, *words, "--set", "impair_lr=1.0", "--out", str(tmp_path / "collapsed"))
    lines = err.splitlines()
    assert code == 0
    assert all(line.startswith("expunge: unsir lost ") for line in lines)
    assert lines[0].endswith(": back to the original, and on with half of impair_lr")
    assert lines[-1].endswith(": lower impair_lr")
    record = read(Record, tmp_path / "collapsed" / "forget.json")
    assert record.cost.kept is not None
    assert record.cost.kept.after < record.cost.kept.before - 0.1
    assert [f"expunge: {event}" for event in record.cost.events] == lines
    about = load_model(tmp_path / "collapsed").about
    assert about["history"][-1]["method"]["impair_lr"] == record.experiment["method"]["impair_lr"]
    code, out, err = call(capsys, "--json", *words, "--set", "impair_lr=1e-6", "--out", str(tmp_path / "kept"))
    assert (code, err) == (0, "")
    told = json.loads(out)["cost"]
    assert (told["events"], told["kept"]["rows"]) == ([], 120)
    assert told["kept"]["after"] == pytest.approx(told["kept"]["before"], abs=0.02)


def test_python_gives_it_too_and_rows_are_drawn_from_a_stream_of_their_own(toy: Toy) -> None:
    labels = torch.arange(700) % 4
    train = TensorDataset(torch.randn(700, 1, 8, 8, generator=torch.Generator().manual_seed(0)), labels)
    made = [
        forget(
            toy.model,
            train,
            classes=[1],
            method=Unsir(noise="none", steps=2, repair_epochs=0, impair_lr=1e-4),
            device="cpu",
        )
        for _ in range(2)
    ]
    assert made[0].bill.kept == made[1].bill.kept
    assert made[0].bill.kept is not None
    assert made[0].bill.kept.rows == 512
    assert made[0].access["retain"].reads == 525, "the guard's reads are not the method's"


def test_it_starts_over_from_the_original_until_enough_is_kept(toy: Toy) -> None:
    parts, method = toy.split(1), Scramble(lr=2.0)
    tries: list[float] = []
    made = run_guarded(method, toy.model, parts, toy.runtime.fresh(), rebuild(toy.model))
    for halvings in range(4):
        one = run_method(Scramble(lr=2.0 / 2**halvings), toy.model, parts, toy.runtime.fresh(), rebuild(toy.model))
        before, after = (toy.accuracy(model, parts, "retain") for model in (toy.model, one.model))
        tries.append(before - after)
        if tries[-1] <= 0.1:
            break
    assert 1 < len(tries) < 4, "the test itself: some rates are too high, and not all"
    assert made.method["lr"] == 2.0 / 2 ** (len(tries) - 1)
    assert made.method["training"]["lr"] == method.training.lr, "how networks are trained from scratch stays"
    for name, value in one.model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], value), "as if it had begun with the lower rate"
    assert made.access["retain"].reads == len(tries) * one.access["retain"].reads
    assert len(made.bill.events) == len(tries) - 1


@settings
class Shy(Scramble):
    """Costs the more, the lower its rate."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        return Scramble(lr=4.0 / self.lr)(model, access, runtime)


def test_rates_that_help_no_more_when_halved_stand(toy: Toy) -> None:
    parts = toy.split(1)
    made = run_guarded(Shy(lr=2.0), toy.model, parts, toy.runtime.fresh(), rebuild(toy.model))
    once = run_method(Shy(lr=2.0), toy.model, parts, toy.runtime.fresh(), rebuild(toy.model))
    assert made.method["lr"] == 2.0
    for name, value in once.model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], value)
    assert made.access["retain"].reads == 3 * once.access["retain"].reads
    assert made.bill.events[1].endswith(": no less than at twice the rate, and back to that")
    assert made.bill.events[2].endswith(": lower lr")
