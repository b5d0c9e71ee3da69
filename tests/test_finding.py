"""Findings: what a band holds, how often it fails a retrained model, and when it tells nothing."""

from dataclasses import replace

import numpy as np
import pytest

from expunge.finding import ALPHA, CONFIDENCE, JUDGED, UNINFORMATIVE, Finding, finding, retrained_band
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
