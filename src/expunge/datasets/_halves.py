"""Halves: training and test rows of a set that comes in one piece."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from sklearn.model_selection import train_test_split

from expunge.errors import DataError

Halves = tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]
HELD_OUT = 0.2
"""Share of the rows that is held out for testing."""


def hold_out(labels: Int64[np.ndarray, " rows"], names: Sequence[str], source: object) -> Halves:
    """Return the indices of training and of test rows in ascending order: one in five is held out, class by class.

    Args:
        labels: The class index of every row.
        names: Name of each class.
        source: Where the rows come from, for messages.

    Raises:
        DataError: There are not enough rows of a class.
    """
    known, counts = np.unique(labels, return_counts=True)
    for label in known[counts == 1].tolist():
        name = names[label] if 0 <= label < len(names) else str(label)
        raise DataError(
            f"expected at least 2 rows of each class, to hold one in five out for testing in {source}, "
            f"got class {name!r} with 1 row: add rows, or leave the class out"
        )
    try:
        train, test = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, random_state=0, stratify=labels)
    except ValueError as error:
        raise DataError(f"expected rows enough to hold one in five out for testing in {source}: {error}") from error
    return np.sort(train), np.sort(test)
