"""Information: against a logistic regression found by plain Newton steps, and information known beforehand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cases import SIZES, WIDTHS, assert_same_numbers, by_name, featured_case, permuted, random_case, state
from expunge.audits.information import Information, information
from expunge.case import Evidence

INFONCE = Information(estimator="infonce", critic_steps=100)


def slow_information(evidence: Evidence, depth: str) -> float:
    """Newton's method for the penalised regression, then the entropy less the cross-entropy, row by row."""
    parts = {part: values.double().numpy() for part, values in evidence.features[depth].items()}
    training = np.concatenate([parts["retain"], parts["forget"]])
    mean, scale = training.mean(axis=0), training.std(axis=0)

    def design(rows: np.ndarray) -> np.ndarray:
        return np.column_stack([(rows - mean) / scale, np.ones(len(rows))])

    inputs, truth = design(training), np.repeat([0.0, 1.0], [len(parts["retain"]), len(parts["forget"])])
    penalty = np.diag([1.0] * (inputs.shape[1] - 1) + [0.0])
    weights = np.zeros(inputs.shape[1])
    for _ in range(30):
        odds = 1 / (1 + np.exp(-inputs @ weights))
        curvature = inputs.T @ (inputs * (odds * (1 - odds))[:, None]) + penalty
        weights -= np.linalg.solve(curvature, inputs.T @ (odds - truth) + penalty @ weights)
    losses = [math.log1p(math.exp(row @ weights)) for row in design(parts["retain_test"])]
    losses += [math.log1p(math.exp(-(row @ weights))) for row in design(parts["forget_test"])]
    share = len(parts["forget_test"]) / len(losses)
    return -share * math.log(share) - (1 - share) * math.log(1 - share) - sum(losses) / len(losses)


def test_the_total_is_the_sum_over_depths_of_a_regression_by_newton_steps() -> None:
    case = featured_case()
    found = by_name(Information()(case))["information/total"]
    expected = [slow_information(case.unlearned, depth) for depth in WIDTHS]
    assert found.unlearned == pytest.approx(sum(expected), abs=1e-5)
    assert found.series is not None
    assert found.series.x == tuple(WIDTHS)
    assert list(found.series.unlearned) == pytest.approx(expected, abs=1e-5)
    assert found.level == 2


def test_the_index_is_nought_like_retrained_models_and_one_like_the_original() -> None:
    case = featured_case()
    found = by_name(Information()(case))
    total, index = found["information/total"], found["information/index"]
    assert index.original == pytest.approx(1)
    totals = {one: sum(slow_information(one, depth) for depth in WIDTHS) for one in case.models}
    expected = []
    for left_out in case.retrained:
        among = sum(totals[one] for one in case.retrained if one is not left_out) / 3
        expected.append((totals[case.unlearned] - among) / (totals[case.original] - among))
    assert index.unlearned == pytest.approx(sum(expected) / 4, rel=1e-3)
    assert (index.level, total.level) == (None, 2)


def test_where_the_original_knows_no_more_there_is_no_index() -> None:
    case = featured_case()
    same = replace(case, retrained=tuple(replace(case.original) for _ in range(3)))
    found = by_name(Information()(same))["information/index"]
    assert (found.original, found.unlearned, found.retrained) == (None, None, None)
    assert found.note == "the original knows no more than a retrained model"


def test_information_of_known_predictors() -> None:
    truth = torch.tensor([True, False, False, False])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert information(torch.where(truth, 99.0, -99.0), truth) == pytest.approx(entropy)
    assert information(torch.full((4,), math.log(1 / 3)), truth) == pytest.approx(0)
    assert information(torch.where(truth, -9.0, 9.0), truth) < -1


def test_the_critic_finds_what_is_there_and_nothing_else() -> None:
    case = featured_case(2, {part: 10 * rows for part, rows in SIZES.items()})
    plain, critic = by_name(Information()(case)), by_name(INFONCE(case))
    for name in ("original", "unlearned"):
        one, other = (getattr(found["information/total"], name) for found in (plain, critic))
        assert other == pytest.approx(one, abs=0.2)
    blank = {
        depth: {part: torch.zeros_like(v) for part, v in parts.items()}
        for depth, parts in case.original.features.items()
    }
    nothing = replace(case, unlearned=replace(case.original, features=blank))
    for audit in (Information(), INFONCE):
        found = by_name(audit(nothing))["information/total"].unlearned
        assert found == pytest.approx(0, abs=0.01)


def test_without_features_test_rows_or_references_it_says_so() -> None:
    assert {found.note for found in Information()(random_case())} == {"no features: a model gave none"}
    empty = Information()(featured_case(sizes=SIZES | {"forget_test": 0}))
    assert {(found.note, found.level) for found in empty} == {("no rows in forget_test", None)}
    for found in Information()(featured_case(references=0)):
        assert (found.retrained, found.inside, found.note) == (None, None, "no reference")


@pytest.mark.parametrize("audit", [Information(), INFONCE])
def test_order_of_rows_is_of_no_matter_and_nothing_is_changed(audit: Information) -> None:
    case = featured_case()
    before = state(case)
    findings = audit(case)
    assert state(case) == before
    if audit.estimator == "probe":
        assert_same_numbers(findings, audit(permuted(case)))
