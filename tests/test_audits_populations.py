"""The audits of populations: each number against a slow second way, a null that passes, a difference that fails."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist, fmean, stdev

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import CLASSES, Logits, assert_same_numbers, make_case, make_labels, make_logits, permuted, state
from expunge.audits._populations import margins
from expunge.audits.klom import Klom, klom
from expunge.audits.neurips_score import NeuripsScore, epsilons, final, points
from expunge.audits.u_lira import ULira, accuracy, area, pair_scores
from expunge.case import Audit, Case, Evidence
from expunge.data import Part

MODELS = 6
AUDITS: list[Audit] = [
    Klom(min_models=4, bins=3),
    ULira(min_models=4),
    NeuripsScore(min_models=4, splits=6),
]
LABELS = make_labels()


def shifted(seed: int, shift: float) -> Logits:
    """Return logits whose forgotten rows have their label raised."""
    logits = make_logits(LABELS, seed)
    raised = torch.eye(CLASSES)[CLASSES - 1] * shift
    return {part: values + raised if part.startswith("forget") else values for part, values in logits.items()}


def population_case(shift: float, unlearned: int = MODELS, retrained: int = 2 * MODELS) -> Case:
    """Return a case of many models; the unlearned ones differ from the retrained ones by a shift."""
    case = make_case(
        LABELS, shifted(0, 5.0), shifted(1, shift), [shifted(100 + seed, 0.0) for seed in range(retrained)]
    )
    others = [Evidence(model=case.unlearned.model, logits=shifted(500 + seed, shift), labels=LABELS)
              for seed in range(unlearned)]  # fmt: skip
    return replace(case, unlearned_population=tuple(others))


@pytest.mark.parametrize("audit", AUDITS, ids=lambda audit: type(audit).__name__)
def test_models_of_one_distribution_pass_and_others_fail(audit: Audit) -> None:
    for finding in audit(population_case(0.0)):
        assert finding.inside is True, finding
        assert finding.level == 4
    failed = [finding.name for finding in audit(population_case(4.0)) if finding.inside is False]
    assert failed
    assert all("retain" not in name for name in failed)


@pytest.mark.parametrize("audit", AUDITS, ids=lambda audit: type(audit).__name__)
def test_too_few_models_are_said_with_the_command_that_makes_more(audit: Audit) -> None:
    for unlearned, retrained in ((0, 12), (3, 12), (6, 7)):
        for finding in audit(population_case(0.0, unlearned, retrained)):
            assert (finding.unlearned, finding.retrained, finding.band, finding.inside) == (None, None, None, None)
            assert finding.note is not None
            assert f"needs 4 unlearned and 8 retrained models, got {unlearned} and {retrained}" in finding.note
            assert "expunge population build" in finding.note


@pytest.mark.parametrize("audit", AUDITS, ids=lambda audit: type(audit).__name__)
def test_nothing_is_changed_and_twice_is_the_same(audit: Audit) -> None:
    case = population_case(1.0)
    before = state(case)
    assert audit(case) == audit(case)
    assert state(case) == before


@pytest.mark.parametrize("audit", AUDITS, ids=lambda audit: type(audit).__name__)
def test_order_of_rows_is_of_no_matter(audit: Audit) -> None:
    case = population_case(1.0)
    findings = audit(case)
    assert all(finding.unlearned is not None for finding in findings)
    assert_same_numbers(findings, audit(permuted(case)))


def test_a_margin_is_the_log_odds_of_the_label() -> None:
    case = population_case(0.0)
    found = margins([case.original], "forget")
    for row, value in enumerate(found[0].tolist()):
        powers = [math.exp(logit) for logit in case.original.logits["forget"][row].tolist()]
        share = powers[CLASSES - 1] / sum(powers)
        assert value == pytest.approx(math.log(share / (1 - share)), rel=1e-5)
    far = replace(case.original, logits={"forget": torch.tensor([[0.0, 0.0, 0.0, 800.0]])},
                  labels={"forget": torch.tensor([3])})  # fmt: skip
    assert margins([far], "forget").item() == pytest.approx(800 - math.log(3))


def slow_klom(first: list[float], second: list[float], bins: int, epsilon: float) -> float:
    """Count by numpy's histogram, whose last bin is closed."""
    edges = np.linspace(min([*first, *second]), max([*first, *second]), bins + 1)
    shares = [np.histogram(values, edges)[0] / len(values) + epsilon for values in (first, second)]
    p, q = (share / share.sum() for share in shares)
    return math.fsum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))


