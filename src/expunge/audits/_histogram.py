"""Histogram: the shares of rows whose number lies between fixed edges, and what each place is called. No torch."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


def places(edges: Sequence[float]) -> tuple[str, ...]:
    """Return the names of the places between edges, ``0 to 0.1``; the last is open, ``over 10``."""
    ends = [f"{edge:.3g}" for edge in edges]
    return (*(f"{low} to {high}" for low, high in pairwise(ends)), f"over {ends[-1]}")


def shares(values: ArrayLike, edges: Sequence[float]) -> list[float]:
    """Return the share of the values in each of the `places`, 0 to 1.

    A value at an edge is in the place above it, and one below the first edge in the first.

    Args:
        values: At least one number.
        edges: Ascending.
    """
    found = np.searchsorted(np.asarray(edges, dtype=float), np.asarray(values, dtype=float), side="right") - 1
    counts = np.bincount(found.clip(min=0), minlength=len(edges))
    return [float(count) / int(counts.sum()) for count in counts]
