"""Files: every write is whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expunge.errors import OutputError


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that holds something already, or that cannot be written; nothing is changed.

    Raises:
        OutputError: Something is there and `overwrite` is False, or the nearest existing folder is not writable.
    """
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"expected nothing at {path}, got an earlier result: choose another, or add --overwrite")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"expected a folder that can be written, got {parent} for {path}")


@contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside `path` to fill; it takes the place of `path` at the end, or vanishes on error.

    Raises:
        OutputError: As `check_free`, or the disk is full.
    """
    check_free(path, overwrite=overwrite)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))
    except OSError as error:
        raise OutputError(f"expected a folder that can be written, got {path}: {error.strerror}") from error
    try:
        yield staging
        staging.chmod(0o755)
        for file in staging.rglob("*"):
            _sync(file)
        _replace(staging, path)
    except OSError as error:
        raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OutputError: As `check_free`, or the disk is full.
    """
    check_free(path, overwrite=overwrite)
    staging = None
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.absolute().parent)
        staging = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staging.chmod(0o644)
        staging.replace(path)
        _sync(path.absolute().parent)
    except OSError as error:
        if staging is not None:
            staging.unlink(missing_ok=True)
        raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(staging: Path, path: Path) -> None:
    old = staging.with_name(staging.name + "-old")
    if path.exists():
        path.rename(old)
    try:
        staging.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
    _sync(path.absolute().parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