def test_klom_is_the_divergence_of_histograms_by_another_way() -> None:
    draw = random.Random(1)  # noqa: S311
    first, second = ([[draw.gauss(shift, 1) for _ in range(30)] for _ in range(5)] for shift in (0.0, 0.7))
    found = klom(torch.tensor(first).T, torch.tensor(second).T)
    for row in range(5):
        assert found[row].item() == pytest.approx(slow_klom(first[row], second[row], 20, 1e-5), rel=1e-3)


def test_klom_by_hand_with_the_largest_margin_in_the_last_bin() -> None:
    # two bins, [0, 1) and [1, 2]: one population has half in each, the other all in the first
    first, second = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[0.0], [0.5]]).double()
    epsilon = 1e-5
    p, q = (0.5 + epsilon) / (1 + 2 * epsilon), (1 + epsilon) / (1 + 2 * epsilon)
    expected = p * math.log(p / q) + p * math.log(p / (1 - q))
    assert klom(first, second, bins=2).item() == pytest.approx(expected)
    backwards = q * math.log(q / p) + (1 - q) * math.log((1 - q) / p)
    assert klom(second, first, bins=2).item() == pytest.approx(backwards)
    assert klom(first, first, bins=2).item() == 0
    same = torch.full((3, 1), 7.0).double()
    assert klom(same, same).item() == 0
    assert klom(same * 100, same * 200).item() == 0  # both beyond the cut


def test_the_direction_of_klom_is_a_setting() -> None:
    case = population_case(2.0)
    one, other = (
        Klom(min_models=4, direction=way)(case)[0] for way in ("unlearned||retrained", "retrained||unlearned")
    )
    assert one.unlearned != other.unlearned


def slow_pairs(unlearned: list[float], retrained: list[float], least: float) -> list[tuple[float, float]]:
    """Return the scores of both models of each pair, fitted by the standard library without the two."""
    found = []
    for i, j in itertools.product(range(len(unlearned)), range(len(retrained))):
        kept = [unlearned[:i] + unlearned[i + 1 :], retrained[:j] + retrained[j + 1 :]]
        fitted = [NormalDist(fmean(values), max(least, stdev(values))) for values in kept]
        scores = [
            math.log(fitted[0].pdf(value)) - math.log(fitted[1].pdf(value)) for value in (unlearned[i], retrained[j])
        ]
        found.append((scores[0], scores[1]))
    return found


def test_u_lira_is_the_attack_by_another_way() -> None:
    draw = random.Random(2)  # noqa: S311
    rows = [([draw.gauss(0, 1) for _ in range(6)], [draw.gauss(1, 1.5) for _ in range(6)]) for _ in range(4)]
    pairs = [pair for first, second in rows for pair in slow_pairs(first, second, 0.01)]
    first, second = (torch.tensor([row[kind] for row in rows]).double().T for kind in (0, 1))
    for found, kind in zip(pair_scores(first, second, 0.01), (0, 1), strict=True):
        by_row = found.expand(6, 6, 4).movedim(2, 0).flatten().tolist()
        assert by_row == pytest.approx([pair[kind] for pair in pairs], abs=1e-5)
    assert area(first, second, 0.01) == pytest.approx(fmean((a > b) + (a == b) / 2 for a, b in pairs))
    assert accuracy(first, second, 0.01) == pytest.approx(fmean(((a > 0) + (b < 0)) / 2 for a, b in pairs))


