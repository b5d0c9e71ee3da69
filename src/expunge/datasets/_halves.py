"""Halves: training and test rows of a set that comes in one piece."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from jaxtyping import Int64

from expunge.errors import DataError

Halves = tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]
HELD_OUT = 0.2
"""Share of the rows that is held out for testing."""


def hold_out(labels: Int64[np.ndarray, " rows"], source: object, names: Sequence[str] | None = None) -> Halves:
    """Return the indices of training and of test rows in ascending order: one in five is held out, class by class.

    What is held out of a class hangs on its own rows alone: when another class has gone from the source, a row that was
    for testing stays so. By their names that holds when single rows go, too, but for one row of their class at most.

    Args:
        labels: The class index of every row.
        source: Where the rows come from, for messages.
        names: What each row is called, if it has a name that stays.

    Raises:
        DataError: There are not enough rows of a class.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) == 1:
            raise DataError(
                f"expected two rows of every class or more, so as to hold one in five out for testing, in {source}, "
                f"got one of class {label}" + (f" ({names[int(rows[0])]})" if names else "")
            )
        order = np.random.default_rng(0).permutation(len(rows))
        if names:
            hashes = [sha256(names[row].encode()).hexdigest() for row in rows.tolist()]
            order = np.argsort(np.array(hashes))
        held_out[rows[order[: max(1, round(HELD_OUT * len(rows)))]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
