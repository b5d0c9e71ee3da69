"""Rehearsal: what work will take, from the first few steps of each of its stages, before any of it is done for good.

The work runs as it would, on real data, but each stage ends after a few steps. The first step of a stage warms up and
is set aside; the mean of the others stands for all that are left. So any method can be rehearsed whose loops tell of
their steps, as they do for the sake of the progress display. Work outside stages runs in full and counts as it is.

What comes out of a rehearsal is of no use but for its cost, and what a method does only after a good course, such as a
second try, is not in it. Memory is the peak of the process in the rehearsal: all batches of a stage have one size.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from expunge.cost import Cost, peak_memory_bytes, wait_for

FEWEST = 4
"""Steps of a stage that are run at least."""
ENOUGH = 1.0
"""Seconds after which no further step of a stage is run."""


class EnoughError(Exception):
    """A stage has run long enough; it never leaves `Rehearsal.stage`."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What work is expected to take."""

    steps: dict[str, int]
    """By stage."""
    seconds: dict[str, float]
    """By stage, with ``other`` for what is in none, and ``total``."""
    flops: int
    """Floating-point operations."""
    peak_memory_bytes: int
    """The most memory in use by the process (on a GPU: on it)."""


@dataclass
class Rehearsal:
    """Measures the first steps of every stage and works out the rest."""

    steps: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Expected, by stage."""
    flops: int = 0
    """Expected beyond those that were counted."""
    spent: float = 0.0
    """Seconds that were spent in stages."""

    @contextmanager
    def stage(self, name: str, steps: int, cost: Cost, device: torch.device) -> Iterator[Callable[[int], None]]:
        """Give the Advance of a stage that ends after a few steps."""
        flops, begun, times, done = cost.flops, time.perf_counter(), [0.0], 0

        def advance(more: int) -> None:
            nonlocal done
            if more:
                wait_for(device)
                done += more
                times.append(time.perf_counter() - begun)
            if FEWEST <= done < steps and times[-1] >= ENOUGH:
                raise EnoughError

        try:
            yield advance
        except EnoughError:
            left = steps - done
            self.flops += (cost.flops - flops) * left // done
            self.seconds[name] = self.seconds.get(name, 0.0) + (times[-1] - times[1]) / (done - 1) * left
        wait_for(device)
        spent = time.perf_counter() - begun
        self.spent += spent
        self.steps[name] = self.steps.get(name, 0) + steps
        self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def forecast(self, seconds: float, cost: Cost, device: torch.device) -> Forecast:
        """Return what is expected, given the seconds that the rehearsal took and what it counted."""
        other = seconds - self.spent
        return Forecast(
            steps=dict(self.steps),
            seconds=self.seconds | {"other": other, "total": other + sum(self.seconds.values())},
            flops=cost.flops + self.flops,
            peak_memory_bytes=peak_memory_bytes(device),
        )
