"""Rehearsal: what work will take, from the first few steps of each of its stages, before any of it is done for good.

The work runs as it would, on real data, but each stage ends after a few steps. The first ones warm up and are set
aside; the mean of the others stands for all that are left. So any method can be rehearsed whose loops tell of their
steps, as they do for the sake of the progress display. Work outside stages runs in full and counts as it is.

What comes out of a rehearsal is of no use but for its cost, and what a method does only after a bad course, such as a
second try, is not in it. Memory is the peak of the process in the rehearsal: all batches of a stage have one size.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from expunge.cost import Cost, wait_for

SET_ASIDE = 3
"""First steps of a stage whose time stands for no other's: they take memory, choose kernels and count operations."""
FEWEST = 7
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
    """Expected beyond those that were counted, in this process."""
    spent: float = 0.0
    """Seconds that were spent in stages."""

    @contextmanager
    def stage(
        self,
        name: str,
        steps: int,
        rows: int | None,
        cost: Cost,
        device: torch.device,
        highest: Callable[[float], float],
    ) -> Iterator[Callable[[int], None]]:
        """Give the Advance of a stage that ends after a few steps.

        Args:
            name: Of the stage.
            steps: How many it has.
            rows: Rows of all its steps, of which each costs the same; None if each step costs the same.
            cost: Where its operations are counted.
            device: Where it runs.
            highest: Gives the highest of a number over all processes, which end the stage at the same step.
        """
        flops, counted, begun, times = cost.flops, cost.rows, time.perf_counter(), [0.0]

        def advance(done: int) -> None:
            for _ in range(done):
                wait_for(device)
                times.append(time.perf_counter() - begun)
            if FEWEST < len(times) <= steps and highest(times[-1]) >= ENOUGH:
                raise EnoughError

        try:
            yield advance
        except EnoughError:
            done = len(times) - 1
            each = (times[-1] - times[SET_ASIDE]) / (done - SET_ASIDE)
            self.seconds[name] = self.seconds.get(name, 0.0) + each * (steps - done)
            seen, all_of_it = (done, steps) if rows is None else (cost.rows - counted, rows)
            self.flops += (cost.flops - flops) * (all_of_it - seen) // seen
        wait_for(device)
        spent = time.perf_counter() - begun
        self.spent += spent
        self.steps[name] = self.steps.get(name, 0) + steps
        self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def forecast(self, seconds: float, flops: int, peak_memory_bytes: int) -> Forecast:
        """Return what is expected, given what the rehearsal took and the operations of all of the work."""
        other = seconds - self.spent
        return Forecast(
            steps=dict(self.steps),
            seconds=self.seconds | {"other": other, "total": other + sum(self.seconds.values())},
            flops=flops,
            peak_memory_bytes=peak_memory_bytes,
        )


def joined(*pieces: tuple[Forecast, int]) -> Forecast:
    """Return what pieces of work take one after the other, each done so many times."""
    steps: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for forecast, times in pieces:
        for name, count in forecast.steps.items():
            steps[name] = steps.get(name, 0) + times * count
        for name, spent in forecast.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + times * spent
    return Forecast(
        steps={name: count for name, count in steps.items() if count},
        seconds=seconds,
        flops=sum(times * forecast.flops for forecast, times in pieces),
        peak_memory_bytes=max(forecast.peak_memory_bytes for forecast, _ in pieces),
    )
