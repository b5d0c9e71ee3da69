"""Fingerprints: hashes of rows and of tensors, by their content."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from expunge.reading import read
from expunge.rows import Rows


def fingerprint(rows: Rows, *, workers: int = 0, size: int = 512) -> str:
    """Return the SHA-256 of the inputs and labels of all rows, in their order. Every row is read once."""
    digest = hashlib.sha256()
    chunks = np.split(np.arange(len(rows)), range(size, len(rows), size))
    for batch in read(rows, chunks, workers, torch.Generator()):
        for tensor in batch:
            digest.update(_content(tensor))
    return digest.hexdigest()


def glance(rows: Rows, most: int = 1000) -> str:
    """Return the SHA-256 of all labels and of the inputs of at most so many rows, evenly spaced."""
    digest = hashlib.sha256(np.ascontiguousarray(rows.labels).tobytes())
    if len(rows):
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
        for start in range(0, len(chosen), 100):
            digest.update(_content(rows.batch(chosen[start : start + 100])[0]))
    return digest.hexdigest()


def name_hash(name: str) -> str:
    """Return what stands for a row's name where the name itself should not: the first half of its SHA-256."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + b" " + _content(value))
    return digest.hexdigest()


def _content(tensor: Tensor) -> bytes:
    content = tensor.detach().cpu().contiguous()
    return f"{content.dtype} {tuple(content.shape)}".encode() + content.flatten().view(torch.uint8).numpy().tobytes()
