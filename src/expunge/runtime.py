"""Runtime: device, precision, processes, random streams, progress and cost; the only place that knows any of them."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise, tee
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from lightning_fabric import Fabric
from torch import Tensor, nn

from expunge.access import CountedRows
from expunge.cost import Cost
from expunge.data import Part
from expunge.errors import SettingsError
from expunge.journal import Journal
from expunge.processes import BATCH_NORMS, BatchNorm, Precision, Trainee, open_fabric, share
from expunge.reading import read
from expunge.rehearsal import Rehearsal
from expunge.rows import Indices, Rows
from expunge.tracking import UNTRACKED, Tracking

Advance = Callable[[int], None]
"""Tells a progress display that so many more steps are done."""
Progress = Callable[[str, int], Any]
"""``progress(stage, steps)`` returns a context manager that gives an Advance."""


@contextmanager
def silent(stage: str, steps: int) -> Iterator[Advance]:
    """Show no progress."""
    yield lambda done: None


def unheard(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how the work runs.

    Randomness comes from named streams alone: a stream is a function of the seed and its name, so two runs with
    one seed draw the same numbers whatever else they do, and on CPU end bit-equal.
    """

    fabric: Fabric
    precision: Precision = "32-true"
    """As the fabric was opened with."""
    batch_norm: BatchNorm | None = None
    """What batch normalisation takes its statistics from while several processes train; None refuses to choose."""
    seed: int = 0
    progress: Progress = silent
    cost: Cost = field(default_factory=Cost)
    workers: int = 0
    """Processes that read rows ahead of their turn; 0 reads each batch when it is its turn."""
    images: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    """Inputs that a method made and leaves for the report, by what they are and the class they stand for."""
    journal: Journal | None = None
    """Where training keeps its progress; None keeps none."""
    counted: Mapping[Part, CountedRows] = field(default_factory=dict)
    """The rows that a method sees, whose reads belong to the progress of its training."""
    rehearsal: Rehearsal | None = None
    """Cuts every stage short and works out what it would take; None runs them in full."""
    tracking: Tracking = UNTRACKED
    """Sends losses and findings to experiment trackers."""
    tell: Callable[[str], None] = unheard
    """Says a line to the user while work runs."""

    @property
    def device(self) -> torch.device:
        """The device that models and batches live on."""
        return self.fabric.device

    def fresh(self, *, seed: int | None = None) -> "Runtime":
        """Return the same runtime with an empty bill and no images, and another seed if one is given."""
        return replace(self, cost=Cost(), images={}, seed=self.seed if seed is None else seed)

    def generator(self, stream: str) -> torch.Generator:
        """Return a CPU generator at the start of a named stream, such as ``"unsir/noise"``."""
        digest = hashlib.sha256(f"{self.seed}/{stream}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    @contextmanager
    def seeded(self, stream: str, *, apart: bool = False) -> Iterator[None]:
        """Let code that draws from torch's global generators (initialisation, dropout) draw from a stream.

        Args:
            stream: Its name.
            apart: Whether each process draws its own numbers, as for dropout in its own rows.
        """
        rank = self.fabric.global_rank
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.generator(f"{stream}/{rank}" if apart and rank else stream).initial_seed() % 2**63)
            yield

    def batches(
        self, rows: Rows, size: int, *, epochs: int = 1, stream: str | None = None, skip: int = 0
    ) -> Iterator[tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"], float]]:
        """Yield this process's share of every batch, on the device, with its weight.

        Order and batches are those of one process: the processes share each batch. A last batch of a single row
        joins the one before, since batch normalisation cannot train on it.

        Args:
            rows: What to go through.
            size: Rows per batch, over all processes.
            epochs: How often to go through them.
            stream: Random stream of the order, a new one each epoch; None keeps the order of the rows.
            skip: The first so many batches are left out, and none of their rows is read.

        Yields:
            Inputs, labels, and the factor by which the mean loss over this share counts, so that the average over
            processes is the mean over the batch.
        """
        schedule, weights = tee(self._schedule(len(rows), size, epochs, stream, skip))
        chunks = (share for share, _ in schedule)
        # starting a process costs more than a batch, and of a single one there is nothing to read ahead
        workers = min(self.workers, count_batches(len(rows), size, epochs) - 1)
        batches = read(rows, chunks, workers, self.generator(f"{stream}/workers"))
        for (inputs, labels), (_, weight) in zip(batches, weights, strict=True):
            yield inputs.to(self.device), labels.to(self.device), weight

    def _schedule(
        self, rows: int, size: int, epochs: int, stream: str | None, skip: int
    ) -> Iterator[tuple[Indices, float]]:
        """Yield the indices of this process's share of every batch with its weight, an epoch's when it is its turn."""
        generator = None if stream is None else self.generator(stream)
        world = self.fabric.world_size
        starts = [*batch_starts(rows, size), rows]
        for epoch in range(epochs):
            order = np.arange(rows) if generator is None else torch.randperm(rows, generator=generator).numpy()
            for start, end in pairwise(starts[max(0, skip - epoch * (len(starts) - 1)) :]):
                share = self._share(order[start:end])
                yield share, len(share) * world / (end - start)

    def shares(self, rows: int, size: int) -> list[Indices]:
        """Return the indices of this process's share of every batch, for rows in order."""
        return [self._share(chunk) for chunk in np.array_split(np.arange(rows), batch_starts(rows, size)[1:])]

    def _share(self, chunk: Indices) -> Int64[np.ndarray, " share"]:
        return chunk[self.fabric.global_rank :: self.fabric.world_size]

    def trainee(self, model: nn.Module) -> Trainee:
        """Return a model made ready to be trained here, by all processes together.

        Raises:
            ModelError: As `share`.
        """
        converted = self.fabric.strategy.precision.convert_module(model.to(self.device))
        if self.fabric.world_size == 1:
            return Trainee(model=model, call=self.place(converted))
        trained, prepared = share(converted, self.fabric, self.batch_norm)
        return Trainee(model=trained, call=self._caller(prepared))

    @property
    def _alone(self) -> bool:
        """Whether one process trains without a scale of the loss: Fabric's wrappers would only cost time then."""
        return self.fabric.world_size == 1 and self.precision != "16-mixed"

    def stepper(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return an optimiser made ready to step here."""
        return optimizer if self._alone else self.fabric.setup_optimizers(optimizer)

    def place(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the model made ready to be called here, in the chosen precision, without an optimiser.

        Outputs come in the precision of the weights, so that a loss is not computed in half precision.
        """
        return self._caller(model.to(self.device))

    def _caller(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        dtype = next(model.parameters()).dtype
        autocast = self.fabric.autocast if self.precision.endswith("mixed") else nullcontext

        def call(inputs: Tensor) -> Tensor:
            with autocast():
                outputs: Tensor = model(inputs.to(dtype))
            return outputs.to(dtype)

        return call

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass."""
        if self._alone:
            torch.autograd.backward(loss)
        else:
            self.fabric.backward(loss)

    def gather(self, values: Shaped[Tensor, "share ..."], rows: int, size: int) -> Shaped[Tensor, "rows ..."]:
        """Return the values of all processes in the order of the rows, each row once.

        Args:
            values: What this process computed for its shares of the batches, one after the other.
            rows: Number of rows in all.
            size: Batch size that the shares came from.
        """
        if self.fabric.world_size == 1:
            return values
        return self.assemble(values, np.concatenate(self.shares(rows, size)), rows)

    def assemble(
        self, values: Shaped[Tensor, "share ..."], places: Int64[np.ndarray, " share"], rows: int
    ) -> Shaped[Tensor, "rows ..."]:
        """Return the values of all processes, each put in its place, of so many rows that each have one value."""
        result = values.new_zeros((rows, *values.shape[1:]))
        result[torch.from_numpy(places)] = values
        if self.fabric.world_size > 1:
            summed = self.fabric.all_reduce(result, reduce_op="sum")
            assert isinstance(summed, Tensor)  # noqa: S101
            return summed
        return result

    def stoppable(self) -> AbstractContextManager[None]:
        """Let a request to stop wait until the work inside has kept its progress."""
        return nullcontext() if self.journal is None else self.journal.work()

    def total(self, value: float | int) -> float:
        """Return the sum of a number over all processes."""
        return self._over_processes(value, "sum")

    def highest(self, value: float | int) -> float:
        """Return the highest of a number over all processes."""
        return self._over_processes(value, "max")

    def union(self, flags: Bool[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
        """Return which of some flags are set in any process."""
        if self.fabric.world_size == 1:
            return flags
        reduced = self.fabric.all_reduce(flags.to(self.device, torch.uint8), reduce_op="max")
        assert isinstance(reduced, Tensor)  # noqa: S101
        return reduced.cpu().bool()

    def _over_processes(self, value: float | int, how: str) -> float:
        if self.fabric.world_size == 1:
            return float(value)
        reduced = self.fabric.all_reduce(torch.tensor(value, dtype=torch.float64, device=self.device), reduce_op=how)
        assert isinstance(reduced, Tensor)  # noqa: S101
        return reduced.item()

    @contextmanager
    def stage(self, name: str, steps: int, rows: int | None = None) -> Iterator[Advance]:
        """Time a stage and show its progress.

        Args:
            name: What to call it.
            steps: How many there are.
            rows: Rows of all steps together, over all processes; None if each has as many.
        """
        if self.rehearsal is not None:
            share = None if rows is None else rows // self.fabric.world_size
            with self.rehearsal.stage(name, steps, share, self.cost, self.device, self.highest) as rehearse:
                yield rehearse
            return
        with self.progress(name, steps) as advance, self.cost.stage(name, self.device):
            yield advance


def open_runtime(
    *,
    device: str = "auto",
    precision: str = "32-true",
    seed: int = 0,
    progress: Progress = silent,
    workers: int = 0,
    devices: int = 1,
    num_nodes: int = 1,
    strategy: str = "ddp",
    batch_norm: str | None = None,
) -> Runtime:
    """Return the runtime of this process, when all processes have joined.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        precision: As Lightning Fabric names it.
        seed: Seed of all random streams.
        progress: How to show progress.
        workers: Processes that read rows ahead of their turn; they change no result.
        devices: Processes on each machine.
        num_nodes: Machines.
        strategy: ``ddp`` or ``fsdp``; see `open_fabric`.
        batch_norm: ``local`` or ``sync``; see `share`.

    Raises:
        SettingsError: Something is unknown, not there, or does not go together.
    """
    if batch_norm is not None and batch_norm not in BATCH_NORMS:
        raise SettingsError(f"expected --batch-norm {' or '.join(BATCH_NORMS)}, got {batch_norm!r}")
    if workers < 0:
        raise SettingsError(f"expected workers >= 0, got {workers}")
    fabric = open_fabric(device=device, precision=precision, devices=devices, num_nodes=num_nodes, strategy=strategy)
    chosen: Any = {"precision": precision, "batch_norm": batch_norm}
    return Runtime(fabric=fabric, seed=seed, progress=progress, workers=workers, **chosen)


def batch_starts(rows: int, size: int) -> list[int]:
    """Return the first index of every batch; a last batch of one row is joined to the one before."""
    starts = list(range(0, rows, size))
    return starts[:-1] if len(starts) > 1 and rows - starts[-1] == 1 else starts


def count_batches(rows: int, size: int, epochs: int = 1) -> int:
    """Return the number of steps that `Runtime.batches` gives."""
    return math.prod((len(batch_starts(rows, size)), epochs))
