"""Paired: means over seeds with their confidence, and differences of two methods in the same worlds. No torch.

A world is one original with what it is to forget; the worlds of one seed share their original, or at least every random
stream, and are no independent draws. So the unit is the seed: numbers are averaged within a seed first, and all that is
said of chance comes from the seeds' means, however many classes there are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
LEAST_FOR_TEST = 6
"""Seeds that a signed-rank test takes: of five, even the clearest result has a p-value above 0.05."""
ROUNDING = 1e-12
"""Differences no greater than this are none."""


@dataclass(frozen=True, kw_only=True)
class World:
    """One original with what it is to forget, in which methods can be compared."""

    name: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over worlds, and where it would be with other seeds."""

    mean: float | None
    """Mean over seeds of the mean within each seed; None if nothing is known."""
    low: float | None
    """Lower end of the interval over seeds; None with one seed, or if all seeds give the same."""
    high: float | None
    seeds: int
    values: dict[str, float]
    """By world."""

    @property
    def apart(self) -> bool:
        """Whether the interval is known and excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def estimate(values: Mapping[World, float], limits: tuple[float, float] = (-math.inf, math.inf)) -> Estimate:
    """Return the mean over worlds with its t interval over seeds, of a confidence of `CONFIDENCE`, cut at the limits.

    Seeds that all give the same have no spread to tell their chance from, and so no interval: three equal numbers do
    not say that the fourth is equal too.
    """
    means = seed_means(values)
    interval: tuple[float, float] | None = None
    if len(means) > 1 and np.ptp(means) > ROUNDING:
        error = float(np.std(means, ddof=1)) / len(means) ** 0.5
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1)) * error
        middle = float(np.mean(means))
        interval = (max(middle - half, limits[0]), min(middle + half, limits[1]))
    return Estimate(
        mean=float(np.mean(means)) if means else None,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        seeds=len(means),
        values={world.name: value for world, value in values.items()},
    )


def seed_means(values: Mapping[World, float]) -> list[float]:
    """Return the mean within each seed, in the order of the seeds."""
    seeds = sorted({world.seed for world in values})
    return [float(np.mean([value for world, value in values.items() if world.seed == seed])) for seed in seeds]


def differences(first: Mapping[World, float], second: Mapping[World, float]) -> dict[World, float]:
    """Return first less second in every world that both have."""
    return {world: value - second[world] for world, value in first.items() if world in second}


def signed_rank(values: Mapping[World, float]) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test that differences of seeds lie around 0.

    Wilcoxon, Biometrics Bulletin 1945, zeros dropped; exact. None with fewer than `LEAST_FOR_TEST` seeds; 1 if there
    is no difference at all.
    """
    means = [0.0 if abs(mean) <= ROUNDING else mean for mean in seed_means(values)]
    if len(means) < LEAST_FOR_TEST:
        return None
    changed = [mean for mean in means if mean]
    if not changed:
        return 1.0
    return float(stats.wilcoxon(changed, method="exact" if _distinct(changed) else "approx").pvalue)


def _distinct(values: Sequence[float]) -> bool:
    return len({round(abs(value), 12) for value in values}) == len(values)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number, as in Holm, Scandinavian Journal of Statistics 1979; None stays."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - place)))
        corrected[index] = highest
    return corrected
