"""Head bias: thresholds and recalls counted by hand."""

import pytest
import torch

from cases import CLASSES, make_case, make_labels, make_logits, permuted, random_case, row_case, state
from expunge.audits.head_bias import HeadBias, halve, margins, recall_at, threshold
from expunge.case import Case

MANY = make_labels({"retain": 6, "forget": 3, "retain_test": 400, "forget_test": 40})


def slow_recall(kept: list[float], forgotten: list[float], first: list[bool], own: list[bool], rate: float) -> float:
    """Try every constant that moves a kept row of one half over the edge; count the forgotten rows of the other."""
    found = 0
    for half in (True, False):
        chosen = [margin for margin, in_first in zip(kept, first, strict=True) if in_first == half]
        tested = [margin for margin, in_first in zip(forgotten, own, strict=True) if in_first != half]
        best = 0
        for constant in [-margin for margin in chosen] + [-margin - 1e-9 for margin in chosen]:
            if sum(margin + constant > 0 for margin in chosen) <= rate * len(chosen):
                best = max(best, sum(margin + constant > 0 for margin in tested))
        found += best
    return found / len(forgotten)


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_recall_is_that_of_the_best_constant(rate: float) -> None:
    generator = torch.Generator().manual_seed(0)
    kept, forgotten = torch.randn(200, generator=generator), 1 + torch.randn(30, generator=generator)
    first, own = torch.rand(200, generator=generator) < 0.5, torch.rand(30, generator=generator) < 0.5
    expected = slow_recall(kept.double().tolist(), forgotten.double().tolist(), first.tolist(), own.tolist(), rate)
    assert 0 < expected < 1
    assert recall_at(kept, forgotten, torch.ones(30, dtype=torch.bool), first, own, rate) == pytest.approx(expected)


def test_a_threshold_by_hand() -> None:
    values = torch.arange(100.0)
    assert threshold(values, 0.01) == 98
    assert threshold(values, 0.05) == 94
    assert threshold(values, 0.001) == 99


def test_a_margin_is_the_highest_forgotten_logit_less_the_highest_kept_one() -> None:
    assert margins(torch.tensor([[1.0, 5.0, 2.0, 4.0]]), [0, 3]).tolist() == [-1.0]


def test_halves_have_equally_many_rows_whatever_their_order() -> None:
    logits = torch.randn(11, 4, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    assert halve(logits).sum() == 6
    assert halve(logits[order]).equal(halve(logits)[order])


def hidden(weight: float, bias: float) -> Case:
    logits = make_logits(MANY, 0, signal=9.0)
    lowered = {part: values.clone() for part, values in logits.items()}
    for values in lowered.values():
        values[:, CLASSES - 1] = weight * values[:, CLASSES - 1] + bias
    retrained = []
    for seed in range(1, 6):
        never = make_logits(MANY, seed, signal=9.0)
        for part in ("forget", "forget_test"):
            never[part] = make_logits(MANY, seed + 10, signal=0.0)[part]
        retrained.append(never)
    return make_case(MANY, logits, lowered, retrained)


@pytest.mark.parametrize("bias", [-30.0, -1000.0])
@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_a_lowered_or_weakened_logit_is_found(weight: float, bias: float) -> None:
    for found in HeadBias()(hidden(weight, bias)):
        assert found.unlearned is not None
        assert found.unlearned > 0.9
        assert found.level == 3


def test_a_row_that_becomes_another_forgotten_class_is_not_recalled() -> None:
    right = torch.zeros(6, dtype=torch.bool)
    half = torch.arange(6) % 2 == 0
    assert recall_at(torch.zeros(6), torch.ones(6), right, half, half, 0.05) == 0
    assert recall_at(torch.zeros(6), torch.ones(6), ~right, half, half, 0.05) == 1


@pytest.mark.parametrize(
    "case", [row_case(), random_case({"retain": 9, "forget": 3, "retain_test": 6, "forget_test": 0})]
)
def test_what_cannot_be_known_only_informs(case: Case) -> None:
    for found in HeadBias()(case):
        assert (found.original, found.unlearned, found.level) == (None, None, None)
        assert found.note is not None


def test_without_retrained_models_it_says_so() -> None:
    for found in HeadBias()(random_case(references=0)):
        assert (found.retrained, found.inside, found.note) == (None, None, "no reference")


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = random_case()
    before = state(case)
    findings = HeadBias()(case)
    assert state(case) == before
    assert HeadBias()(permuted(case)) == findings
