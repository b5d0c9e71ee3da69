"""The relative test: its statistic by sums over pairs, and its p-values where the truth is known."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from cases import CLASSES, assert_same_numbers, by_name, make_case, make_labels, make_logits, permuted, state
from expunge.audits.three_sample import ThreeSample, relative_test
from expunge.case import Case
from expunge.finding import UNINFORMATIVE, finding


def slow_test(model: Tensor, retrained: Tensor, original: Tensor) -> float:
    """The difference of both unbiased discrepancies, pair by pair; its variance by leaving out each row."""
    count = len(model)
    distances = [math.dist(a, b) for other in (retrained, original) for a in model.tolist() for b in other.tolist()]
    width = sorted(distances)[(len(distances) - 1) // 2]

    def kernel(a: Tensor, b: Tensor) -> float:
        return math.exp(-(math.dist(a.tolist(), b.tolist()) ** 2) / (2 * width**2))

    def discrepancy(i: int, j: int, other: Tensor) -> float:
        return (
            kernel(model[i], model[j])
            + kernel(other[i], other[j])
            - kernel(model[i], other[j])
            - kernel(model[j], other[i])
        )

    share = [[discrepancy(i, j, retrained) - discrepancy(i, j, original) for j in range(count)] for i in range(count)]
    means = [sum(share[i][j] for j in range(count) if j != i) / (count - 1) for i in range(count)]
    statistic = sum(means) / count
    variance = 4 * sum((mean - statistic) ** 2 for mean in means) / (count - 1) / count
    return float(stats.norm.cdf(statistic / math.sqrt(variance)))


def answers(generator: torch.Generator, toward: Tensor, rows: int) -> Tensor:
    return (toward + torch.randn(rows, len(toward), generator=generator)).double().softmax(dim=1)


def three_case(like: int) -> Case:
    """Return a case whose unlearned model answers as the original (0) or as the retrained models (1) do."""
    labels = make_labels()
    logits = [make_logits(labels, seed) for seed in range(6)]
    shift = 3 * torch.eye(CLASSES)[CLASSES - 1]
    for known in [0, 1] if like == 0 else [0]:
        logits[known] |= {"forget": logits[known]["forget"] + shift}
    return make_case(labels, logits[0], logits[1], logits[2:])


def test_the_p_value_is_that_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    model, near, far = (answers(generator, torch.eye(4)[index] * 1.0, 15) for index in (0, 1, 2))
    assert relative_test(model, [near], far) == pytest.approx(slow_test(model, near, far), rel=1e-6)


def test_it_is_calibrated_where_the_model_is_as_near_to_both() -> None:
    """The rows' answers depend on each other across models, as those of real models do."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(400):
        row = torch.randn(60, 4, generator=generator)
        model, one, other = (
            (row + torch.randn(60, 4, generator=generator) + torch.eye(4)[index] * height).double().softmax(dim=1)
            for index, height in ((0, 0.0), (1, 1.5), (2, 1.5))
        )
        found.append(relative_test(model, [one], other))
    for level in (0.05, 0.1, 0.5):
        below = sum(p <= level for p in found) / len(found)
        assert below == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / len(found)) + 0.01)


def test_it_tells_nearer_from_farther() -> None:
    generator = torch.Generator().manual_seed(2)
    model, near, far = (answers(generator, torch.eye(4)[index] * 3, 100) for index in (0, 0, 1))
    assert relative_test(model, [near], far) < 1e-4
    assert relative_test(model, [far], near) > 0.9999
    assert relative_test(model, [near], near) == 0.5
    assert relative_test(far, [near], far) > 0.9999


@pytest.mark.parametrize(("like", "inside"), [(0, False), (1, True)])
def test_a_model_like_the_original_fails_and_one_like_the_retrained_passes(like: int, inside: bool) -> None:
    found = by_name(ThreeSample()(three_case(like)))["three_sample/p_value"]
    assert found.inside is inside
    assert found.original is not None
    assert found.original > 0.99
    assert found.retrained == pytest.approx(0, abs=0.01)


def test_the_widened_band_decides_what_is_informative() -> None:
    """The original's 0.005 is outside where retrained models fall, and yet passes at a significance of 0.01."""
    found = finding("x", original=0.005, unlearned=0.5, retrained=[1e-4, 2e-4, 3e-4], level=1, meaning="")
    assert (found.informative, found.inside) == (True, False)
    widened = ThreeSample()._one_sided(found, 0.5, 0.01)
    assert (widened.informative, widened.band, widened.note) == (False, (0.0, 0.01), UNINFORMATIVE)
    strict = ThreeSample()._one_sided(found, 0.5, 0.004)
    assert (strict.informative, strict.note, strict.inside) == (True, None, False)


def test_few_rows_only_inform() -> None:
    (found,) = ThreeSample(min_rows=31)(three_case(1))
    assert (found.unlearned, found.level, found.inside) == (None, None, None)
    assert found.note == "only informs: 30 rows in forget, where 31 are needed"


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = three_case(1)
    before = state(case)
    audit = ThreeSample(max_rows=20)
    findings = audit(case)
    assert state(case) == before
    assert_same_numbers(findings, audit(permuted(case)))
