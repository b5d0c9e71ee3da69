"""folder: image files in a folder per class, as torchvision's ImageFolder reads them; decoded when asked for.

``PATH/train/CLASS/*.png`` and ``PATH/test/CLASS/*.png`` (or ``val`` in the place of ``test``); or ``PATH/CLASS/*.png``,
and then one row in five is held out for testing, drawn class by class.

In training images are brought to the size, channels and scale that the settings say; for a model that exists already
always to its own, as its configuration says.
See https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Int64
from PIL import Image
from sklearn.model_selection import train_test_split
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from expunge.data import Data
from expunge.datasets._images import Channels, ImageRows, per_channel, square
from expunge.errors import DataError
from expunge.rows import Rows
from expunge.settings import settings

Labels = Int64[np.ndarray, "_"]
Files = tuple[list[str], Labels]
"""Paths of images with their labels."""
TESTS = ("test", "val")
HELD_OUT = 0.2


@settings
class Folder:
    """Images of a folder, one folder inside it for each class."""

    path: str = ""
    """The folder."""
    size: Annotated[int, Ge(1)] = 32
    """Height and width, pixels: the shorter side is scaled to it, and the middle cut out."""
    channels: Channels = 3
    """Grey, or red, green and blue."""
    mean: tuple[float, ...] = (0.5,)
    """Taken off each channel, of values from 0 to 1; one number stands for all channels."""
    std: tuple[Annotated[float, Gt(0)], ...] = (0.25,)
    """Divides each channel after that."""

    def adapted(self, input_size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]) -> "Folder":
        """Return the same images in the shape that a model takes, normalised as its inputs were.

        Raises:
            DataError: The model takes no square images of one or three channels.
        """
        channels, size = square(input_size)
        return replace(self, channels=channels, size=size, mean=mean, std=std)

    def load(self) -> Data:
        """Return the images; the order of classes and rows is that of their names.

        Raises:
            DataError: There is no such folder, it holds no images, or a half lacks or adds a class.
        """
        root = Path(self.path).expanduser()
        if not self.path or not root.is_dir():
            raise DataError(
                f"expected a folder with a folder of images per class, got {self.path!r}: give dataset.path"
            )
        test = next((root / name for name in TESTS if (root / name).is_dir()), None)
        if (root / "train").is_dir() != (test is not None):
            raise DataError(f"expected both train and test (or val) in {root}, or neither, got one of them")
        if test is None:
            names, found = _find(root)
            train, tested = _hold_out(*found, root)
        else:
            names, train = _find(root / "train")
            others, tested = _find(test)
            if names != others:
                differ = sorted(set(names) ^ set(others))
                raise DataError(
                    f"expected the same classes in {root / 'train'} and {test}, got {differ[:3]} in one only"
                )
        return Data(
            train=self._rows(*train),
            test=self._rows(*tested),
            label_names=tuple(names),
            input_size=(self.channels, self.size, self.size),
            mean=per_channel(self.mean, self.channels),
            std=per_channel(self.std, self.channels),
        )

    def _rows(self, files: list[str], labels: Labels) -> Rows:
        return ImageRows(
            lambda index: Image.open(files[index]),
            labels,
            size=self.size,
            channels=self.channels,
            mean=per_channel(self.mean, self.channels),
            std=per_channel(self.std, self.channels),
        )


def _find(folder: Path) -> tuple[list[str], Files]:
    """Return class names, and the files with their labels, in the order of their names."""
    try:
        names, indices = find_classes(str(folder))
        found = make_dataset(str(folder), indices, extensions=IMG_EXTENSIONS)
    except (OSError, ValueError) as error:
        why = f"{error}".split(". Supported", 1)[0]
        why = why if len(why) <= 160 else f"{why[:159]}…"
        raise DataError(f"expected images in a folder per class in {folder}, got: {why}") from error
    return names, ([file for file, _ in found], np.array([label for _, label in found], dtype=np.int64))


def _hold_out(files: list[str], labels: Labels, folder: Path) -> list[Files]:
    """Return training and test files with their labels."""
    try:
        halves = train_test_split(np.arange(len(files)), test_size=HELD_OUT, random_state=0, stratify=labels)
    except ValueError as error:
        raise DataError(f"expected images enough to hold one in five out for testing in {folder}: {error}") from error
    return [([files[index] for index in sorted(half)], labels[np.sort(half)]) for half in halves]
