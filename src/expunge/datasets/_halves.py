"""Halves: training and test rows of a set that comes in one piece."""

import numpy as np
from jaxtyping import Int64
from sklearn.model_selection import train_test_split

from expunge.errors import DataError

Halves = tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]
HELD_OUT = 0.2
"""Share of the rows that is held out for testing."""


def hold_out(labels: Int64[np.ndarray, " rows"], source: object) -> Halves:
    """Return the indices of training and of test rows in ascending order: one in five is held out, class by class.

    Args:
        labels: The class index of every row.
        source: Where the rows come from, for messages.

    Raises:
        DataError: There are not enough rows of a class.
    """
    try:
        train, test = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, random_state=0, stratify=labels)
    except ValueError as error:
        raise DataError(f"expected rows enough to hold one in five out for testing in {source}: {error}") from error
    return np.sort(train), np.sort(test)
