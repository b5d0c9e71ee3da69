"""Guarded: run a call and see that it is short, takes little memory, runs no code of a file and writes where it may."""

import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 5.0
"""Processor time that one input may take."""
PATIENCE = 60.0
"""Seconds by the clock, on a machine that others use too."""
MEMORY = 2**30
"""Bytes that an input, with what all before it have left, may take above the most that making the seeds took."""
WRITES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
}
RUNS = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "pickle.find_class"}


class Slow(BaseException):
    """An input took longer than it may; no handler of the product catches it."""


class BreachError(Exception):
    """Something happened that must not."""


class Guard:
    """Watches this process from its making on, but speaks of what happens in `watched` alone.

    Args:
        home: The only folder where anything may be written, but for what `outs` name.
    """

    def __init__(self, home: Path) -> None:
        self._home = str(home.resolve())
        self._baseline = _most_memory()
        self._active = False
        self._outs: tuple[Path, ...] = ()
        self.breaches: list[str] = []
        signal.signal(signal.SIGPROF, _stop)
        signal.signal(signal.SIGALRM, _stop)
        sys.addaudithook(self._hear)

    @contextmanager
    def watched(self, outs: tuple[Path, ...]) -> Iterator[None]:
        """Watch a call.

        Args:
            outs: Where the user has asked to write.

        Raises (at the end):
            BreachError: It wrote elsewhere, started a process, ran code of a pickle, was slow, or took too much memory.
        """
        self.breaches, self._outs = [], outs
        begun = time.process_time()
        faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        self._active = True
        try:
            yield
        finally:
            self._active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
        taken = _most_memory() - self._baseline
        if taken > MEMORY:
            self.breaches.append(f"{taken / 2**20:.0f} MiB of memory")
        if time.process_time() - begun > SECONDS:
            self.breaches.append(f"{time.process_time() - begun:.1f} s")
        self.judge()

    def judge(self) -> None:
        """Tell of what happened in the last call.

        Raises:
            BreachError: It was something that must not.
        """
        if self.breaches:
            raise BreachError("; ".join(self.breaches))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event in RUNS:
            self._refuse(f"{event} {arguments!r}"[:300])
        if event in WRITES or (event == "open" and _writes(arguments)):
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, str | bytes | os.PathLike) and not self._allows(os.fsdecode(path)):
                    self._refuse(f"{event} {path!r}"[:300])

    def _allows(self, text: str) -> bool:
        path = os.path.realpath(text)
        if path == "/dev/null" or path.startswith(f"{self._home}/"):
            return True
        return any(is_beside(Path(path), out) for out in self._outs)

    def _refuse(self, what: str) -> None:
        self.breaches.append(what)
        raise PermissionError(13, "not in a fuzz", what)


def is_beside(path: Path, out: Path) -> bool:
    """Return whether a path is an output, inside it, or one of the hidden names that it is made under."""
    return path.is_relative_to(out) or (
        path.is_relative_to(out.parent)
        and path.relative_to(out.parent).parts[:1] != ()
        and path.relative_to(out.parent).parts[0].startswith(f".{out.name}-")
    )


def limit_memory(more: int) -> None:
    """Let this process have only so many bytes of addresses more than now: it fails before the machine does."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def tree(folder: Path, outs: tuple[Path, ...]) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file of a folder, by its path, but for outputs."""
    found = {}
    for home, _, files in os.walk(folder):
        if any(is_beside(Path(home), out) for out in outs):
            continue
        for name in files:
            path = Path(home, name)
            if not any(is_beside(path, out) for out in outs):
                stat = path.lstat()
                found[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return found


def _most_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _stop(number: int, frame: Any) -> None:
    raise Slow(f"signal {number}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
