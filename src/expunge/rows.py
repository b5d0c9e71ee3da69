"""Rows: inputs and labels, row by row, in memory, decoded on demand or made on the fly."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, Integer, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from expunge.errors import DataError

Indices = Int64[np.ndarray, " rows"]


def compact(numbers: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " n"]:
    """Return whole numbers in the smallest type that holds them: indices take half the memory, labels an eighth."""
    ends = (numbers.min(initial=0), numbers.max(initial=0))
    return numbers.astype(np.result_type(*(np.min_scalar_type(end) for end in ends)))


@runtime_checkable
class Rows(Protocol):
    """A finite set of labelled inputs. Nothing in it needs to be in memory before `batch` asks for it."""

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""

    def __len__(self) -> int:
        """Number of rows."""

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""


def names_of(rows: Rows) -> Sequence[str] | None:
    """Return what rows are called, such as their files, each by another name; None if they have no names."""
    return getattr(rows, "names", None)


class TensorRows:
    """Rows held in memory as one tensor."""

    def __init__(self, inputs: Shaped[Tensor, "rows ..."], labels: Int64[Tensor, " labels"]) -> None:
        if len(inputs) != len(labels):
            raise DataError(f"expected as many labels as inputs, got {len(labels)} for {len(inputs)}")
        self._inputs = inputs
        self._labels = labels

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        labels: Int64[np.ndarray, " rows"] = self._labels.numpy()
        return labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""
        chosen = torch.from_numpy(indices)
        return self._inputs[chosen], self._labels[chosen]


class DatasetRows:
    """Rows of any map-style ``torch.utils.data.Dataset`` of ``(input, label)`` pairs, decoded when asked for.

    Args:
        dataset: Indexed by row; transforms are the data set's own.
        labels: The class index of every row, so that rows can be chosen without decoding a single one.
    """

    def __init__(self, dataset: Dataset[Any], labels: Int64[np.ndarray, " rows"]) -> None:
        if not isinstance(dataset, Sized) or len(dataset) != len(labels):
            raise DataError(f"expected a data set with a length, of {len(labels)} rows like its labels")
        self._dataset = dataset
        self._labels = labels

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""
        found = [_pair(self._dataset, int(index))[0] for index in indices]
        try:
            inputs = default_collate(found)
        except (RuntimeError, TypeError) as error:
            raise DataError(f"expected inputs that make one tensor, got: {error}: add a transform") from error
        if not isinstance(inputs, Tensor):
            raise DataError(f"expected inputs that are tensors, got {type(inputs).__name__}: add a transform")
        return inputs, torch.from_numpy(self._labels[indices])


class TakenRows:
    """A choice of rows of another set: a view, no copy."""

    def __init__(self, rows: Rows, indices: Indices) -> None:
        self._rows = rows
        self._indices = compact(indices)
        self._labels = compact(rows.labels[indices])

    @property
    def names(self) -> Sequence[str] | None:
        """See `names_of`."""
        names = names_of(self._rows)
        return None if names is None else [names[index] for index in self._indices]

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        return self._labels.astype(np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""
        return self._rows.batch(self._indices[indices].astype(np.int64))


class RelabelledRows:
    """The inputs of another set under other labels: a view, no copy."""

    def __init__(self, rows: Rows, labels: Int64[np.ndarray, " labels"]) -> None:
        if len(rows) != len(labels):
            raise DataError(f"expected as many labels as rows, got {len(labels)} for {len(rows)}")
        self._rows = rows
        self._labels = labels

    @property
    def names(self) -> Sequence[str] | None:
        """See `names_of`."""
        return names_of(self._rows)

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""
        inputs, _ = self._rows.batch(indices)
        return inputs, torch.from_numpy(self._labels[indices])


class JoinedRows:
    """Two sets of rows, one after the other. Inputs must have one shape."""

    def __init__(self, first: Rows, second: Rows) -> None:
        self._first = first
        self._second = second
        self._labels = np.concatenate([first.labels, second.labels])

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""
        in_first = indices < len(self._first)
        if in_first.all():
            return self._first.batch(indices)
        second, _ = self._second.batch(indices[~in_first] - len(self._first))
        inputs = second.new_empty((len(indices), *second.shape[1:]))
        inputs[torch.from_numpy(~in_first)] = second
        if in_first.any():
            first, _ = self._first.batch(indices[in_first])
            inputs[torch.from_numpy(in_first)] = first.to(second.dtype)
        return inputs, torch.from_numpy(self._labels[indices])


def as_rows(data: Rows | Dataset[Any] | DataLoader[Any], labels: Iterable[int] | None = None) -> Rows:
    """Return any map-style data as Rows.

    Args:
        data: Rows, a ``Dataset`` of ``(input, label)`` pairs, or a ``DataLoader`` over one. Of a loader only the
            data set counts: batches and order are the method's.
        labels: Class index of every row. Without it they come from the ``targets`` that torchvision's data sets
            have, else from reading every row once.

    Raises:
        DataError: The data cannot be indexed, a row is no pair, or a label is no whole number.
    """
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, Rows):
        return data
    if isinstance(data, IterableDataset) or not isinstance(data, Sized):
        raise DataError("expected a map-style data set (with a length and an index), got an iterable one")
    if labels is None:
        labels = getattr(data, "targets", None)
    if labels is None:
        labels = [_pair(data, index)[1] for index in range(len(data))]
    try:
        array = np.asarray([_whole(label) for label in labels], dtype=np.int64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise DataError(f"expected labels that are class indices, got {error}") from error
    return DatasetRows(data, array)


def _pair(data: Any, index: int) -> Sequence[Any]:
    """Return a row of a data set that others have made."""
    row = data[index]
    if not isinstance(row, tuple | list) or len(row) < 2:
        told = f"a dict of {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"a {type(row).__name__}"
        raise DataError(f"expected a data set of rows (input, label), got {told}: wrap it in one that returns the pair")
    return row


def _whole(label: Any) -> int:
    if isinstance(label, int):
        return label
    number = float(label)
    if not number.is_integer():
        raise ValueError(number)
    return int(number)