def test_u_lira_finds_nothing_where_there_is_nothing() -> None:
    """No model judges itself, so that its expectation is one half, however few models there are."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 4000, generator=generator).double() for _ in range(2))
    assert area(first, second, 0.01) == pytest.approx(0.5, abs=0.015)
    assert accuracy(first, second, 0.01) == pytest.approx(0.5, abs=0.015)
    assert area(first * 0, second * 0, 0.01) == 0.5
    assert area(first, second + 20, 0.01) == 1
    assert accuracy(first, second + 20, 0.01) > 0.99


def slow_epsilon(first: list[float], second: list[float]) -> float:
    """Try every threshold and interval by counting."""
    spans = [max(values) - min(values) for values in (first, second)]
    if min(spans) < 0.01 * max(spans):
        return 50.0
    narrow, wide = (first, second) if spans[0] <= spans[1] else (second, first)
    low, high = sorted((first, second), key=lambda values: sorted(values)[(len(values) - 1) // 2])
    everything = sorted(first + second)
    rules: list[tuple[list[float], list[float], Callable[[float], bool]]] = []
    for left in everything:
        rules.append((high, low, lambda value, left=left: value >= left))  # type: ignore[misc]
        rules += [(narrow, wide, lambda value, left=left, right=right: left <= value <= right)  # type: ignore[misc]
                  for right in everything if right >= left]  # fmt: skip
    best = 0.0
    for positives, negatives, positive in rules:
        fpr, fnr = fmean(map(positive, negatives)), 1 - fmean(map(positive, positives))
        if fpr == 0 and fnr == 0:
            return 50.0
        for a, b in ((fpr, fnr), (fnr, fpr)):
            if a > 0 and b > 0 and 1 - 1e-5 - a > 0:
                best = max(best, math.log(1 - 1e-5 - a) - math.log(b))
    return best


def test_epsilon_is_the_best_of_all_thresholds_and_intervals() -> None:
    draw = random.Random(3)  # noqa: S311
    for shift, spread in ((0.0, 1.0), (1.0, 1.0), (0.0, 0.2), (9.0, 1.0), (0.0, 0.001)):
        first, second = [draw.gauss(0, 1) for _ in range(12)], [draw.gauss(shift, spread) for _ in range(12)]
        pair: list[Tensor] = [torch.tensor(values).double()[:, None] for values in (first, second)]
        expected = slow_epsilon(first, second)
        assert epsilons(pair[0], pair[1]) == pytest.approx([expected])
        assert epsilons(pair[1], pair[0]) == pytest.approx([expected])


def test_a_population_that_hardly_varies_is_told_apart_even_from_one_with_a_model_amid_it() -> None:
    narrow = torch.tensor([0.0, 0.001, 0.002, 0.003]).double()[:, None]
    wide = torch.tensor([-1.0, 0.0015, 0.5, 1.0]).double()[:, None]
    assert epsilons(narrow, wide) == epsilons(wide, narrow) == [50.0]
    assert epsilons(narrow * 10, wide)[0] < 50


def test_points_halve_with_every_half_of_epsilon() -> None:
    # 17 models can show up to log(16) = 2.77, rounded up to 3
    assert [points(epsilon, 17) for epsilon in (0.0, 0.49, 0.5, 1.2, 2.9, 3.0, 50.0)] == [1, 1, 0.5, 0.25, 2**-5, 0, 0]


def test_the_final_score_pays_for_lost_accuracy() -> None:
    case = population_case(0.0)
    kept: tuple[Part, ...] = ("retain", "retain_test")
    worse = tuple(
        replace(one, logits={**one.logits, **{part: one.logits[part].roll(1, dims=1) for part in kept}})
        for one in case.unlearned_population
    )
    good, bad, retrained = case.unlearned_population[:4], worse[:4], case.retrained[:4]
    right = [
        math.prod(
            fmean(
                float(row.index(max(row)) == label)
                for one in models
                for row, label in zip(one.logits[part].tolist(), LABELS[part].tolist(), strict=True)
            )
            for part in kept
        )
        for models in (good, bad)
    ]
    assert final(bad, retrained) / final(good, retrained) == pytest.approx(right[1] / right[0])
    assert right[1] < right[0] / 4
