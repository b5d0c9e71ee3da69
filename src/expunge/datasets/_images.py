"""Images: how image files of any size become inputs of one shape, decoded only when a row is asked for."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from expunge.errors import DataError
from expunge.rows import Indices

Open = Callable[[int], Image.Image]
"""Returns the image of a row, given its index."""
Channels = Literal[1, 3]
Pixels = UInt8[np.ndarray, "size size *channels"]
MODES = {1: "L", 3: "RGB"}
"""Pillow's name of images with so many channels."""


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one number per channel; a single one stands for all.

    Raises:
        DataError: There are neither one nor as many as channels.
    """
    if len(values) not in (1, channels):
        raise DataError(f"expected one number, or {channels}, one per channel, got {len(values)}")
    return values * channels if len(values) == 1 else values


def square(input_size: tuple[int, ...]) -> tuple[Channels, int]:
    """Return channels and size of the images that a model takes.

    Raises:
        DataError: It takes no square images of one or three channels.
    """
    if len(input_size) != 3 or input_size[0] not in MODES or input_size[1] != input_size[2]:
        raise DataError(f"expected a model of square images with 1 or 3 channels, got one of inputs {input_size}")
    return (1 if input_size[0] == 1 else 3), input_size[1]


class ImageRows:
    """Labelled images that are opened, decoded and brought to one shape when asked for.

    Args:
        open_image: Opens the image of a row.
        labels: The class index of every row.
        size: Height and width, pixels: the shorter side is scaled to it, and the middle cut out.
        channels: Grey, or red, green and blue.
        mean: Taken off each channel, of values from 0 to 1.
        std: Divides each channel after that.
    """

    def __init__(
        self,
        open_image: Open,
        labels: Int64[np.ndarray, " rows"],
        *,
        size: int,
        channels: Channels,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self._open = open_image
        self._labels = labels
        self._size = size
        self._mode = MODES[channels]
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Indices) -> tuple[Float[Tensor, "rows channels size size"], Int64[Tensor, " rows"]]:
        """Return the images and labels of some rows, in the order asked for.

        Raises:
            DataError: A file has vanished or holds no image.
        """
        pixels = torch.from_numpy(np.stack([self._pixels(int(index)) for index in indices]))
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        return (scaled - self._mean) / self._std, torch.from_numpy(self._labels[indices])

    def _pixels(self, index: int) -> Pixels:
        try:
            with self._open(index) as image:
                fitted = ImageOps.fit(image.convert(self._mode), (self._size, self._size), Image.Resampling.BILINEAR)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"expected an image in row {index}, got: {error}") from error
        return np.asarray(fitted)
