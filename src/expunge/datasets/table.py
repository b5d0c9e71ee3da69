"""table: rows of a CSV or parquet file, for networks of flat inputs such as `mlp`.

1. The label column is named; its sorted values are the classes.
2. Columns of numbers are standardised by mean and deviation of the training rows.
3. All other columns are categories, one output for each value in the training rows; a value that only test rows have
   is all zeros.
4. A missing value is refused, with its row and column.

Test rows are those of `test`, or else one row in five, held out class by class. Read by pandas, standardised as
by scikit-learn: https://scikit-learn.org/stable/modules/preprocessing.html. Means, deviations and categories are those
of all rows that the model was trained on, and its folder tells them: later rows become inputs in the same way, whatever
has been deleted from the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int64

from expunge.data import Data
from expunge.datasets._columns import SMALLER, Columns
from expunge.datasets._halves import hold_out
from expunge.errors import DataError, did_you_mean, expecting
from expunge.memory import check_fits
from expunge.rows import TensorRows
from expunge.settings import settings

if TYPE_CHECKING:
    from pandas import DataFrame

COPIES = 3
"""A file's bytes are in memory about so often while it is read: as text or pages, and as columns."""


@settings
class Table:
    """Rows of a table, one column of which is the label."""

    path: str = ""
    """A CSV or parquet file; CSV has the names of columns in its first line."""
    test: str = ""
    """A file of test rows; without it one row in five of `path` is held out."""
    label: str = ""
    """Column of labels."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    categories: tuple[str, ...] = ()
    """Columns of numbers that stand for categories."""

    def load(self) -> Data:
        """Return the rows, in their order.

        Raises:
            DataError: A file or column is missing, a value is missing, columns of both files differ, or the rows do
                not fit into memory.
        """
        return self._load(None)

    def load_as(self, encoding: Mapping[str, Any]) -> Data:
        """Return the rows, in their order, made into inputs as those were that a model was trained on.

        Args:
            encoding: What the model's folder tells of it.

        Raises:
            DataError: As `load`, or a training row has a value that is none of the model's categories.
            ModelError: The folder tells no columns.
        """
        return self._load(Columns.read(encoding))

    def _load(self, columns: Columns | None) -> Data:
        whole = _read(self.path, "path")
        other = _read(self.test, "test") if self.test else None
        for name, table in ((self.path, whole), (self.test, other)):
            if table is not None:
                self._check(table, name, columns)
        with expecting(f"expected labels that can be sorted in {self.path}, column {self.label!r}", DataError):
            classes, labels = np.unique(whole[self.label].to_numpy(), return_inverse=True)
        labels = labels.astype(np.int64)
        if other is None:
            trained, tested = hold_out(labels, [str(value) for value in classes], self.path)
            train, test = whole.iloc[trained], whole.iloc[tested]
            halves = labels[trained], labels[tested]
        else:
            train, test = whole, other
            halves = labels, self._known(other, classes)
        if columns is None:
            columns = Columns.of(train[self._used(whole)], self.categories, self.path)
        absent = [name for name in columns.names if name not in test.columns]
        if absent:
            raise DataError(f"expected the columns of {self.path} in {self.test}, got none of {absent}")
        inputs = (
            columns.inputs(train, self.path, unknown=False),
            columns.inputs(test, self.test or self.path, unknown=True),
        )
        first, second = (
            TensorRows(torch.from_numpy(made), torch.from_numpy(own)) for made, own in zip(inputs, halves, strict=True)
        )
        return Data(
            train=first,
            test=second,
            label_names=tuple(str(value) for value in classes),
            input_size=(columns.width,),
            encoding=columns.told(),
        )

    def _used(self, table: "DataFrame") -> list[str]:
        """Return the columns that become inputs of a network that is to be trained."""
        used = [name for name in table.columns if name not in (self.label, *self.ignore)]
        if not used:
            raise DataError(f"expected columns beside the label in {self.path}, got none")
        return used

    def _check(self, table: "DataFrame", name: str, known: Columns | None) -> None:
        """Refuse a table without the columns that are named or known, or with no value or a list in one of them."""
        from pandas.api.types import is_hashable

        named = {"label": (self.label,), "ignore": self.ignore, "categories": self.categories}
        for setting, columns in named.items():
            for column in columns:
                if column not in table.columns:
                    near = did_you_mean(column, table.columns)
                    raise DataError(f"expected a column of {name}, got {column!r}{near}: give dataset.{setting}")
        used = table.drop(columns=list(self.ignore))
        if known is not None:
            others = {*self.ignore} & {*known.names} | {*self.categories} & {*known.numbers}
            got = f"dataset.ignore or categories of {sorted(others)}: leave them away" if others else None
            absent = [column for column in known.names if column not in table.columns]
            if got or absent:
                got = got or f"none of {absent} in {name}"
                raise DataError(f"expected the columns that the model was trained on, got {got}")
            used = table[[self.label, *known.names]]
        for column in (name for name, kind in used.dtypes.items() if kind.kind == "O"):
            lists = [row for row, value in enumerate(used[column]) if not is_hashable(value)]
            if lists:
                kind = type(used[column].iloc[lists[0]]).__name__
                raise DataError(
                    f"expected a number or a word in every row of {name}, got a {kind} in row {lists[0]}, "
                    f"column {column!r}: give dataset.ignore"
                )
        missing = used.isna() | used.isin([np.inf, -np.inf])
        if missing.any(axis=None):
            column = missing.any().idxmax()
            raise DataError(
                f"expected a value in every row of {name}, got none or infinity in row {missing[column].argmax()}, "
                f"column {column!r}: fill it in, drop the row, or ignore the column"
            )

    def _known(self, table: "DataFrame", classes: Any) -> Int64[np.ndarray, " rows"]:
        """Return the class indices of test rows."""
        values = table[self.label].to_numpy()
        strange = ~np.isin(values, classes)
        if strange.any():
            raise DataError(f"expected the labels of {self.path} in {self.test}, got {values[strange][0]!r}")
        known: Int64[np.ndarray, " rows"] = np.searchsorted(classes, values).astype(np.int64)
        return known


def _read(path: str, setting: str) -> "DataFrame":
    """Return a file as a table.

    Raises:
        DataError: It is missing, no table, has no rows, or does not fit into memory.
    """
    import pandas  # a quarter of a second that only this data set needs

    file = Path(path).expanduser()
    if not path or not file.is_file():
        raise DataError(f"expected a CSV or parquet file, got {path!r}: give dataset.{setting}")
    with expecting(f"expected a CSV or parquet file at {path!r}", DataError):
        if file.suffix == ".parquet":
            from pyarrow.parquet import read_metadata

            found = read_metadata(file)
            size = sum(found.row_group(number).total_byte_size for number in range(found.num_row_groups))
            check_fits(COPIES * size, f"the table {path}", SMALLER)
            table = pandas.read_parquet(file)
        else:
            check_fits(COPIES * file.stat().st_size, f"the table {path}", SMALLER)
            table = pandas.read_csv(file)
    if table.empty:
        raise DataError(f"expected rows in {path}, got none")
    return table.rename(columns=str).reset_index(drop=True)
