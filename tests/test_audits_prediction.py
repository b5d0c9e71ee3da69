"""Prediction: against sums over single probabilities, and distances worked out by hand."""

import math

import pytest
import torch

from cases import CLASSES, assert_same_numbers, by_name, make_case, make_labels, permuted, random_case, row_case, state
from expunge.audits.prediction import Prediction, alignment, churn, entropy, total_variation
from expunge.case import Evidence
from expunge.data import Part


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def mean_softmax(evidence: Evidence, part: Part) -> list[float]:
    rows = [softmax(logits) for logits in evidence.logits[part].tolist()]
    return [sum(row[index] for row in rows) / len(rows) for index in range(CLASSES)]


def slow_variation(evidence: Evidence, others: list[Evidence], part: Part) -> float:
    """The largest difference in probability over all sets of classes, which is what total variation means."""
    own = mean_softmax(evidence, part)
    rest = [sum(mean_softmax(other, part)[index] for other in others) / len(others) for index in range(CLASSES)]
    sets = [[index for index in range(CLASSES) if mask >> index & 1] for mask in range(2**CLASSES)]
    return max(sum(own[index] - rest[index] for index in chosen) for chosen in sets)


@pytest.mark.parametrize("part", ["forget", "forget_test"])
def test_total_variation_is_the_largest_difference_over_sets_of_classes(part: Part) -> None:
    case = random_case()
    found = by_name(Prediction()(case))[f"prediction/total_variation/{part}"]
    shorter = [[other for other in case.retrained if other is not left_out] for left_out in case.retrained]
    for value, evidence in ((found.original, case.original), (found.unlearned, case.unlearned)):
        assert value == pytest.approx(sum(slow_variation(evidence, others, part) for others in shorter) / 4, abs=1e-6)
    each = [slow_variation(evidence, others, part) for evidence, others in zip(case.retrained, shorter, strict=True)]
    assert found.retrained == pytest.approx(sum(each) / 4, abs=1e-6)
    assert found.series is not None
    assert list(found.series.unlearned) == pytest.approx(mean_softmax(case.unlearned, part), abs=1e-6)
    assert found.level == 1


def test_a_retrained_model_gets_the_same_number_as_candidate_as_among_the_others() -> None:
    case = random_case()
    distance = case.beside_retrained(lambda one, others: float(len(others)))
    assert distance(case.unlearned) == distance(case.retrained[0]) == 3


def test_it_is_one_for_answers_that_never_agree_and_zero_for_equal_ones() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert total_variation(first, second) == 1
    assert total_variation(first, first) == 0
    assert total_variation(first, torch.tensor([0.75, 0.25])) == 0.25


def test_entropy_is_its_definition_and_the_logarithm_of_the_classes_when_nothing_is_known() -> None:
    case = random_case()
    found = by_name(Prediction()(case))["prediction/entropy/forget_test"]
    rows = [softmax(logits) for logits in case.unlearned.logits["forget_test"].tolist()]
    assert found.unlearned == pytest.approx(-sum(p * math.log(p) for row in rows for p in row) / len(rows), rel=1e-6)
    assert entropy(torch.zeros(1, 5)).item() == pytest.approx(math.log(5))
    assert entropy(torch.tensor([[1000.0, 0.0]])).item() == 0


def test_churn_is_the_share_of_rows_with_another_class() -> None:
    assert churn(torch.eye(4), torch.eye(4)[[0, 1, 3, 2]]) == 0.5
    case = random_case()
    found = by_name(Prediction()(case))["prediction/churn/retain_test"]
    answers = [
        [max(range(CLASSES), key=row.__getitem__) for row in evidence.logits["retain_test"].tolist()]
        for evidence in case.models
    ]
    against = [sum(a != b for a, b in zip(answers[1], other, strict=True)) / 24 for other in answers[2:]]
    assert found.unlearned == pytest.approx(sum(against) / 4)
    among = [
        sum(a != b for a, b in zip(one, other, strict=True)) / 24
        for one in answers[2:]
        for other in answers[2:]
        if one is not other
    ]
    assert found.retrained == pytest.approx(sum(among) / 12)


