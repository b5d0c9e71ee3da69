"""Relearning: against a training loop written out, and against curves worked out by hand."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from cases import CLASSES, FEATURES, by_name, make_case, make_labels, make_logits, row_case, state
from expunge.audits import relearning
from expunge.audits.relearning import Relearning, steps_until
from expunge.case import Case
from expunge.finding import Finding
from expunge.rows import Rows

QUICK = Relearning(max_epochs=2, retain_epochs=1, batch_size=16, lr=0.02, every=1)


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def case_of(*models: nn.Module) -> Case:
    labels = make_labels()
    logits = make_logits(labels, 0)
    return make_case(labels, logits, logits, [logits] * (len(models) - 2), models=models)


def all_of(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    return rows.batch(torch.arange(len(rows)).numpy())


def slow_curve(model: nn.Module, case: Case, epochs: int = 2, *, retain_only: bool = False) -> list[float]:
    """Epochs of Adam, measured on the forgotten test rows after each batch of 16."""
    model = copy.deepcopy(model)
    inputs, labels = all_of(case.split["retain"])
    if not retain_only:
        forgotten = all_of(case.split["forget"])
        inputs, labels = torch.cat([inputs, forgotten[0]]), torch.cat([labels, forgotten[1]])
    test_inputs, test_labels = all_of(case.split["forget_test"])
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    order = case.runtime.generator("relearning/order")

    def measured() -> float:
        model.eval()
        with torch.no_grad():
            right = sum(int(model(x[None]).argmax()) == int(y) for x, y in zip(test_inputs, test_labels, strict=True))
        model.train()
        return right / len(test_labels)

    curve = [measured()]
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(labels), generator=order), 16):
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(inputs[chosen]), labels[chosen]))
            optimizer.step()
            curve.append(measured())
    return curve


def test_the_curve_is_that_of_a_loop_written_out() -> None:
    case = case_of(network(0), network(1), network(2))
    series = by_name(QUICK(case))["relearning/area"].series
    assert series is not None
    expected = slow_curve(case.unlearned.model, case)
    assert len(set(expected)) > 2
    assert list(series.unlearned) == pytest.approx(expected)
    assert list(series.retrained[0]) == pytest.approx(slow_curve(case.retrained[0].model, case))
    assert series.x == tuple(str(step) for step in range(13))


def test_on_retained_rows_alone_as_well() -> None:
    case = case_of(network(1), network(5), network(2))
    found = by_name(QUICK(case))["relearning/area/retain_only"]
    assert found.series is not None
    expected = slow_curve(case.original.model, case, 1, retain_only=True)
    assert len(set(expected)) > 1
    assert list(found.series.original) == pytest.approx(expected)
    assert found.original == pytest.approx(sum(expected) / len(expected))
    assert found.level == 3


def test_measuring_less_often_leaves_the_curve_as_it_is() -> None:
    case = case_of(network(0), network(1))
    every = by_name(QUICK(case))["relearning/area"].series
    third = by_name(replace(QUICK, every=3)(case))["relearning/area"].series
    assert every is not None
    assert third is not None
    assert third.x == ("0", "3", "6", "9", "12")
    assert third.unlearned == every.unlearned[::3]


def test_steps_are_counted_and_not_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_curves(monkeypatch, FULL, FAST, SLOW, MIDDLE, SLOW, every=4)
    assert found["relearning/steps"].unlearned == 8
    assert found["relearning/anamnesis_index"].unlearned == pytest.approx((2 / 3.5 + 2 / 4 + 2 / 3.5) / 3)


def test_rows_to_train_on_are_bounded() -> None:
    series = by_name(replace(QUICK, training_rows=32)(case_of(network(0), network(1))))["relearning/area"].series
    assert series is not None
    assert len(series.x) == 5


def test_every_model_sees_the_same_rows_in_the_same_order() -> None:
    series = by_name(QUICK(case_of(network(0), network(0), network(0))))["relearning/area"].series
    assert series is not None
    assert series.original == series.unlearned == series.retrained[0]


def test_weights_that_a_model_marks_as_frozen_are_trained_too() -> None:
    series = by_name(QUICK(case_of(network(0), network(0).requires_grad_(False))))["relearning/area"].series
    assert series is not None
    assert series.original == series.unlearned


def with_curves(
    monkeypatch: pytest.MonkeyPatch, *curves: Sequence[float], case: Case | None = None, every: int = 1
) -> dict[str, Finding]:
    """Findings as if the models had relearned along these curves: original, unlearned, retrained."""
    case = case or case_of(*[nn.Linear(FEATURES, CLASSES) for _ in curves])
    known = {id(evidence.model): list(curve) for evidence, curve in zip(case.models, curves, strict=True)}
    monkeypatch.setattr(relearning, "relearn", lambda model, *_, **__: known[id(model)])
    return by_name(Relearning(every=every)(case))


FULL = [1.0] * 6
SLOW = [0.0, 0.0, 0.5, 0.9, 0.95, 1.0]
MIDDLE = [0.0, 0.0, 0.5, 0.95, 1.0, 1.0]
FAST = [0.0, 0.2, 1.0, 1.0, 1.0, 1.0]


def test_steps_area_and_index_of_known_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_curves(monkeypatch, FULL, FAST, SLOW, MIDDLE, SLOW)
    steps, area, index = (found[f"relearning/{name}"] for name in ("steps", "area", "anamnesis_index"))
    assert (steps.original, steps.unlearned) == (0, 2)
    assert steps.retrained == pytest.approx(11 / 3)
    assert area.original == 1
    assert area.unlearned == pytest.approx(4.2 / 6)
    assert area.retrained == pytest.approx((3.35 + 3.45 + 3.35) / 18)
    assert index.original == 0
    assert index.unlearned == pytest.approx((2 / 3.5 + 2 / 4 + 2 / 3.5) / 3)
    assert index.retrained == pytest.approx((4 / 3.5 + 3 / 4 + 4 / 3.5) / 3)
    assert area.inside is True
    assert (area.level, index.level, steps.level) == (3, 3, None)


def test_a_model_that_was_left_as_it_was_recovers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_curves(monkeypatch, FULL, FULL, SLOW, MIDDLE, SLOW)
    assert found["relearning/steps"].unlearned == 0
    assert found["relearning/anamnesis_index"].unlearned == 0
    assert found["relearning/area"].inside is False


def test_a_model_that_does_not_recover_in_time_is_not_known_but_has_an_area(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_curves(monkeypatch, FULL, [0.0] * 6, SLOW, MIDDLE, SLOW)
    for name in ("steps", "anamnesis_index"):
        assert found[f"relearning/{name}"].unlearned is None
        assert found[f"relearning/{name}"].note == "the unlearned model took more than 5 steps"
        assert found[f"relearning/{name}"].level is None
    assert found["relearning/area"].unlearned == 0
    assert found["relearning/area"].inside is False


@pytest.mark.parametrize("curve", [FULL, [0.0] * 6])
def test_without_steps_of_all_retrained_models_there_is_no_index(
    monkeypatch: pytest.MonkeyPatch, curve: list[float]
) -> None:
    found = with_curves(monkeypatch, FULL, FAST, SLOW, MIDDLE, curve)["relearning/anamnesis_index"]
    assert (found.unlearned, found.retrained, found.level) == (None, None, None)
    assert found.note == "a retrained model knows it at once or does not learn it"


def test_a_long_curve_is_thinned_for_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    series = with_curves(monkeypatch, [1.0] * 1001, [0.0] * 1001)["relearning/area"].series
    assert series is not None
    assert len(series.x) == len(series.unlearned) == 91
    assert series.x[1] == "11"


def test_steps_are_counted_from_before_the_first_one() -> None:
    assert steps_until([0.95, 1.0], 0.95) == 0
    assert steps_until([0.0, 0.94, 0.96, 0.0], 0.95) == 2
    assert steps_until([0.0], 0.95) is None


def test_a_request_of_rows_is_measured_on_the_rows_themselves() -> None:
    found = by_name(Relearning(max_epochs=1)(row_case(references=0)))["relearning/area"]
    assert found.note == "measured on forget; no reference"
    assert found.unlearned is not None


def test_accuracy_is_measured_on_no_more_rows_than_allowed() -> None:
    case = case_of(network(0), network(1))
    series = by_name(Relearning(max_epochs=1, rows=5)(case))["relearning/area"].series
    assert series is not None
    assert {round(value * 5, 9) % 1 for value in series.unlearned} == {0}


def test_without_retrained_models_it_says_so() -> None:
    for found in QUICK(case_of(network(0), network(1))):
        assert (found.retrained, found.inside) == (None, None)
        assert found.note is not None
        assert "no reference" in found.note


def test_nothing_is_changed_and_twice_gives_the_same() -> None:
    case = case_of(network(0), network(1).eval(), network(2))
    before = state(case)
    findings = QUICK(case)
    assert state(case) == before
    assert QUICK(case) == findings
