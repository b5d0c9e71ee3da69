"""Cache: models that were trained before, each found again by everything that decided its weights.

An entry is a model folder named by the SHA-256 of its key, with ``entry.json`` beside the weights: the key in full, the
seconds that training took, and the hash of the weights. An entry is written whole or not at all. One that does not
hold what it says is never used: it is as if it were not there, and is replaced when its model is trained again.
"""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from expunge.checkpoint import CONFIG, WEIGHTS, save_model
from expunge.data import Data
from expunge.errors import OutputError
from expunge.files import check_free, file_hash, new_folder
from expunge.reading import read
from expunge.rows import Rows

ENTRY = "entry.json"
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of a model of the cache."""

    key: dict[str, Any]
    """Everything that decides the weights."""
    seconds: float
    """What making it took, measured when it was made."""
    threads: int
    """Threads that PyTorch used then."""
    weights: str
    """SHA-256 of the weights file."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A folder of the cache."""

    name: str
    """SHA-256 of the key."""
    entry: Entry | None
    """None if it is damaged."""
    bytes: int
    """Size of the weights file."""


@dataclass(frozen=True)
class Cache:
    """A folder of trained models."""

    folder: Path

    @classmethod
    def default(cls) -> Self:
        """Return the cache in ``$EXPUNGE_CACHE``, or else in the user's cache folder of the platform.

        Raises:
            OutputError: It cannot be written.
        """
        cache = cls(Path(os.environ.get("EXPUNGE_CACHE") or _user_cache() / "expunge").expanduser())
        try:
            check_free(cache.folder / "new", overwrite=True)
        except OutputError as error:
            raise OutputError(f"{error}: set EXPUNGE_CACHE to another folder, or give --no-cache") from error
        return cache

    def find(self, key: Mapping[str, Any]) -> tuple[dict[str, Tensor], Entry] | None:
        """Return the weights made from a key with what is known of them; None if there are none that are whole."""
        path = self.folder / name_of(key)
        entry = _read(path)
        if entry is None or entry.key != _plain(key):
            return None
        try:
            if file_hash(path / WEIGHTS) != entry.weights:
                return None
            return load_file(path / WEIGHTS), entry
        except (OSError, SafetensorError):
            return None

    def store(self, key: Mapping[str, Any], model: nn.Module, data: Data, seconds: float, threads: int) -> None:
        """Write an entry; one that is there and whole stays, and another process may write the same at the same time.

        Raises:
            ModelError: The network is not of timm's factory.
            OutputError: The entry cannot be written.
        """
        path = self.folder / name_of(key)
        for attempt in range(ATTEMPTS):
            if self.find(key) is not None:
                return
            try:
                with new_folder(path, overwrite=True) as folder:
                    save_model(model, folder, data, {"key": _plain(key)})
                    told = Entry(key=_plain(key), seconds=seconds, threads=threads, weights=file_hash(folder / WEIGHTS))
                    (folder / ENTRY).write_text(json.dumps(asdict(told), indent=1) + "\n", encoding="utf-8")
            except OutputError:  # perhaps another process has just replaced the same damaged entry
                if attempt == ATTEMPTS - 1:
                    raise

    def entries(self) -> list[Listed]:
        """Return all entries, by name."""
        found = []
        for path in self._folders():
            size = (path / WEIGHTS).stat().st_size if (path / WEIGHTS).is_file() else 0
            whole = (path / CONFIG).is_file() and size > 0
            found.append(Listed(name=path.name, entry=_read(path) if whole else None, bytes=size))
        return found

    def clear(self) -> int:
        """Remove all entries and what interrupted writes have left, and nothing else; return how many entries.

        Raises:
            OutputError: One cannot be removed.
        """
        folders = self._folders()
        left = [path for path in self._children() if re.fullmatch(r"\.[0-9a-f]{64}-.*", path.name)]
        try:
            for path in [*folders, *left]:
                shutil.rmtree(path)
        except OSError as error:
            raise OutputError(f"expected to remove {error.filename}, got: {error.strerror}") from error
        return len(folders)

    def _folders(self) -> list[Path]:
        return [path for path in self._children() if re.fullmatch("[0-9a-f]{64}", path.name)]

    def _children(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []


def name_of(key: Mapping[str, Any]) -> str:
    """Return the name of the folder of a key."""
    return hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()


def fingerprint(rows: Rows, *, workers: int = 0, size: int = 512) -> str:
    """Return the SHA-256 of the inputs and labels of all rows, in their order. Every row is read once."""
    digest = hashlib.sha256()
    chunks = np.split(np.arange(len(rows)), range(size, len(rows), size))
    for batch in read(rows, chunks, workers, torch.Generator()):
        for tensor in batch:
            content = tensor.cpu().contiguous()
            digest.update(f"{content.dtype} {tuple(content.shape)}".encode())
            digest.update(content.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        content = value.detach().cpu().contiguous()
        digest.update(f"{name} {content.dtype} {tuple(content.shape)}".encode())
        digest.update(content.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> Entry | None:
    try:
        return TypeAdapter(Entry).validate_json((path / ENTRY).read_text(encoding="utf-8"), strict=True)
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def _plain(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return a key as it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(key, default=str))
    return plain


def _user_cache() -> Path:
    home = Path.home()
    match platform.system():
        case "Windows":
            return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        case "Darwin":
            return home / "Library" / "Caches"
        case _:
            return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
