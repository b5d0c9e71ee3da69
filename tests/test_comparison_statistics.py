"""Means over seeds and paired differences, against worked numbers and slow oracles."""

from itertools import product

import numpy as np
import pytest

from expunge.comparison.statistics import (
    LEAST_FOR_TEST,
    Estimate,
    World,
    differences,
    estimate,
    holm,
    seed_means,
    signed_rank,
)


def worlds(*means: float, classes: int = 2) -> dict[World, float]:
    """Return values whose mean within each seed is given; the classes lie around it."""
    return {
        World(name=f"class-{c}-seed-{seed}", seed=seed): mean + (c - (classes - 1) / 2)
        for seed, mean in enumerate(means)
        for c in range(classes)
    }


def test_three_seeds_have_the_interval_of_the_t_table() -> None:
    # means 1, 2 and 3: standard error 1 / sqrt(3), and 4.303 of them with two degrees of freedom
    found = estimate(worlds(1.0, 2.0, 3.0))
    assert found.mean == pytest.approx(2.0)
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-3)
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-3)
    assert found.seeds == 3
    assert found.values["class-1-seed-2"] == 3.5


def test_more_classes_do_not_narrow_the_interval() -> None:
    few, many = estimate(worlds(1.0, 2.0, 3.0, classes=1)), estimate(worlds(1.0, 2.0, 3.0, classes=10))
    assert few.low == pytest.approx(many.low)
    assert few.high == pytest.approx(many.high)


def test_a_single_seed_or_equal_ones_have_no_interval() -> None:
    for values in (worlds(1.0, classes=10), worlds(0.5, 0.5, 0.5)):
        found = estimate(values)
        assert (found.low, found.high, found.apart) == (None, None, False)
    nothing = estimate({})
    assert nothing == Estimate(mean=None, low=None, high=None, seeds=0, values={})


def test_an_interval_is_cut_at_what_can_be() -> None:
    found = estimate(worlds(0.9, 1.0, 0.5, classes=1), (0.0, 1.0))
    assert found.low == pytest.approx(0.8 - 4.3027 * 0.26458 / 3**0.5, abs=1e-3)
    assert found.high == 1.0


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        shift = draws.normal(size=4)  # what all classes of a seed share
        found = estimate(
            {World(name=f"{seed}/{c}", seed=seed): shift[seed] + draws.normal() for seed in range(4) for c in range(5)}
        )
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_only_worlds_of_both_are_paired() -> None:
    a, b, c = (World(name=name, seed=0) for name in "abc")
    assert differences({a: 1.0, b: 2.0}, {b: 0.5, c: 9.0}) == {b: 1.5}


def test_pairing_takes_out_what_worlds_share() -> None:
    shared = {world: 10.0 * world.seed for world in worlds(0, 0, 0)}
    first = {world: value + 1 + 0.1 * world.seed for world, value in shared.items()}
    assert not estimate(first).apart
    between = estimate(differences(first, shared))
    assert between.apart
    assert between.mean == pytest.approx(1.1)


def slow_signed_rank(values: list[float]) -> float:
    """Return the p-value by going through all signs."""
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    middle = ranks.sum() / 2
    seen = abs(ranks[np.array(values) > 0].sum() - middle)
    sums = [ranks[np.array(signs) > 0].sum() for signs in product((-1, 1), repeat=len(values))]
    return float(np.mean([abs(total - middle) >= seen for total in sums]))


@pytest.mark.parametrize("means", [(1, 2, 3, 4, 5, 6), (1, -2, 3, 4, -5, 6, 7), (-1, -2, -3, -4, -5, -6, 7)])
def test_the_signed_rank_test_is_that_of_all_signs(means: tuple[float, ...]) -> None:
    assert signed_rank(worlds(*means)) == pytest.approx(slow_signed_rank(list(means)))


def test_six_seeds_that_agree_have_a_p_value_of_two_in_64() -> None:
    assert signed_rank(worlds(1, 2, 3, 4, 5, 6)) == pytest.approx(2 / 64)
    assert signed_rank(worlds(1, 2, 3, 4, 5, classes=10)) is None  # fifty worlds, and yet five seeds
    assert signed_rank(worlds(*([0.0] * LEAST_FOR_TEST))) == 1.0


def test_ties_and_zeros_still_have_a_p_value() -> None:
    found = signed_rank(worlds(1, 1, 1, 1, 0, 1, 1))
    assert found is not None
    assert 0 < found < 0.05


def test_holm_multiplies_by_the_tests_that_are_left() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_means_come_in_the_order_of_seeds() -> None:
    assert seed_means({World(name="b", seed=2): 1.0, World(name="a", seed=1): 3.0}) == [3.0, 1.0]
