"""What a piece of work costs: seconds by stage, floating-point operations, memory."""

import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

_NOTHING = nullcontext()


@dataclass
class Cost:
    """A running bill. Operations are counted by PyTorch's own counter, seconds by the wall clock."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, in the order in which the stages ran."""
    flops: int = 0
    """Floating-point operations of all counted steps (a multiplication with an addition counts as two)."""
    rows: int = 0
    """Rows of all counted steps."""
    events: list[str] = field(default_factory=list)
    """What went wrong in the work and was put right, a line each."""
    _measured: dict[object, tuple[int, int]] = field(default_factory=dict, repr=False)

    @contextmanager
    def stage(self, name: str, device: torch.device) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        wait_for(device)
        start = time.perf_counter()
        try:
            yield
        finally:
            wait_for(device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def step(self, kind: object, rows: int) -> AbstractContextManager[None]:
        """Count the operations done inside.

        Steps of one kind do the same operations on every row. The first is measured while it runs, the others are
        added by their number of rows, so that counting costs nothing but the first step's few milliseconds.
        """
        self.rows += rows
        if kind not in self._measured:
            return self._measure(kind, rows)
        flops, measured_rows = self._measured[kind]
        self.flops += flops * rows // measured_rows
        return _NOTHING

    @contextmanager
    def _measure(self, kind: object, rows: int) -> Iterator[None]:
        with FlopCounterMode(display=False) as counter:
            yield
        self._measured[kind] = int(counter.get_total_flops()), rows
        self.flops += self._measured[kind][0]

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory in use so far: of the GPU's allocator, or on CPU the whole process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "linux":
        # getrusage would give a process that another one started that one's peak too
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
