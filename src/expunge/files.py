"""Files: every write is whole or not at all, and what a killed one left is put right by the next.

A write goes to a hidden name beside its place, ``.NAME-new-…``, is synced, and takes its place by a rename. The hidden
folder or file is locked as long as its process lives, and the system lets go of the lock however that process ends:
what is not locked was left by a killed one. Two renames put a new folder in the place of an old one; a new folder was
synced before the first of them, so one that was cut off between the two is finished later (see `settle`).

Of several processes that do the same work the first alone writes; the others fill a folder that is thrown away.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only

from expunge.errors import OutputError

NEW, OLD, GONE = "-new-", "-old", "-gone"
"""In the hidden name of what is being written, and at the end of that of what is being replaced and being removed."""
NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})
"""How a file system says that it has no locks, as some of clusters do."""
SUMS = "SHA256SUMS"
"""Hashes of a folder's files, as ``sha256sum --check`` reads them."""
RESULT = "result.json"
"""The result of an experiment, in its folder."""


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that holds something already, or that cannot be written; only leftovers are put right.

    Raises:
        OutputError: Something is there and `overwrite` is False, or it is a folder that expunge did not make, or the
            nearest existing folder is not writable.
    """
    settle(path)
    if overwrite and _foreign(path):
        raise OutputError(
            f"expected an earlier result to overwrite, got a folder of other files at {path}: choose another"
        )
    if not overwrite and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"expected nothing at {path}, got an earlier result: choose another, or add --overwrite")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"expected a folder that can be written, got {parent} for {path}")


def _foreign(path: Path) -> bool:
    """Return whether a folder holds something, and nothing that expunge makes."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        inside = set(os.listdir(handle))
        if not inside or inside & {SUMS, RESULT}:
            return False
        return os.path.samestat(os.fstat(handle), path.stat())  # or another writer has replaced it, and removes it
    except FileNotFoundError:
        return False
    finally:
        os.close(handle)


def settle(path: Path) -> None:
    """Put right what killed writes of `path` left beside it; nothing of a living process is touched.

    A replacement that was cut off between its two renames is finished: the new folder is whole by then. Whatever was
    cut off before is removed.
    """
    path = path.absolute()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        return
    for old in path.parent.glob(f".{_literal(path.name)}{NEW}*{OLD}"):
        new = old.with_name(old.name.removesuffix(OLD))
        with _dead(new) as dead, suppress(OSError):  # another process settles or writes too: the next settles again
            if new.exists() and not dead:
                continue
            if not path.exists():
                (new if new.exists() else old).rename(path)
            _remove(old)
    for gone in path.parent.glob(f".{_literal(path.name)}{NEW}*{GONE}"):
        _remove(gone)
    for left in path.parent.glob(f".{_literal(path.name)}{NEW}????????"):
        with _dead(left) as dead:
            if dead:
                _remove(left)


@contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside `path` to fill; it takes the place of `path` at the end, or vanishes on error.

    Raises:
        OutputError: As `check_free`, or the disk is full.
    """
    if _second():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    check_free(path, overwrite=overwrite)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _stage(path, tempfile.mkdtemp)
    except OSError as error:
        raise OutputError(f"expected a folder that can be written, got {path}: {error.strerror}") from error
    try:
        yield staging
        for file in [*staging.rglob("*"), staging]:
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors leaves weights to their writer alone
            _sync(file)
        _sync(staging.parent)
        _replace(staging, path)
    except OSError as error:
        raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error
    finally:
        _remove(staging)
        os.close(lock)


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OutputError: As `check_free`, or the disk is full.
    """
    if not _second():
        check_free(path, overwrite=overwrite)
    with new_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; it replaces `path` at the end, or vanishes on error.

    Raises:
        OutputError: It cannot be written, or the disk is full.
    """
    if _second():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / path.name
        return
    staging, handle = None, None
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging, handle = _stage(path, _make_file)
        yield staging
        staging.chmod(0o644)
        _sync(staging)
        staging.replace(path)
        _sync(path.absolute().parent)
    except OSError as error:
        raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error
    finally:
        if staging is not None:
            staging.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _second() -> bool:
    """Return whether this is one of several processes that do the same, and not the first, which alone writes."""
    return bool(rank_zero_only.rank)  # type: ignore[attr-defined]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sum(file: Path) -> None:
    """Add the hash of a new file to `SUMS` beside it."""
    with (file.parent / SUMS).open("a", encoding="utf-8") as sums:
        sums.write(f"{file_hash(file)}  {file.name}\n")


def as_written(file: Path, found: str) -> bool:
    """Return whether a file's hash is the one in `SUMS` beside it; a file without one counts as it is."""
    sums = file.parent / SUMS
    told = sums.read_text(encoding="utf-8", errors="replace").split() if sums.is_file() else []
    return file.name not in told or found in told


def lock(path: Path) -> int | None:
    """Lock a folder or file for this process until the returned handle is closed; None if another has locked it.

    Where the file system has no locks, there is none: two processes that write one place are then not kept apart.
    """
    handle = _open(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                return None
            raise
    return handle


def _open(path: Path) -> int:
    # NFS locks no file that is open for reading alone
    return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)


def _stage(path: Path, make: Callable[..., str]) -> tuple[Path, int]:
    """Make a hidden folder or file beside `path`; return it with the handle that keeps it locked."""
    while True:
        staging = Path(make(prefix=f".{path.name}{NEW}", dir=path.absolute().parent))
        with suppress(FileNotFoundError):  # another process may take it for a leftover before it is locked
            handle = lock(staging)
            if handle is not None:
                if staging.exists():
                    return staging, handle
                os.close(handle)


def _make_file(**place: Any) -> str:
    handle, name = tempfile.mkstemp(**place)
    os.close(handle)
    return str(name)


@contextmanager
def _dead(path: Path) -> Iterator[bool]:
    """Give whether the process that made a hidden folder or file is gone; nobody else takes it for theirs meanwhile.

    Where there are no locks nobody knows, and nothing counts as left behind.
    """
    handle, dead = None, False
    with suppress(OSError):
        handle = _open(path)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        dead = True
    try:
        yield dead
    finally:
        if handle is not None:
            os.close(handle)


def _replace(staging: Path, path: Path) -> None:
    old = staging.with_name(staging.name + OLD)
    while staging.exists():
        with suppress(FileNotFoundError):  # nothing is there, or another writer has moved it away
            path.rename(old)
        try:
            staging.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another writer was faster, and is replaced in turn
                _remove(old)
                continue
            if old.exists():
                old.rename(path)
            raise
    _sync(path.absolute().parent)
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a hidden folder or file; several processes may, at the same time.

    It is renamed first: half removed, it must not be taken for one to finish or to put back.
    """
    gone = path if path.name.endswith(GONE) else path.with_name(f"{path.name}-{secrets.token_hex(4)}{GONE}")
    with suppress(OSError):  # another process was faster, or may remove it and this one may not
        path.rename(gone)
    if gone.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        with suppress(OSError):
            gone.unlink()


def _literal(name: str) -> str:
    """Return a name so that a glob takes it literally."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
