"""Access: the guard between a method and the data, which hands out what was declared and counts every row read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from expunge.data import PARTS, Part, Split
from expunge.errors import AccessError, RequestError
from expunge.rows import Indices, Rows


@dataclass(frozen=True)
class Count:
    """How much of a part a method has read."""

    rows: int
    """Distinct rows read."""
    reads: int
    """Reads in all: a row read in three epochs counts three times."""


class CountedRows:
    """Rows that count every read. Labels are free: they are what a request names."""

    def __init__(self, rows: Rows, workers: int = 0) -> None:
        self.rows = rows
        # worker processes read too; each has a counter of its own, and all mark what they have seen in shared memory
        self._reads = torch.zeros(1 + workers, dtype=torch.int64)
        self.seen = torch.zeros(len(rows), dtype=torch.bool)
        if workers:
            self._reads.share_memory_()  # type: ignore[no-untyped-call]
            self.seen.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def reads(self) -> int:
        """Rows read so far, each as often as it was."""
        return int(self._reads.sum())

    def add(self, reads: int, seen: Bool[Tensor, " rows"]) -> None:
        """Count what was read elsewhere."""
        self._reads[0] += reads
        self.seen |= seen

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        return self.rows.labels

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for, and count them."""
        worker = get_worker_info()
        self._reads[0 if worker is None else 1 + worker.id] += len(indices)
        self.seen[torch.from_numpy(indices)] = True
        return self.rows.batch(indices)


class Access:
    """The guard: what a method sees of a Split.

    It holds the declared parts alone, so no path leads from it to any other, and counts every row read.

    Args:
        parts: All parts of the data.
        reads: The parts that the method declares.
        build: Makes a fresh network of the model's architecture, with new random weights.
        workers: Processes that may read ahead for the method. What they have read counts, used or not.
        statistics: What the method of an earlier request has `kept` with the model: sums over rows, by its own names.
    """

    def __init__(
        self,
        parts: Split,
        reads: Iterable[Part],
        build: Callable[[], nn.Module],
        *,
        workers: int = 0,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.request = parts.request
        self.earlier_classes = tuple(sorted({int(index) for one in parts.earlier for index in one.classes}))
        self.num_classes = len(parts.label_names)
        self.input_size = parts.input_size
        self.build = build
        self.statistics: Mapping[str, Tensor] = statistics or {}
        self.kept: dict[str, Tensor] = {}
        """What a method leaves for the next request of the new model, in the place of its rows."""
        # in one order: a set has another in every process, and processes add up their counts in turn
        self.counted = {part: CountedRows(parts[part], workers) for part in sorted(reads)}

    def __getitem__(self, part: Part) -> Rows:
        """Return the rows of a declared part.

        Raises:
            AccessError: The method did not declare this part.
        """
        if part not in self.counted:
            raise AccessError(f"expected a part among {sorted(self.counted)} that the method declares, got {part!r}")
        return self.counted[part]

    def classes(self) -> tuple[int, ...]:
        """Return the classes to forget.

        Raises:
            RequestError: The request is of single rows.
        """
        if self.request.rows:
            raise RequestError(
                f"expected a request of whole classes, got {len(self.request.rows)} single rows: "
                "choose a method that can forget rows, such as 'retrain'"
            )
        return tuple(int(index) for index in self.request.classes)

    def kept_classes(self) -> tuple[int, ...]:
        """Return the classes that are neither to be forgotten nor were forgotten by an earlier request."""
        gone = {*self.request.classes, *self.earlier_classes}
        return tuple(index for index in range(self.num_classes) if index not in gone)

    def counts(self) -> dict[Part, Count]:
        """Return how much was read of every part; a part that was never handed out has zeros."""
        nothing = dict.fromkeys(PARTS, Count(0, 0))
        return nothing | {part: Count(int(rows.seen.sum()), rows.reads) for part, rows in self.counted.items()}
