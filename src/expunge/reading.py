"""Reading: batches of rows in their order, read when asked for, or ahead of their turn by worker processes.

Workers are those of PyTorch's DataLoader. They change neither the order nor any random stream, so results are the same
with any number of them, as long as a row is a function of its index alone.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from expunge.errors import DataError, ExpungeError
from expunge.rows import Rows

Chunk = Int64[np.ndarray, "_"]
"""Indices of the rows of a batch."""
Batch = tuple[Shaped[Tensor, "_ ..."], Int64[Tensor, "_"]]
AHEAD = 1
"""Batches that each worker has ready: more would take memory and save no time."""


def read(rows: Rows, chunks: Iterable[Chunk], workers: int, generator: torch.Generator) -> Iterator[Batch]:
    """Yield the inputs and labels of chunks of rows, one after the other.

    Args:
        rows: What to read.
        chunks: The indices of each batch; they may be made as they are asked for.
        workers: Processes that read ahead; 0 or fewer read here, when a batch is asked for.
        generator: Seeds the workers, for inputs that draw random numbers of their own.

    Raises:
        DataError: A worker was lost, as when memory is short.
        ExpungeError: What the rows raised.
    """
    if workers <= 0:
        for chunk in chunks:
            yield rows.batch(chunk)
        return
    loader = DataLoader(
        _Chunks(rows),
        batch_size=None,
        sampler=chunks,
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        generator=generator,
    )
    try:
        for batch in loader:
            if isinstance(batch, ExpungeError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(f"expected {workers} workers to read rows, got: {error}: give fewer --workers") from error


class _Chunks(Dataset[Batch | ExpungeError]):
    """Rows that are indexed by chunks; an error to be told is handed on, not wrapped in a worker's traceback."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __getitem__(self, chunk: Chunk) -> Batch | ExpungeError:
        try:
            return self._rows.batch(chunk)
        except ExpungeError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch
