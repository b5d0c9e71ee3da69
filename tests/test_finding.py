"""Findings: what a band holds, how often it fails a retrained model, and when it tells nothing."""

from dataclasses import replace

import numpy as np
import pytest

from expunge.finding import (
    ALPHA,
    AT_THE_EDGE,
    CONFIDENCE,
    JUDGED,
    UNINFORMATIVE,
    Finding,
    Meaning,
    Miss,
    at_edge,
    finding,
    missed,
    retrained_band,
)
from expunge.result import reached


def found(original: float | None, level: int | None = 2) -> Finding:
    return finding(
        "x/y", original=original, unlearned=0.5, retrained=[0.4, 0.5, 0.6], level=level, meaning="", limits=(0.0, 1.0)
    )


def test_a_band_that_holds_the_original_tells_nothing() -> None:
    blind = finding("x", original=0.5, unlearned=0.5, retrained=[0.4, 0.5, 0.6], level=2, meaning="", note="read")
    assert (blind.informative, blind.inside, blind.note) == (False, True, f"read; {UNINFORMATIVE}")
    telling = finding("x", original=9.0, unlearned=0.5, retrained=[0.4, 0.5, 0.6], level=2, meaning="")
    assert (telling.informative, telling.note) == (True, None)
    assert found(None).informative is None
    assert found(0.5, level=None).informative is None


def test_a_level_that_doing_nothing_would_pass_is_not_reached() -> None:
    levels = [replace(found(0.5), level=level, informative=True) for level in range(3)]
    assert reached(levels) == "L2"
    assert reached([*levels[:2], replace(levels[2], informative=False)]) == "L1"
    assert reached([*levels, replace(levels[2], informative=False)]) == "L2"
    assert reached([*levels[:2], replace(levels[2], informative=None)]) == "L2"


@pytest.mark.parametrize("references", [3, 5, 12])
def test_all_bands_together_fail_a_retrained_model_as_often_as_said(references: int) -> None:
    """Independent normal numbers are the worst case; a twentieth of the results may have one outside."""
    drawn = np.random.default_rng(0).normal(size=(4000, JUDGED, references + 1))
    mean, spread = drawn[..., 1:].mean(axis=-1), drawn[..., 1:].std(axis=-1, ddof=1)
    low, high = retrained_band([-1.0, *[0.0] * (references - 2), 1.0]) or (0.0, 0.0)
    half = (high - low) / 2 / np.std([-1.0, *[0.0] * (references - 2), 1.0], ddof=1)
    outside = (np.abs(drawn[..., 0] - mean) > half * spread).any(axis=1)
    assert outside.mean() == pytest.approx(ALPHA, abs=0.012)
    assert pytest.approx(1 - ALPHA / JUDGED) == CONFIDENCE


@pytest.mark.parametrize(
    ("number", "higher", "expected"),
    [
        (0.9, "memory", "memory left"),
        (0.1, "memory", "over-forgotten"),
        (0.9, "oblivion", "over-forgotten"),
        (0.1, "oblivion", "memory left"),
        (0.1, "kept", "damaged"),
        (0.9, "kept", "unlike retrained"),
        (0.9, None, "unlike retrained"),
        (0.4, "memory", None),
        (0.6, "memory", None),
        (None, "memory", None),
    ],
)
def test_a_miss_is_named_by_what_the_number_speaks_of(
    number: float | None, higher: Meaning | None, expected: Miss | None
) -> None:
    assert missed(number, (0.4, 0.6), higher) == expected
    assert missed(number, None, higher) is None


def test_a_finding_names_its_miss_and_one_inside_has_none() -> None:
    retrained = [0.49, 0.5, 0.5, 0.5, 0.51]
    over = finding("x", original=1.0, unlearned=0.1, retrained=retrained, level=2, meaning="", higher="memory")
    assert (over.inside, over.miss) == (False, "over-forgotten")
    assert (found(1.0).inside, found(1.0).miss) == (True, None)


@pytest.mark.parametrize("references", [3, 5, 9])
def test_a_band_of_paired_numbers_holds_another_model_as_often_as_said(references: int) -> None:
    """Every model has a number; two are as far apart as the sum of theirs, so that distances share them."""
    drawn = np.random.default_rng(0).normal(size=(4000, references + 1))
    inside = {True: 0, False: 0}
    for own in drawn:
        known = [(own[index] + (own[1:].sum() - own[index]) / (references - 1)) for index in range(1, references + 1)]
        candidate = own[0] + own[1:].mean()
        for paired in inside:
            low, high = retrained_band(known, 0.9, paired=paired) or (0.0, 0.0)
            inside[paired] += low <= candidate <= high
    assert inside[True] / len(drawn) == pytest.approx(0.9, abs=0.015)
    assert inside[False] / len(drawn) < 0.885


def test_paired_numbers_take_three_models_for_a_band() -> None:
    assert retrained_band([0.1, 0.1], paired=True) is None
    assert retrained_band([0.1, 0.2, 0.3], paired=True) is not None


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0.405, True), (0.395, True), (0.6, True), (0.43, False), (0.37, False), (0.5, False), (None, False)],
)
def test_little_decides_at_the_edge_of_a_band(number: float | None, expected: bool) -> None:
    assert at_edge(number, (0.4, 0.6), (0.0, 1.0)) is (expected and number is not None)


def test_the_end_of_all_numbers_is_no_edge() -> None:
    assert not at_edge(0.0, (0.0, 0.6), (0.0, 1.0))
    assert at_edge(0.6, (0.0, 0.6), (0.0, 1.0))
    assert not at_edge(0.6, None, (0.0, 1.0))


def test_a_finding_at_the_edge_says_so_inside_and_outside() -> None:
    retrained = [0.49, 0.5, 0.5, 0.5, 0.51]
    low, _ = retrained_band(retrained) or (0.0, 0.0)
    for number, inside in ((low + 1e-3, True), (low - 1e-3, False)):
        one = finding("x", original=1.0, unlearned=number, retrained=retrained, level=2, meaning="")
        assert (one.inside, one.note) == (inside, AT_THE_EDGE)
