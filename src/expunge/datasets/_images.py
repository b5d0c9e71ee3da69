"""Images: how images of any size become inputs of one shape, decoded only when a row is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from expunge.data import Data, Scaling, first
from expunge.errors import DataError, expecting
from expunge.rows import Indices, Rows, TakenRows
from expunge.settings import settings

Open = Callable[[int], Image.Image]
"""Returns the image of a row, given its index."""
Labels = Int64[np.ndarray, "_"]
MODES = {1: "L", 3: "RGB"}
"""Pillow's name of images with so many channels."""


@settings
class ImageSettings:
    """The settings that every data set of images has; fields alone."""

    size: Annotated[int, Ge(1)] = 32
    """Height and width of an input, pixels."""
    channels: Literal[1, 3] = 3
    """Grey, or red, green and blue."""
    mean: tuple[float, ...] = (0.5,)
    """Taken off each channel, of values from 0 to 1; one number stands for all channels."""
    std: tuple[Annotated[float, Gt(0)], ...] = (0.25,)
    """Divides each channel after that."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] = "bilinear"
    """Pillow's filter that images are scaled with."""
    crop_pct: Annotated[float, Gt(0), Le(1)] = 1.0
    """Size as a share of the size that an image is scaled to before the middle is cut out."""
    crop_mode: Literal["center", "border", "squash"] = "center"
    """What is scaled to that size: the shorter side, the longer side (and the rest filled), or both."""
    rows_per_class: Annotated[int, Ge(1)] | None = None
    """Only the first so many rows of every class of either half; None takes all."""


Settings = TypeVar("Settings", bound=ImageSettings)


def adapt(
    dataset: Settings, input_size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], scaling: Scaling
) -> Settings:
    """Return a data set whose images are read as a model takes them, as its ``config.json`` says.

    Raises:
        DataError: It takes no square images of one or three channels.
        SettingsError: Its images are scaled in a way that is not known here.
    """
    if len(input_size) != 3 or input_size[0] not in MODES or input_size[1] != input_size[2]:
        raise DataError(f"expected a model of square images with 1 or 3 channels, got one of inputs {input_size}")
    values: dict[str, Any] = {"channels": input_size[0], "size": input_size[1], "mean": mean, "std": std}
    return replace(dataset, **values, **asdict(scaling))


def image_data(
    dataset: ImageSettings,
    train: tuple[Open, Labels],
    test: tuple[Open, Labels],
    label_names: tuple[str, ...],
    names: Sequence[str] | None = None,
) -> Data:
    """Return the data of a set of images.

    Args:
        dataset: How images become inputs.
        train: Opens the image of a training row, given its index; and the class index of every row.
        test: The same of the test rows.
        label_names: One per class.
        names: What training rows are called, each by another name; None if they have no names.

    Raises:
        DataError: Mean or standard deviation are neither one number nor one per channel, or a label has no name.
    """

    def rows(opens: Open, labels: Labels, names: Sequence[str] | None) -> Rows:
        images = ImageRows(opens, labels, dataset, names)
        chosen = dataset.rows_per_class
        return images if chosen is None else TakenRows(images, first(labels, chosen))

    return Data(
        train=rows(*train, names),
        test=rows(*test, None),
        label_names=label_names,
        input_size=(dataset.channels, dataset.size, dataset.size),
        mean=per_channel(dataset.mean, dataset.channels),
        std=per_channel(dataset.std, dataset.channels),
        scaling=Scaling(interpolation=dataset.interpolation, crop_pct=dataset.crop_pct, crop_mode=dataset.crop_mode),
    )


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one number per channel; a single one stands for all.

    Raises:
        DataError: There are neither one nor as many as channels.
    """
    if len(values) not in (1, channels):
        raise DataError(f"expected one number, or {channels}, one per channel, got {len(values)}")
    return values * channels if len(values) == 1 else values


class ImageRows:
    """Labelled images that are opened, decoded and brought to one shape when asked for.

    Args:
        open_image: Opens the image of a row.
        labels: The class index of every row.
        config: The shape, and the way to it: timm's transform for evaluation, without augmentation.
        names: What the rows are called; None if they have no names.
    """

    def __init__(
        self,
        open_image: Open,
        labels: Int64[np.ndarray, " rows"],
        config: ImageSettings,
        names: Sequence[str] | None = None,
    ) -> None:
        from timm.data import create_transform  # timm takes seconds to import, and only reading rows needs it

        self._open = open_image
        self._labels = labels
        self.names = names
        self._mode = MODES[config.channels]
        mean, std = (per_channel(values, config.channels) for values in (config.mean, config.std))
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self._transform = create_transform(
            (config.channels, config.size, config.size),
            interpolation=config.interpolation,
            crop_pct=config.crop_pct,
            crop_mode=config.crop_mode,
            mean=mean,
            normalize=False,  # done for a whole batch at once
        )

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
        pixels = torch.stack([self._pixels(int(index)) for index in indices])
        return (pixels.float() / 255 - self._mean) / self._std, torch.from_numpy(self._labels[indices])

    def _pixels(self, index: int) -> UInt8[Tensor, "channels size size"]:
        with expecting(f"expected an image in row {index}", DataError), self._open(index) as image:
            pixels: Tensor = self._transform(image.convert(self._mode))
        return pixels
