"""shapes: procedural images of lobed, striped, coloured blobs; any size, number of channels, classes and rows.

A class is a number of lobes, a stripe direction and a colour. Place, size, turn, contrast and pixel noise are drawn
row by row, so that a class must be learned and neighbours are confused. An image is a function of the seed and its
row number alone and is drawn when asked for: a million rows take no memory.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float, Int64
from torch import Tensor

from expunge.data import Data
from expunge.rows import Indices
from expunge.settings import settings

_GOLDEN = 0.6180339887498949
_PLACE_X, _PLACE_Y, _SIZE, _TURN, _CONTRAST, _PHASE, _PIXELS = range(7)


@settings
class Shapes:
    """Procedural images of lobed, striped, coloured blobs."""

    classes: Annotated[int, Ge(2)] = 10
    """Number of classes."""
    size: Annotated[int, Ge(8)] = 16
    """Height and width in pixels."""
    channels: Annotated[int, Ge(1)] = 3
    """Channels; with one, lobes and stripes alone tell the class."""
    train_rows: Annotated[int, Ge(2)] = 2000
    """Training rows, of all classes in turn."""
    test_rows: Annotated[int, Ge(2)] = 500
    """Test rows, of all classes in turn."""
    noise: Annotated[float, Ge(0)] = 0.5
    """Amplitude of the pixel noise, in standard deviations of a clean image."""
    seed: int = 0
    """Draws another set of images of the same classes."""

    def load(self) -> Data:
        """Return the data; nothing is drawn yet."""
        return Data(
            train=ShapeRows(self, first=0, count=self.train_rows),
            test=ShapeRows(self, first=self.train_rows, count=self.test_rows),
            label_names=tuple(f"shape-{index}" for index in range(self.classes)),
            input_size=(self.channels, self.size, self.size),
        )


@dataclass(frozen=True)
class ShapeRows:
    """Rows numbered from `first`, drawn when asked for."""

    settings: Shapes
    first: int
    count: int

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        labels = np.arange(self.first, self.first + self.count, dtype=np.int64)
        labels %= self.settings.classes  # in place: of a million rows there are eight megabytes
        return labels

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Indices) -> tuple[Float[Tensor, "rows c h w"], Int64[Tensor, " rows"]]:
        """Draw some rows."""
        rows = indices + self.first
        labels = rows % self.settings.classes
        return torch.from_numpy(_draw(rows, labels, self.settings)), torch.from_numpy(labels)


def _draw(
    rows: Int64[np.ndarray, " rows"], labels: Int64[np.ndarray, " rows"], settings: Shapes
) -> Float[np.ndarray, "rows c h w"]:
    def uniform(what: int) -> Float[np.ndarray, "rows 1 1"]:
        return _uniform(rows * 64 + what, settings.seed)[:, None, None]

    axis = np.linspace(-1, 1, settings.size, dtype=np.float32)
    x = axis[None, None, :] - 0.5 * (uniform(_PLACE_X) - 0.5)
    y = axis[None, :, None] - 0.5 * (uniform(_PLACE_Y) - 0.5)
    kind = labels.astype(np.float32)[:, None, None]
    lobes = 2 + kind % 5
    turn = 2 * np.pi * uniform(_TURN)
    outline = (0.55 + 0.25 * uniform(_SIZE)) * (1 + 0.3 * np.cos(lobes * (np.arctan2(y, x) - turn)))
    inside = 1 / (1 + np.exp((np.hypot(x, y) - outline) * settings.size / 2))
    direction = np.pi * (kind * _GOLDEN % 1)
    stripes = np.cos(7 * (x * np.cos(direction) + y * np.sin(direction)) + 2 * np.pi * uniform(_PHASE))
    pattern = inside * (0.6 + 0.4 * stripes) * (0.7 + 0.6 * uniform(_CONTRAST))
    colour_step = np.arange(settings.channels, dtype=np.float32)[None, :, None, None] / settings.channels
    colour = 1 + 0.6 * np.cos(2 * np.pi * (kind[:, None] * _GOLDEN**2 + colour_step)) * (settings.channels > 1)
    clean = (pattern[:, None] * colour - 0.35) / 0.4
    pixels = settings.channels * settings.size**2
    counters = (rows[:, None] * 64 + _PIXELS) * 2**20 + np.arange(pixels)
    noise = (_uniform(counters.ravel(), settings.seed).reshape(clean.shape) - 0.5) * np.sqrt(12)
    images: Float[np.ndarray, "rows c h w"] = (clean + settings.noise * noise).astype(np.float32)
    return images


def _uniform(counters: Int64[np.ndarray, " n"], seed: int) -> Float[np.ndarray, " n"]:
    """Return numbers in [0, 1) that are a function of counter and seed (the SplitMix64 finaliser)."""
    with np.errstate(over="ignore"):
        mixed = counters.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    uniform: Float[np.ndarray, " n"] = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return uniform
