"""Bootstrap: how far a number that is taken over rows might lie from here, had other rows been drawn. No torch."""

import numpy as np
from jaxtyping import Num
from scipy import stats

from expunge.finding import Interval

CONFIDENCE = 0.95
RESAMPLES = 1000
AFFORDABLE = 2000
"""The most rows, of both groups together, that a ranking is resampled of: beyond, it would take longer than audits."""
Values = Num[np.ndarray, "_"]
"""One number per row, of as many rows as there are."""


def mean_interval(values: Values, seed: int) -> Interval | None:
    """Return the interval of a mean over rows, with a confidence of `CONFIDENCE`.

    The percentile bootstrap of Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; but of a
    share, of which every row is 0 or 1, the exact interval of Clopper and Pearson, Biometrika 1934. A bootstrap of rows
    that are all 0 is 0 with certainty, where 37 such rows leave room for nearly 0.1.

    Args:
        values: One number per row; their order is of no matter.
        seed: Seed of the resampling; shares need none.

    Returns:
        Lowest and highest; None with fewer than two rows, or with equal ones that are no shares: they have no spread.
    """
    if len(values) < 2:
        return None
    if np.isin(values, (0, 1)).all():
        share = stats.binomtest(int(values.sum()), len(values)).proportion_ci(CONFIDENCE, method="exact")
        return float(share.low), float(share.high)
    if np.ptp(values) == 0:
        return None
    found = stats.bootstrap(
        (np.sort(values),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 1_000_000 // len(values)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def auc_interval(first: Values, second: Values, seed: int) -> Interval | None:
    """Return the interval of how well numbers rank two groups of rows apart, as max(a, 1 - a) of the area a.

    The percentile bootstrap of a, both groups resampled, then folded at 0.5: folded first, no resample could say that
    the groups are alike.

    Args:
        first: One number per row of one group; their order is of no matter.
        second: The same of the other group.
        seed: Seed of the resampling.

    Returns:
        Lowest and highest; None with fewer than two rows in a group or more than `AFFORDABLE` in both, or with groups
        that do not overlap, whose resamples do not either.
    """
    if min(len(first), len(second)) < 2 or len(first) + len(second) > AFFORDABLE:
        return None
    if max(first) < min(second) or max(second) < min(first):
        return None
    found = stats.bootstrap(
        (np.sort(first), np.sort(second)),
        area,
        n_resamples=RESAMPLES,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    folded = sorted((max(low, 1 - low), max(high, 1 - high)))
    return (0.5 if low <= 0.5 <= high else folded[0]), folded[1]


def area(
    first: Num[np.ndarray, "*resamples first"], second: Num[np.ndarray, "*resamples second"], axis: int = -1
) -> Num[np.ndarray, "*resamples"]:
    """Return the area under the ROC curve of telling `first`, which should be the higher, from `second`, by ranks."""
    count, others = first.shape[axis], second.shape[axis]
    ranks = stats.rankdata(np.concatenate([first, second], axis=axis), axis=axis)
    above = np.take(ranks, np.arange(count), axis=axis).sum(axis=axis) - count * (count + 1) / 2
    return np.asarray(above / (count * others))
