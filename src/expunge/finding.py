"""Finding: one number of an audit beside the same number of the original and of retrained models. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Ideal = Literal["retrained", "lower", "higher"]
Interval = tuple[float, float]
Meaning = Literal["memory", "oblivion", "kept"]
"""What a higher number speaks of: memory of what was to be forgotten, the want of it, or knowledge of the rest."""
Miss = Literal["memory left", "over-forgotten", "damaged", "unlike retrained"]
ALPHA = 0.05
"""How often at most a retrained model may fall outside any band at all."""
JUDGED = 40
"""The most findings that count for a level in one result of the default audits."""
CONFIDENCE = 1 - ALPHA / JUDGED
"""Confidence of one band, so that all of them together have one of 1 - `ALPHA` (Bonferroni)."""
UNINFORMATIVE = "not informative here: the original is in the band too, so it cannot tell forgetting from doing nothing"

EDGE = 0.05
"""Share of a band's width within which of an end a number is at its edge."""
AT_THE_EDGE = "at the edge of the band: another seed or other rounding may judge otherwise"


@dataclass(frozen=True, kw_only=True)
class Series:
    """The numbers behind a number: a distribution or a curve, for each model."""

    x: tuple[str, ...]
    """What each value stands for: class names, layers, steps."""
    axis: str
    """What x is, for a person."""
    original: tuple[float, ...]
    unlearned: tuple[float, ...]
    retrained: tuple[tuple[float, ...], ...]
    """One row per retrained model."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One number of an audit, beside the same number of the original and of retrained models."""

    name: str
    """Audit and quantity, as in ``accuracy/forget_test``."""
    level: int | None
    """Level that it counts for, 0 to 4; None if it only informs."""
    original: float | None
    unlearned: float | None
    retrained: float | None
    """Mean over the retrained models. None means "not known", never a default number."""
    band: Interval | None
    """Where a model retrained with another seed falls; None with fewer than two retrained models."""
    inside: bool | None
    """Whether the unlearned model is inside the band."""
    better: Ideal
    """The ideal; mostly "like the retrained model"."""
    meaning: str
    """One plain sentence: what the number says."""
    note: str | None = None
    """Why a number is missing or must be read with care."""
    series: Series | None = None
    informative: bool | None = None
    """Whether the original is outside the band: else the number cannot tell forgetting from doing nothing."""
    miss: Miss | None = None
    """How the unlearned model misses the band; None unless it is outside."""
    interval: Interval | None = None
    """Where the unlearned model's number would be with other rows of the same kind, with a confidence of 0.95.

    Known where the number is a mean over rows or a ranking of them; the band, in contrast, is over retrained models.
    """


def finding(
    name: str,
    *,
    original: float | None,
    unlearned: float | None,
    retrained: Sequence[float | None],
    level: int | None,
    meaning: str,
    better: Ideal = "retrained",
    higher: Meaning | None = None,
    note: str | None = None,
    series: Series | None = None,
    paired: bool = False,
    limits: Interval = (-math.inf, math.inf),
    step: float = 0.0,
    interval: Interval | None = None,
) -> Finding:
    """Return a finding: the mean of the retrained models, their band, and whether the unlearned model is inside.

    Args:
        name: Audit and quantity.
        original: Number of the original.
        unlearned: Number of the unlearned model.
        retrained: Number of each retrained model.
        level: Level that it counts for, None if it only informs.
        meaning: One plain sentence.
        better: The ideal.
        higher: What a higher number speaks of; None if neither side of the band means more memory.
        note: Why a number is missing or must be read with care; missing references are noted here.
        series: The numbers behind it.
        paired: Whether a retrained model's number is measured against the other ones (see `Case.beside_retrained`).
        limits: The least and the most that the number can be.
        step: The least by which the number can change: ``1 / rows`` for a share of rows.
        interval: Where the unlearned model's number would be with other rows.
    """
    known = [value for value in retrained if value is not None]
    complete = len(known) == len(retrained)
    references = 3 if paired else 2
    band = None
    if complete and len(known) >= references:
        band = retrained_band(known, limits=limits, step=step, paired=paired)
    notes = [note] if note else []
    if not retrained:
        notes.append("no reference")
    elif level is not None and len(retrained) < references:
        notes.append(f"too few references for a band ({len(retrained)}): give at least {references} retrained models")
    if level is None:
        band = None
    informative = None if original is None or band is None else not band[0] <= original <= band[1]
    if informative is False:
        notes.append(UNINFORMATIVE)
    if at_edge(unlearned, band, limits):
        notes.append(AT_THE_EDGE)
    return Finding(
        name=name,
        level=level,
        original=original,
        unlearned=unlearned,
        retrained=float(np.mean(known)) if known and complete else None,
        band=band,
        inside=band[0] <= unlearned <= band[1] if band and unlearned is not None else None,
        better=better,
        meaning=meaning,
        note="; ".join(notes) or None,
        series=series,
        informative=informative,
        miss=missed(unlearned, band, higher),
        interval=interval if unlearned is not None else None,
    )


def at_edge(number: float | None, band: Interval | None, limits: Interval) -> bool:
    """Return whether a number is so near an end of a band that little decides on which side it is.

    An end at a limit is none: nothing is beyond it.
    """
    if number is None or band is None:
        return False
    near = EDGE * (band[1] - band[0])
    return any(abs(number - end) < near for end in band if end not in limits)


def missed(number: float | None, band: Interval | None, higher: Meaning | None) -> Miss | None:
    """Return how a number misses a band; None if it does not, or one of them is not known.

    Less memory than retrained models have is over-forgetting, also called the Streisand effect: it gives away that,
    and what, the model was made to forget.
    """
    if number is None or band is None or band[0] <= number <= band[1]:
        return None
    above = number > band[1]
    if higher in ("memory", "oblivion"):
        return "memory left" if above == (higher == "memory") else "over-forgotten"
    return "damaged" if higher == "kept" and not above else "unlike retrained"


def retrained_band(
    values: Sequence[float],
    confidence: float = CONFIDENCE,
    *,
    limits: Interval = (-math.inf, math.inf),
    step: float = 0.0,
    paired: bool = False,
) -> Interval | None:
    """Return where the number of one more retrained model falls, with the given confidence.

    A level takes all its findings inside, and a retrained model must pass: the default confidence is corrected for as
    many findings as a result judges, and is the same for each, whichever other audits are run.

    The prediction interval of a normal sample, ``mean ± t(n - 1) s sqrt(1 + 1/n)``, stretched to one step beyond
    every value that was seen (models that agree to the row leave the next one a row), and cut off at the limits; see
    Geisser, "Predictive Inference", 1993. None with too few values to have a spread: two, or three if they are paired.

    Paired values, each the mean distance of a model to all others, share every distance with another value, and so lie
    closer together than those of models measured against them: where a distance is a sum of what each of the two models
    has, by (n - 2) / (n - 1), which is made good here.
    """
    if len(values) < (3 if paired else 2):
        return None
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    quantile = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    half = quantile * spread * math.sqrt(1 + 1 / len(values))
    if paired:
        half *= (len(values) - 1) / (len(values) - 2)
    lowest, highest = min(mean - half, min(values) - step), max(mean + half, max(values) + step)
    return max(lowest, limits[0]), min(highest, limits[1])
