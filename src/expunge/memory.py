"""Memory: what is free, asked before much of it is taken, so that a set that is too large is told in one line."""

from pathlib import Path

import psutil

from expunge.errors import DataError

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may take."""


def available_bytes(cgroup: Path = CGROUP) -> int:
    """Return the bytes that this process can take: what the machine has free, or a container's limit leaves."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except OSError:  # no container, or none with limits of its own
        return free
    if limit == "max":
        return free
    # pages of files that were read are given back when memory is short
    return max(0, min(free, int(limit) - int(used) + int(statistics["inactive_file"])))


def check_fits(needed: int, what: str, do: str) -> None:
    """Refuse to take more memory than there is; nothing is taken yet.

    Args:
        needed: Bytes.
        what: What they are for.
        do: What the caller can do instead.

    Raises:
        DataError: They are more than is available.
    """
    free = available_bytes()
    if needed > free:
        raise DataError(f"expected {_size(needed)} of memory for {what}, got {_size(free)}: {do}")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
