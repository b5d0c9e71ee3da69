"""Query: pairs counted one by one, and answers that are alike or not."""

import math

import pytest
import torch

from cases import CLASSES, by_name, make_case, make_labels, make_logits, permuted, random_case, row_case, state
from expunge.audits.query import Query, paired_auc, separation, spread


def counted(scores: list[float], positive: list[bool], groups: list[int]) -> float:
    """The slow way: every pair."""
    wins = [
        1.0 if ours > theirs else 0.5 if ours == theirs else 0.0
        for ours, is_positive, group in zip(scores, positive, groups, strict=True)
        for theirs, other_positive, other in zip(scores, positive, groups, strict=True)
        if is_positive and not other_positive and group == other
    ]
    return sum(wins) / len(wins)


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(10, (80,), generator=generator).double()
    positive = torch.rand(80, generator=generator) < 0.3
    groups = torch.randint(3, (80,), generator=generator)
    expected = counted(scores.tolist(), positive.tolist(), groups.tolist())
    assert paired_auc(scores, positive, groups) == pytest.approx(expected)


def test_without_pairs_there_is_no_area() -> None:
    assert paired_auc(torch.zeros(4), torch.tensor([True, True, False, False]), torch.tensor([0, 0, 1, 1])) is None


def test_unsure_answers_are_set_apart_from_sure_ones_and_like_from_like_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    sure = 9.0 * torch.nn.functional.one_hot(torch.arange(200) % 3, 3) + torch.randn(200, 3, generator=generator)
    unsure = torch.randn(60, 3, generator=generator)
    assert (separation(unsure, sure, 0) or 0) > 0.95
    assert separation(sure[:80], sure[80:], 0) == pytest.approx(0.5, abs=0.15)


def test_the_forgotten_output_is_of_no_matter() -> None:
    labels = make_labels()
    logits = make_logits(labels, 0)
    masked = {part: values.clone() for part, values in logits.items()}
    for values in masked.values():
        values[:, CLASSES - 1] = -1000
    found = by_name(Query()(make_case(labels, logits, masked)))["query/auc"]
    assert found.original is not None
    assert found.unlearned == found.original


def test_a_spread_does_not_tell_which_classes_it_is_over() -> None:
    found = spread(torch.tensor([[1.0, 3.0, 2.0], [3.0, 2.0, 1.0], [0.0, 900.0, 0.0]]))
    expected = [value - math.log(math.e + math.e**2 + math.e**3) for value in (3, 2, 1)]
    assert found[0].tolist() == pytest.approx(expected)
    assert found[1].tolist() == pytest.approx(expected)
    assert found[2].tolist() == [0, -100, -100]


def test_one_row_of_a_kind_is_too_few() -> None:
    assert separation(torch.zeros(1, 3), torch.zeros(9, 3), 0) is None


@pytest.mark.parametrize(
    "case", [row_case(), random_case({"retain": 9, "forget": 3, "retain_test": 0, "forget_test": 4})]
)
def test_what_cannot_be_known_is_said(case: object) -> None:
    for found in Query()(case):  # type: ignore[arg-type]
        assert found.unlearned is None
        assert found.note is not None


def test_without_retrained_models_it_says_so() -> None:
    for found in Query()(random_case(references=0)):
        assert (found.retrained, found.inside, found.level, found.note) == (None, None, None, "no reference")


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = random_case()
    before = state(case)
    findings = Query()(case)
    assert state(case) == before
    again = Query()(permuted(case))
    assert [found.unlearned for found in again] == pytest.approx([found.unlearned for found in findings])
    assert [found.retrained for found in again] == pytest.approx([found.retrained for found in findings])
