"""Accuracy: counted by hand, row by row."""

from dataclasses import replace

import pytest
import torch

from cases import CLASSES, by_name, make_case, make_labels, permuted, random_case, row_case, state
from expunge.audits.accuracy import Accuracy, accuracy
from expunge.case import Evidence
from expunge.data import PARTS, Part


def counted(evidence: Evidence, part: Part, label: int | None = None) -> float:
    """The slow way: row by row, logit by logit."""
    right = rows = 0
    for logits, own in zip(evidence.logits[part].tolist(), evidence.labels[part].tolist(), strict=True):
        if label is None or own == label:
            rows += 1
            right += all(logits[own] > other for index, other in enumerate(logits) if index != own)
    return right / rows


@pytest.mark.parametrize("part", PARTS)
def test_accuracy_is_the_share_of_rows_that_counting_gives(part: Part) -> None:
    case = random_case()
    found = by_name(Accuracy()(case))[f"accuracy/{part}"]
    assert found.original == counted(case.original, part)
    assert found.unlearned == counted(case.unlearned, part)
    assert found.retrained == pytest.approx(sum(counted(evidence, part) for evidence in case.retrained) / 4)
    assert found.level == 0
    assert 0 < counted(case.original, part) < 1


def test_one_right_of_four_is_a_quarter() -> None:
    assert accuracy(torch.eye(4), torch.tensor([0, 0, 0, 0])) == 0.25


def test_each_class_has_its_own_accuracy_on_test_rows() -> None:
    case = random_case()
    series = by_name(Accuracy()(case))["accuracy/retain_test"].series
    assert series is not None
    assert series.x == ("a", "b", "c", "d")
    kept = [counted(case.unlearned, "retain_test", label) for label in range(CLASSES - 1)]
    assert list(series.unlearned) == pytest.approx([*kept, counted(case.unlearned, "forget_test", CLASSES - 1)])


def test_the_worst_retained_class_is_found_and_named() -> None:
    labels = make_labels()
    perfect = {part: 9.0 * torch.nn.functional.one_hot(values, CLASSES) for part, values in labels.items()}
    spoilt = dict(perfect)
    spoilt["retain_test"] = perfect["retain_test"].clone()
    spoilt["retain_test"][1:7:3] = torch.tensor([9.0, 0.0, 0.0, 0.0])
    spoilt["forget_test"] = -perfect["forget_test"]
    found = by_name(Accuracy()(make_case(labels, perfect, spoilt)))["accuracy/worst_retained_class"]
    assert found.original == 1.0
    assert found.unlearned == 0.75
    assert found.note is not None
    assert "'b'" in found.note


def test_a_part_without_rows_is_not_known_and_only_informs() -> None:
    found = by_name(Accuracy()(row_case()))["accuracy/forget_test"]
    assert (found.original, found.unlearned, found.retrained) == (None, None, None)
    assert found.level is None
    assert found.note == "no rows in forget_test"


def test_without_any_test_rows_there_is_no_worst_class() -> None:
    found = by_name(Accuracy()(random_case({"retain": 9, "forget": 3, "retain_test": 0, "forget_test": 0})))
    assert found["accuracy/worst_retained_class"].unlearned is None
    assert found["accuracy/retain"].unlearned is not None


def test_without_retrained_models_it_says_so() -> None:
    for found in Accuracy()(random_case(references=0)):
        assert found.retrained is None
        assert found.inside is None
        assert found.note is not None
        assert found.note.endswith("no reference")


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = random_case()
    before = state(case)
    findings = Accuracy()(case)
    assert state(case) == before
    assert findings == Accuracy()(permuted(case))


def test_a_model_like_the_original_is_outside() -> None:
    labels = make_labels()
    knows = {part: 9.0 * torch.nn.functional.one_hot(values, CLASSES) for part, values in labels.items()}
    never = {part: torch.cat([logits[:, :-1], logits[:, -1:] - 20], dim=1) for part, logits in knows.items()}
    case = make_case(labels, knows, knows, [never] * 3)
    assert by_name(Accuracy()(case))["accuracy/forget_test"].inside is False
    honest = replace(case, unlearned=case.retrained[0])
    assert by_name(Accuracy()(honest))["accuracy/forget_test"].inside is True
