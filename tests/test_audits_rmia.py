"""RMIA: its formula row by row, numbers by hand, and who is accused."""

import math

import pytest
import torch

from cases import CLASSES, SIZES, assert_same_numbers, by_name, make_case, make_labels, make_logits, permuted, state
from expunge.audits.rmia import Rmia, relative, scores
from expunge.case import Case, Evidence
from expunge.data import Part

AUDIT = Rmia(min_rows=5)


def rmia_case(signal: float = 0.0, references: int = 4) -> Case:
    """Return a case in which the unlearned model still knows the rows to forget by so much."""
    labels = make_labels()
    logits = [make_logits(labels, seed) for seed in range(2 + references)]
    logits[1] |= {"forget": logits[1]["forget"] + signal * torch.eye(CLASSES)[CLASSES - 1]}
    return make_case(labels, logits[0], logits[1], logits[2:])


def share(evidence: Evidence, part: Part, row: int) -> float:
    powers = [math.exp(logit) for logit in evidence.logits[part][row].tolist()]
    return powers[int(evidence.labels[part][row])] / sum(powers)


def slow_scores(evidence: Evidence, others: list[Evidence], part: Part, gamma: float = 2.0) -> list[float]:
    """Compare each row with each of the population, one by one."""

    def ratio(of: Part, row: int) -> float:
        mean = sum(share(other, of, row) for other in others) / len(others)
        return share(evidence, of, row) / (0.5 * ((1 + 0.3) * mean + (1 - 0.3)))

    found = []
    for row in range(SIZES[part]):
        population = [z for z in range(SIZES["retain_test"]) if not (part == "retain_test" and z == row)]
        found.append(
            sum(ratio(part, row) / ratio("retain_test", z) >= gamma for z in population) / SIZES["retain_test"]
        )
    return found


@pytest.mark.parametrize("gamma", [2.0, 0.9])
def test_it_accuses_the_rows_that_the_formula_accuses(gamma: float) -> None:
    case = rmia_case(1.0)
    found = by_name(Rmia(min_rows=5, gamma=gamma)(case))["rmia/predicted_member"]
    expected = []
    for left_out in case.retrained:
        others = [other for other in case.retrained if other is not left_out]
        unseen = sorted(slow_scores(case.unlearned, others, "retain_test", gamma))
        threshold = unseen[-1 - int(0.05 * len(unseen))]
        rows = slow_scores(case.unlearned, others, "forget", gamma)
        expected.append(sum(score > threshold for score in rows) / len(rows))
    assert found.unlearned == pytest.approx(sum(expected) / len(expected))


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    case = rmia_case(1.0)
    areas = []
    for left_out in case.retrained:
        others = [other for other in case.retrained if other is not left_out]
        rows, unseen = (slow_scores(case.unlearned, others, part) for part in ("forget", "forget_test"))
        pairs = [(a > b) + (a == b) / 2 for a in rows for b in unseen]
        areas.append(max(sum(pairs) / len(pairs), 1 - sum(pairs) / len(pairs)))
    assert by_name(AUDIT(case))["rmia/auc"].unlearned == pytest.approx(sum(areas) / len(areas))


def test_numbers_by_hand() -> None:
    # one reference that gives 0.2: p = (1.3 * 0.2 + 0.7) / 2 = 0.48
    assert relative(torch.tensor([0.96]), torch.tensor([[0.2]]), 0.3).item() == pytest.approx(2)
    assert relative(torch.tensor([0.5]), torch.tensor([[0.1], [0.4]]), 1.0).item() == pytest.approx(2)
    population = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert scores(torch.tensor([4.0, 1.0, 99.0]), population, 2.0, within=False).tolist() == [0.5, 0, 1]
    assert scores(population, population, 2.0, within=True).tolist() == [0, 0.25, 0.5, 0.75]
    assert scores(population, population, 1.0, within=True).tolist() == [0, 0.25, 0.5, 0.75]


def test_rows_that_are_likelier_than_equally_many_are_not_set_apart() -> None:
    """Rows to forget are compared with one row more than unseen rows are; that must not rank them."""
    unseen = torch.tensor([0.1] + [1.0] * 9)
    mine, theirs = scores(torch.ones(5), unseen, 2.0, within=False), scores(unseen, unseen, 2.0, within=True)[1:]
    assert mine.tolist() == [0.1] * 5
    assert theirs.tolist() == [0.1] * 9


def test_a_model_that_still_knows_the_rows_is_outside_and_one_like_the_retrained_inside() -> None:
    assert by_name(AUDIT(rmia_case(6.0, references=12)))["rmia/predicted_member"].inside is False
    assert by_name(AUDIT(rmia_case(references=12)))["rmia/predicted_member"].inside is True


def test_few_rows_only_inform() -> None:
    for finding in Rmia()(rmia_case()):
        assert finding.level is None
        assert finding.unlearned is not None
        assert finding.note is not None
        assert "where 100 are needed to count" in finding.note


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = rmia_case(1.0)
    before = state(case)
    findings = AUDIT(case)
    assert state(case) == before
    assert_same_numbers(findings, AUDIT(permuted(case)))
