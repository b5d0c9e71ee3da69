"""Membership: against pairs counted one by one, thresholds tried one by one, and a regression fitted by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize
from sklearn.linear_model import LogisticRegression
from torch import nn

from cases import (
    CLASSES,
    assert_same_numbers,
    by_name,
    make_case,
    make_labels,
    permuted,
    random_case,
    row_case,
    state,
)
from expunge.audits.membership import (
    Membership,
    confidence,
    cross_validated,
    entropy,
    evenly,
    folded_auc,
    folded_tpr,
    loss,
    predicted_member,
)
from expunge.case import Evidence
from expunge.data import Part

SMALL = Membership(min_rows=10)
NAMES = [
    "entropy/predicted_member",
    "entropy/auc",
    "entropy/tpr_at_1_fpr",
    "loss/accuracy",
    "loss/auc",
    "loss/tpr_at_1_fpr",
    "confidence/predicted_non_member",
]


def slow_scores(evidence: Evidence, part: Part) -> list[tuple[float, float, float]]:
    """Entropy, loss and confidence of each row, from single probabilities."""
    found = []
    for logits, label in zip(evidence.logits[part].tolist(), evidence.labels[part].tolist(), strict=True):
        powers = [math.exp(logit) for logit in logits]
        shares = [power / sum(powers) for power in powers]
        found.append((-sum(p * math.log(p) for p in shares), -math.log(shares[label]), shares[label]))
    return found


def slow_auc(first: list[float], second: list[float]) -> float:
    wins = sum((a > b) + 0.5 * (a == b) for a in first for b in second) / (len(first) * len(second))
    return max(wins, 1 - wins)


def slow_tpr(positives: list[float], negatives: list[float], rate: float) -> float:
    best = 0.0
    for sign in (1, -1):
        for threshold in [sign * score for score in positives]:
            accused = sum(sign * score >= threshold for score in negatives)
            if accused <= rate * len(negatives):
                best = max(best, sum(sign * score >= threshold for score in positives) / len(positives))
    return best


def slow_share(members: list[float], others: list[float], target: list[float]) -> float:
    """Logistic regression as a minimum found without gradients: log loss, classes balanced, plus half the slope²."""
    total = len(members) + len(others)

    def objective(line: np.ndarray) -> float:
        slope, offset = line
        own = np.logaddexp(0, -(slope * np.array(members) + offset)).sum() * total / (2 * len(members))
        rest = np.logaddexp(0, slope * np.array(others) + offset).sum() * total / (2 * len(others))
        return float(own + rest + slope**2 / 2)

    slope, offset = optimize.minimize(objective, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9}).x
    return float(np.mean([slope * score + offset > 0 for score in target]))


def test_scores_are_those_of_single_probabilities() -> None:
    evidence = random_case().unlearned
    logits, labels = evidence.logits["forget"], evidence.labels["forget"]
    scores = np.stack([score(logits, labels) for score in (entropy, loss, confidence)], axis=1)
    assert scores == pytest.approx(np.array(slow_scores(evidence, "forget")), rel=1e-6)


def test_loss_is_clipped_at_a_hundred() -> None:
    assert loss(torch.tensor([[0.0, 500.0]]), torch.tensor([0])).tolist() == [100.0]


def test_area_and_rates_of_entropy_and_loss_are_those_of_counting() -> None:
    case = random_case()
    found = by_name(SMALL(case))
    forgotten, unseen = (slow_scores(case.unlearned, part) for part in ("forget", "forget_test"))
    for column, name in enumerate(("entropy", "loss")):
        scores = [row[column] for row in forgotten], [row[column] for row in unseen]
        assert found[f"membership/{name}/auc"].unlearned == pytest.approx(slow_auc(*scores))
        assert found[f"membership/{name}/tpr_at_1_fpr"].unlearned == pytest.approx(slow_tpr(*scores, 0.01))


@pytest.mark.parametrize("seed", range(5))
def test_area_and_rates_of_scores_with_ties_are_those_of_counting(seed: int) -> None:
    draw = np.random.default_rng(seed)
    first, second = draw.integers(0, 30, 40) / 10 + 0.5, draw.integers(0, 30, 250) / 10
    assert folded_auc(first, second) == pytest.approx(slow_auc(first.tolist(), second.tolist()))
    assert folded_tpr(first, second) == pytest.approx(slow_tpr(first.tolist(), second.tolist(), 0.01))
    assert folded_tpr(first, second, 0.2) == pytest.approx(slow_tpr(first.tolist(), second.tolist(), 0.2))


def test_forgotten_rows_that_look_less_like_training_rows_than_test_rows_are_found_too() -> None:
    low, high = np.linspace(0.0, 1.0, 50), np.linspace(2.0, 3.0, 200)
    assert folded_auc(low, high) == folded_auc(high, low) == 1
    assert folded_tpr(low, high) == folded_tpr(high, low) == 1


def test_the_entropy_attack_is_a_balanced_logistic_regression() -> None:
    case = random_case()
    retain, test, forget = (
        [row[0] for row in slow_scores(case.unlearned, part)] for part in ("retain", "retain_test", "forget")
    )
    share = slow_share(retain, test, forget)
    assert 0 < share < 1
    assert by_name(SMALL(case))["membership/entropy/predicted_member"].unlearned == pytest.approx(share)


def like(labels: dict[Part, torch.Tensor], sure: dict[Part, float]) -> dict[Part, torch.Tensor]:
    """Logits that give the own class of every row of a part about the same lead."""
    return {
        part: torch.nn.functional.one_hot(values, CLASSES) * (sure[part] + torch.linspace(0, 0.2, len(values))[:, None])
        for part, values in labels.items()
    }


def test_orientation_rows_that_look_trained_on_are_members_and_not_non_members() -> None:
    labels = make_labels()
    sides: dict[Part, float] = {"retain": 6.0, "retain_test": 1.0, "forget_test": 1.0}
    seen, unseen = like(labels, sides | {"forget": 6.0}), like(labels, sides | {"forget": 1.0})
    found = by_name(SMALL(make_case(labels, seen, unseen)))
    member, non_member = (
        found["membership/entropy/predicted_member"],
        found["membership/confidence/predicted_non_member"],
    )
    assert (member.original, member.unlearned) == (1, 0)
    assert (non_member.original, non_member.unlearned) == (0, 1)
    accuracy = found["membership/loss/accuracy"]
    assert accuracy.original == 1
    assert accuracy.unlearned is not None
    assert accuracy.unlearned < 0.8


def test_the_loss_attack_is_balanced_and_a_coin_when_all_scores_are_equal() -> None:
    many, few = np.linspace(0.0, 1.0, 1000), np.linspace(0.0, 1.0, 10)
    balanced = cross_validated(many, few, 0)
    assert balanced is not None
    assert balanced < 0.75
    assert cross_validated(np.zeros(20), np.zeros(20), 0) == 0.5
    assert cross_validated(many, few[:1], 0) is None
    assert cross_validated(many, many + 100, 0) == 1


def test_a_subset_is_evenly_spaced() -> None:
    assert evenly(np.arange(9.0), 3).tolist() == [1, 4, 7]
    assert evenly(np.arange(5.0), 5).tolist() == [0, 1, 2, 3, 4]


def test_the_support_vector_machine_is_fitted_on_no_more_rows_than_allowed() -> None:
    case = random_case()
    few = by_name(Membership(max_fit_rows=3)(case))["membership/confidence/predicted_non_member"]
    all_rows = by_name(Membership()(case))["membership/confidence/predicted_non_member"]
    assert few.unlearned != all_rows.unlearned


def test_an_attack_that_has_nothing_to_learn_from_is_not_known_and_says_so() -> None:
    assert predicted_member(LogisticRegression(), np.ones(5), np.ones(5), np.ones(3)) is None
    labels = make_labels()
    flat = {part: torch.zeros(len(values), CLASSES) for part, values in labels.items()}
    found = by_name(SMALL(make_case(labels, flat, flat, [flat] * 3)))
    for name in ("entropy/predicted_member", "confidence/predicted_non_member"):
        finding = found[f"membership/{name}"]
        assert finding.unlearned is None
        assert finding.note is not None
        assert finding.note.endswith("a model gives all rows one score, which no attack can be fitted on")
    assert found["membership/loss/auc"].unlearned == found["membership/loss/accuracy"].unlearned == 0.5
    assert found["membership/loss/tpr_at_1_fpr"].unlearned == 0


def test_numbers_from_few_rows_only_inform_and_say_so() -> None:
    case = random_case({"retain": 150, "forget": 120, "retain_test": 110, "forget_test": 36})
    counting = [finding.name for finding in Membership()(case) if finding.level == 1]
    assert counting == ["membership/entropy/predicted_member", "membership/confidence/predicted_non_member"]
    note = by_name(Membership()(case))["membership/loss/auc"].note
    assert note == "only informs: 36 rows in the same classes in forget_test, where 100 are needed to count"
    assert {finding.level for finding in SMALL(case)} == {1}


def test_a_request_of_rows_is_held_against_test_rows_of_the_same_classes() -> None:
    case = row_case()
    case.original.labels["forget"].fill_(0)
    found = by_name(Membership(min_rows=8)(case))["membership/loss/auc"]
    own = [row[1] for row in slow_scores(case.unlearned, "forget")]
    same = case.unlearned.labels["retain_test"] == 0
    rows = [row[1] for row, is_same in zip(slow_scores(case.unlearned, "retain_test"), same, strict=True) if is_same]
    assert found.unlearned == pytest.approx(slow_auc(own, rows))
    assert found.level == 1


def test_without_test_rows_of_the_class_it_is_not_known() -> None:
    found = by_name(SMALL(random_case({"retain": 30, "forget": 20, "retain_test": 20, "forget_test": 0})))
    assert found["membership/loss/auc"].unlearned is None
    assert found["membership/loss/auc"].level is None
    assert found["membership/entropy/predicted_member"].unlearned is not None


def test_without_retrained_models_it_says_so() -> None:
    for found in SMALL(random_case(references=0)):
        assert (found.retrained, found.band, found.inside) == (None, None, None)
        assert found.note is not None
        assert found.note.endswith("no reference")


def test_it_has_seven_findings_from_nought_to_one() -> None:
    findings = SMALL(random_case())
    assert [finding.name for finding in findings] == [f"membership/{name}" for name in NAMES]
    for finding in findings:
        assert finding.band is not None
        assert 0 <= finding.band[0] <= finding.band[1] <= 1


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = random_case()
    before, numpy_before = state(case), repr(np.random.get_state())
    findings = SMALL(case)
    assert state(case) == before
    assert repr(np.random.get_state()) == numpy_before
    assert_same_numbers(findings, SMALL(permuted(case)))


def test_another_model_with_the_same_answers_has_the_same_numbers() -> None:
    case = random_case()
    twin = replace(case, unlearned=replace(case.original, model=nn.Linear(3, 4)))
    for finding in SMALL(twin):
        assert finding.original == finding.unlearned