def test_even_answers_are_outside_where_retrained_models_prefer_a_neighbour() -> None:
    labels = make_labels()
    toward = {part: torch.tensor([4.0, 0.0, 0.0, -9.0]).repeat(len(values), 1) for part, values in labels.items()}
    retrained = [{part: logits + 0.05 * seed for part, logits in toward.items()} for seed in range(4)]
    for seed, logits in enumerate(retrained):
        logits["forget_test"] = logits["forget_test"] + 0.1 * seed * torch.eye(4)[0]
    even = {part: torch.zeros_like(logits) for part, logits in toward.items()}
    found = by_name(Prediction()(make_case(labels, toward, even, retrained)))
    assert found["prediction/total_variation/forget_test"].inside is False
    assert found["prediction/entropy/forget_test"].inside is False


def test_two_references_are_equally_far_from_each_other_so_there_is_no_band() -> None:
    found = by_name(Prediction()(random_case(references=2)))["prediction/total_variation/forget_test"]
    assert found.unlearned is not None
    assert found.retrained is not None
    assert found.band is None
    assert found.inside is None
    assert found.note == "too few references for a band (2): give at least 3 retrained models"


@pytest.mark.parametrize(("references", "why"), [(0, "no reference"), (1, "too few references for a band (1)")])
def test_without_another_retrained_model_a_distance_is_not_known(references: int, why: str) -> None:
    found = by_name(Prediction()(random_case(references=references)))
    for name in ("total_variation/forget", "total_variation/forget_test", "churn/retain_test"):
        finding = found[f"prediction/{name}"]
        assert (finding.original, finding.unlearned, finding.retrained) == (None, None, None)
        assert finding.note is not None
        assert finding.note.startswith(why)


def test_a_request_of_rows_leaves_the_test_part_unknown() -> None:
    found = by_name(Prediction()(row_case()))
    for name in ("total_variation", "entropy"):
        finding = found[f"prediction/{name}/forget_test"]
        assert (finding.unlearned, finding.level, finding.series) == (None, None, None)
        assert finding.note == "no rows in forget_test"
    assert found["prediction/total_variation/forget"].inside is not None


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = random_case()
    before = state(case)
    findings = Prediction()(case)
    assert state(case) == before
    assert_same_numbers(findings, Prediction()(permuted(case)))


def slow_alignment(first: list[list[float]], second: list[list[float]]) -> float:
    """One less half the squared distance of the rows, each centred and brought to length one: another way to say it."""
    total = 0.0
    for one, other in zip(first, second, strict=True):
        rows = []
        for row in (one, other):
            centred = [value - sum(row) / len(row) for value in row]
            length = math.sqrt(sum(value * value for value in centred))
            rows.append([value / length for value in centred])
        total += 1 - sum((left - right) ** 2 for left, right in zip(*rows, strict=True)) / 2
    return total / len(first)


def test_alignment_is_the_cosine_of_centred_logits_with_each_retrained_model() -> None:
    case = random_case()
    found = by_name(Prediction()(case))
    for part in ("forget_test", "retain_test"):
        one = found[f"prediction/alignment/{part}"]
        alike = [
            slow_alignment(case.unlearned.logits[part].tolist(), other.logits[part].tolist())
            for other in case.retrained
        ]
        assert one.unlearned == pytest.approx(sum(alike) / len(alike), abs=1e-6)
        assert one.level == (1 if part == "forget_test" else None)
    first = case.original.logits["forget_test"]
    assert alignment(first, 3 * first + 7) == pytest.approx(1)
    assert alignment(first, -first) == pytest.approx(-1)


def test_alignment_is_measured_on_training_rows_where_no_test_row_is_to_be_forgotten() -> None:
    found = by_name(Prediction()(row_case()))
    assert found["prediction/alignment/forget"].level == 1
    assert "prediction/alignment/forget_test" not in found
