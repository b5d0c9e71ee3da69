"""Tuning: what is searched, what is read, and that the best of the trials is what comes out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Toy
from expunge.access import Access, CountedRows
from expunge.data import Part, split
from expunge.errors import DivergedError, RequestError, SettingsError
from expunge.forgetting import run_method
from expunge.methods.dissolve_data_free import DissolveDataFree
from expunge.methods.head_mask import HeadMask
from expunge.methods.neggrad_plus import NeggradPlus
from expunge.methods.unsir import Unsir
from expunge.network import copy_of, rebuild
from expunge.request import Request
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Positive
from expunge.tuning import harmonic, search_space, tune, with_settings
from test_cli import SHAPES, call


@settings
class Fade:
    """Multiplies the head's row of each forgotten class, and a tenth of that factor on all: best at one strength."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})
    strength: Positive = 0.1

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        access["retain"].batch(np.arange(len(access["retain"])))
        if self.strength > 0.9:
            raise DivergedError("expected less")
        new = copy_of(model)
        with torch.no_grad():
            for index in access.classes():
                new.get_parameter("head.bias")[index] -= 30 * self.strength
            for weight in new.parameters():
                weight.add_(0.3 * self.strength * torch.randn(weight.shape, generator=runtime.generator("fade")))
        return new


def test_the_harmonic_mean_is_that() -> None:
    assert harmonic(1.0, 1.0) == 1.0
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic(0.0, 0.0) == 0.0


def test_real_settings_are_searched_within_a_factor_of_ten_and_their_bounds() -> None:
    found = {one.name: one for one in search_space(NeggradPlus())}
    assert set(found) == {"weight", "lr"}, "no counts, and no weight decay of zero"
    assert (found["lr"].low, found["lr"].high) == pytest.approx((1e-4, 1e-2))
    weight = found["weight"]
    assert weight.value(weight.low) == pytest.approx(0.99999)
    assert weight.value(weight.high) == pytest.approx(0.999)
    assert {"dissolve.lr", "synthesis_lr"} <= {one.name for one in search_space(DissolveDataFree())}
    for method in (Unsir(), NeggradPlus(weight=0.6), DissolveDataFree()):
        for one in search_space(method):
            for distance in (one.low, one.high, (one.low * one.high) ** 0.5):
                with_settings(method, {one.name: one.value(distance)})  # refuses what is out of bounds


def test_the_best_trial_wins_by_numbers_that_are_measured_again_here(toy: Toy) -> None:
    parts = toy.split(1)
    found = tune(Fade(), toy.model, parts, toy.runtime.fresh(), rebuild(toy.model), trials=12)
    assert (len(found.trials), found.held_back, found.judged_on) == (12, 48, "made up")
    assert found.trials[0].settings == {}
    assert found.best == max(range(12), key=lambda number: found.trials[number].score)
    best = found.trials[found.best]
    assert found.method["strength"] == best.settings.get("strength", 0.1)
    order = torch.randperm(240, generator=toy.runtime.fresh().generator("tune/rows")).numpy()
    retain = parts["retain"]
    made = run_method(with_settings(Fade(), best.settings), toy.model, parts, toy.runtime.fresh(), rebuild(toy.model))
    inputs, labels = retain.batch(np.sort(order[:48]))
    with torch.no_grad():
        answers = made.model.eval()(inputs).argmax(1)
    assert best.kept == pytest.approx((answers == labels).double().mean().item())
    assert best.kept is not None
    assert best.remembered is not None
    assert best.score == harmonic(best.kept, 1 - best.remembered)
    again = tune(Fade(), toy.model, parts, toy.runtime.fresh(), rebuild(toy.model), trials=12)
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in found.trials]
    assert [trial.score for trial in again.trials] == [trial.score for trial in found.trials]


def test_no_test_row_is_read_nor_one_that_the_method_may_not_read_and_no_trial_reads_what_is_held_back(
    toy: Toy,
) -> None:
    parts = toy.split(1)
    for method, forget in ((Fade(), False), (NeggradPlus(batch_size=64, epochs=1), True)):
        rows = {part: CountedRows(one) for part, one in parts.parts.items()}
        counted = replace(parts, parts=rows)
        found = tune(method, toy.model, counted, toy.runtime.fresh(), rebuild(toy.model), trials=2)
        assert {part for part, one in rows.items() if one.reads} == {"retain"} | ({"forget"} if forget else set())
        assert found.judged_on == ("forget" if forget else "made up")
        if not forget:
            assert rows["retain"].reads == 2 * 192 + 2 * 48


def test_settings_with_which_a_method_diverges_are_noted_and_lose(toy: Toy) -> None:
    found = tune(Fade(strength=0.89), toy.model, toy.split(1), toy.runtime.fresh(), rebuild(toy.model), trials=8)
    failed = [trial for trial in found.trials if trial.failed]
    assert failed
    assert all((trial.score, trial.kept) == (0.0, None) for trial in failed)
    assert all("expected less" in (trial.failed or "") for trial in failed)


def test_what_cannot_be_tuned_is_refused(toy: Toy) -> None:
    model, here, build = toy.model, toy.runtime.fresh(), rebuild(toy.model)
    with pytest.raises(RequestError, match="expected classes to forget, got single rows"):
        tune(Unsir(), model, split(toy.data, Request(rows=(3, 4))), here, build)
    with pytest.raises(SettingsError, match="expected 1 or more trials, got 0"):
        tune(Unsir(), model, toy.split(1), here, build, trials=0)
    with pytest.raises(SettingsError, match="expected a method with settings to search, got head_mask, which has none"):
        tune(HeadMask(), model, toy.split(1), here, build, trials=2)


def test_the_command_writes_the_best_and_says_how_to_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, out = str(tmp_path / "original"), tmp_path / "tuned.json"
    assert call(capsys, "train", *SHAPES, "--network", "mlp", "--out", original)[0] == 0
    words = ["tune", original, *SHAPES, "--classes", "1", "--method", "dissolve", "--trials", "3", "--out", str(out)]
    code, told, _ = call(capsys, *words)
    assert code == 0
    record = json.loads(out.read_text())
    assert len(record["trials"]) == 3
    best = record["trials"][record["best"]]["settings"]
    assert all(f"--set {name}=" in told for name in best)
    assert call(capsys, *words)[0] == 2, "an earlier result is kept"
