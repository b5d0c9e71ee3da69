"""Halves: training and test rows of a set that comes in one piece."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from jaxtyping import Int64

from expunge.errors import DataError

Halves = tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]
HELD_OUT = 0.2
"""Share of the rows that is held out for testing."""


def hold_out(
    labels: Int64[np.ndarray, " rows"], names: Sequence[str], source: object, called: Sequence[str] = ()
) -> Halves:
    """Return the indices of training and of test rows in ascending order: one in five is held out, class by class.

    What is held out of a class hangs on its own rows alone: when another class has gone from the source, a row that was
    for testing stays so. By what rows are called that holds when single ones go, too, but for one of their class.

    Args:
        labels: The class index of every row.
        names: Name of each class.
        source: Where the rows come from, for messages.
        called: What each row is called, if by something that stays, such as a file's name.

    Raises:
        DataError: There is one row of a class.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        if len(rows) == 1:
            name = names[label] if 0 <= label < len(names) else str(label)
            raise DataError(
                f"expected at least 2 rows of each class, to hold one in five out for testing in {source}, "
                f"got class {name!r} with 1 row: add rows, or leave the class out"
            )
        order = np.random.default_rng(0).permutation(len(rows))
        if called:
            hashes = [sha256(called[row].encode()).hexdigest() for row in rows.tolist()]
            order = np.argsort(np.array(hashes))
        held_out[rows[order[: max(1, round(HELD_OUT * len(rows)))]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
