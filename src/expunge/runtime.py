"""Runtime: device, precision, processes, random streams, progress and cost; the only place that knows any of them."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise, tee
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from lightning_fabric import Fabric
from torch import Tensor, nn

from expunge.cost import Cost
from expunge.errors import SettingsError
from expunge.reading import read
from expunge.rows import Indices, Rows

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Advance = Callable[[int], None]
"""Tells a progress display that so many more steps are done."""
Progress = Callable[[str, int], Any]
"""``progress(stage, steps)`` returns a context manager that gives an Advance."""


@contextmanager
def silent(stage: str, steps: int) -> Iterator[Advance]:
    """Show no progress."""
    yield lambda done: None


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how the work runs.

    Randomness comes from named streams alone: a stream is a function of the seed and its name, so two runs with
    one seed draw the same numbers whatever else they do, and on CPU end bit-equal.
    """

    fabric: Fabric
    precision: Precision = "32-true"
    """As the fabric was opened with."""
    seed: int = 0
    progress: Progress = silent
    cost: Cost = field(default_factory=Cost)
    workers: int = 0
    """Processes that read rows ahead of their turn; 0 reads each batch when it is its turn."""
    images: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    """Inputs that a method made and leaves for the report, by what they are and the class they stand for."""

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
    def seeded(self, stream: str) -> Iterator[None]:
        """Let code that draws from torch's global generators (initialisation, dropout) draw from a stream."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.generator(stream).initial_seed() % 2**63)
            yield

    def batches(
        self, rows: Rows, size: int, *, epochs: int = 1, stream: str | None = None
    ) -> Iterator[tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"], float]]:
        """Yield this process's share of every batch, on the device, with its weight.

        Order and batches are those of one process: the processes share each batch. A last batch of a single row
        joins the one before, since batch normalisation cannot train on it.

        Args:
            rows: What to go through.
            size: Rows per batch, over all processes.
            epochs: How often to go through them.
            stream: Random stream of the order, a new one each epoch; None keeps the order of the rows.

        Yields:
            Inputs, labels, and the factor by which the mean loss over this share counts, so that the average over
            processes is the mean over the batch.
        """
        schedule, weights = tee(self._schedule(len(rows), size, epochs, stream))
        chunks = (share for share, _ in schedule)
        batches = read(rows, chunks, self.workers, self.generator(f"{stream}/workers"))
        for (inputs, labels), (_, weight) in zip(batches, weights, strict=True):
            yield inputs.to(self.device), labels.to(self.device), weight

    def _schedule(self, rows: int, size: int, epochs: int, stream: str | None) -> Iterator[tuple[Indices, float]]:
        """Yield the indices of this process's share of every batch with its weight, an epoch's when it is its turn."""
        generator = None if stream is None else self.generator(stream)
        world = self.fabric.world_size
        for _ in range(epochs):
            order = np.arange(rows) if generator is None else torch.randperm(rows, generator=generator).numpy()
            for start, end in pairwise([*batch_starts(rows, size), rows]):
                share = self._share(order[start:end])
                yield share, len(share) * world / (end - start)

    def shares(self, rows: int, size: int) -> list[Indices]:
        """Return the indices of this process's share of every batch, for rows in order."""
        return [self._share(chunk) for chunk in np.array_split(np.arange(rows), batch_starts(rows, size)[1:])]

    def _share(self, chunk: Indices) -> Int64[np.ndarray, " share"]:
        return chunk[self.fabric.global_rank :: self.fabric.world_size]

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Callable[[Tensor], Tensor], Any]:
        """Return the model and optimiser made ready to train here. The weights stay those of `model`."""
        network, stepper = self.fabric.setup(model, optimizer)
        return (self.place(model), optimizer) if self._alone else (network, stepper)

    @property
    def _alone(self) -> bool:
        """Whether one process trains without a scale of the loss: Fabric's wrappers would only cost time then."""
        return self.fabric.world_size == 1 and self.precision != "16-mixed"

    def place(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the model made ready to be called here, in the chosen precision, without an optimiser.

        Outputs come in the precision of the weights, so that a loss is not computed in half precision.
        """
        model.to(self.device)
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
        rank, world = self.fabric.global_rank, self.fabric.world_size
        if world == 1:
            return values
        chunks = np.array_split(np.arange(rows), batch_starts(rows, size)[1:])
        owners = [np.concatenate([chunk[process::world] for chunk in chunks]) for process in range(world)]
        padded = values.new_zeros((max(map(len, owners)), *values.shape[1:]))
        padded[: len(owners[rank])] = values
        gathered = self.fabric.all_gather(padded)
        result = values.new_empty((rows, *values.shape[1:]))
        for process, owned in enumerate(owners):
            result[torch.from_numpy(owned)] = gathered[process][: len(owned)]
        return result

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

    @contextmanager
    def stage(self, name: str, steps: int) -> Iterator[Advance]:
        """Time a stage and show its progress."""
        with self.progress(name, steps) as advance, self.cost.stage(name, self.device):
            yield advance


def open_runtime(
    *, device: str = "auto", precision: str = "32-true", seed: int = 0, progress: Progress = silent, workers: int = 0
) -> Runtime:
    """Return the runtime of this process.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        precision: As Lightning Fabric names it.
        seed: Seed of all random streams.
        progress: How to show progress.
        workers: Processes that read rows ahead of their turn; they change no result.

    Raises:
        SettingsError: The device is unknown or not there, the precision is unknown, or workers are fewer than none.
    """
    if workers < 0:
        raise SettingsError(f"expected workers >= 0, got {workers}")
    if precision not in PRECISIONS:
        raise SettingsError(f"expected a precision {', '.join(PRECISIONS)}, got {precision!r}")
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise SettingsError(f"expected a device auto, cpu, cuda or cuda:N, got {device!r}")
    available = torch.cuda.device_count()
    if kind == "cuda" and int(number or 0) >= available:
        raise SettingsError(f"expected a CUDA device for {device!r}, got {available} on this machine: use --device cpu")
    if kind == "auto":
        kind = "cuda" if available else "cpu"
    if not available:
        # a PyTorch built for CUDA looks for a driver at every step of Adam unless it is told that there is no GPU
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    fabric = Fabric(accelerator=kind, devices=[int(number or 0)] if kind == "cuda" else 1, precision=precision)
    return Runtime(fabric=fabric, precision=precision, seed=seed, progress=progress, workers=workers)


def batch_starts(rows: int, size: int) -> list[int]:
    """Return the first index of every batch; a last batch of one row is joined to the one before."""
    starts = list(range(0, rows, size))
    return starts[:-1] if len(starts) > 1 and rows - starts[-1] == 1 else starts


def count_batches(rows: int, size: int, epochs: int = 1) -> int:
    """Return the number of steps that `Runtime.batches` gives."""
    return math.prod((len(batch_starts(rows, size)), epochs))
