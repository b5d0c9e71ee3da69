"""Prototypes: against distances to the prototype worked out row by row."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cases import CLASSES, SIZES, assert_same_numbers, by_name, featured_case, permuted, random_case, row_case, state
from expunge.audits.prototypes import Prototypes, rebuilt
from expunge.case import Case, Evidence
from expunge.errors import SettingsError
from expunge.network import find_head

ALL = Prototypes(k=(SIZES["forget"],), draws=2)


def slow_scores(evidence: Evidence) -> tuple[float, float]:
    """Recall and accuracy on retained rows, with the mean of all rows to forget as the prototype."""
    prototype = evidence.features["head"]["forget"].mean(dim=0)
    head = find_head(evidence.model, CLASSES)

    def answer(row: Tensor) -> int:
        logits = head(row).tolist()
        logits[CLASSES - 1] = float((row @ row) - (row - prototype) @ (row - prototype))
        return max(range(CLASSES), key=logits.__getitem__)

    shares = []
    for part in ("forget_test", "retain_test"):
        rows, labels = evidence.features["head"][part], evidence.labels[part].tolist()
        shares.append(sum(answer(row) == label for row, label in zip(rows, labels, strict=True)) / len(labels))
    return shares[0], shares[1]


def test_with_all_rows_it_is_the_distance_to_their_mean() -> None:
    case = featured_case()
    found = by_name(ALL(case))
    for number, evidence in (("original", case.original), ("unlearned", case.unlearned)):
        recall, kept = slow_scores(evidence)
        assert getattr(found["prototypes/recall/30"], number) == pytest.approx(recall)
        assert getattr(found["prototypes/balanced/30"], number) == pytest.approx((recall + kept) / 2)
    assert found["prototypes/balanced/30"].retrained == pytest.approx(
        sum(sum(slow_scores(evidence)) / 2 for evidence in case.retrained) / 4
    )


def test_only_forgotten_rows_of_the_head_are_replaced() -> None:
    weights, biases = torch.ones(3, 2), torch.zeros(3)
    new, shift = rebuilt(
        (weights, biases), torch.tensor([[1.0, 2.0], [3.0, 0.0], [9.0, 9.0]]), {1: torch.tensor([0, 1])}
    )
    assert new.tolist() == [[1, 1], [4, 2], [1, 1]]
    assert shift.tolist() == [0, -5, 0]
    assert (weights.sum().item(), biases.sum().item()) == (6, 0)


def test_what_the_head_row_was_is_of_no_matter() -> None:
    """A class hidden by its bias comes back."""
    case = featured_case()
    before = by_name(Prototypes()(case))["prototypes/balanced/10"]
    head = find_head(case.unlearned.model, CLASSES)
    with torch.no_grad():
        head.weight[CLASSES - 1] = 0
        head.bias[CLASSES - 1] = -30
    assert by_name(Prototypes()(case))["prototypes/balanced/10"].unlearned == before.unlearned


def test_ten_rows_count_or_the_nearest_choice() -> None:
    def judged(audit: Prototypes, case: Case) -> list[str]:
        return [found.name for found in audit(case) if found.level == 2]

    case = featured_case()
    assert judged(Prototypes(), case) == ["prototypes/balanced/10"]
    assert judged(Prototypes(k=(2, 7, 20)), case) == ["prototypes/balanced/7"]
    assert judged(Prototypes(k=(20, 12)), case) == ["prototypes/balanced/12"]
    with pytest.raises(SettingsError, match="expected k"):
        Prototypes(k=())


def test_every_model_is_given_the_same_rows() -> None:
    case = featured_case()
    twin = replace(case.original, model=case.original.model)
    for found in Prototypes()(replace(case, unlearned=twin)):
        assert found.unlearned == found.original


def test_without_features_test_rows_or_references_it_says_so() -> None:
    assert {found.note for found in Prototypes()(random_case())} == {"no features: a model gave none"}
    assert {found.note for found in Prototypes()(featured_case(sizes=SIZES | {"forget_test": 0}))} == {
        "no rows in forget_test"
    }
    assert {found.level for found in Prototypes()(row_case())} == {None}
    for found in Prototypes()(featured_case(references=0)):
        assert (found.retrained, found.inside, found.note) == (None, None, "no reference")


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = featured_case()
    before = state(case)
    findings = Prototypes()(case)
    assert state(case) == before
    assert_same_numbers(findings, Prototypes()(permuted(case)))
