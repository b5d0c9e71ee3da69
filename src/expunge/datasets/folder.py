"""folder: image files in a folder per class, as torchvision's ImageFolder reads them; decoded when asked for.

``PATH/train/CLASS/*.png`` and ``PATH/test/CLASS/*.png`` (or ``val`` in the place of ``test``); or ``PATH/CLASS/*.png``,
and then one row in five is held out for testing, drawn class by class.

A training row is called by its file, as seen from the folder of the classes: ``CLASS/0017.png``.

In training images are brought to the size, channels and scale that the settings say; for a model that exists already
always to its own, as its configuration says.
See https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html.
"""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from expunge.data import Data, Scaling
from expunge.datasets._halves import hold_out
from expunge.datasets._images import ImageSettings, Labels, Open, adapt, image_data
from expunge.errors import DataError, expecting
from expunge.settings import settings

Files = tuple[list[str], Labels]
"""Paths of images with their labels."""
TESTS = ("test", "val")


@settings
class Folder(ImageSettings):
    """Images of a folder, one folder inside it for each class."""

    path: str = ""
    """The folder."""

    def adapted(
        self, input_size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], scaling: Scaling
    ) -> "Folder":
        """Return the same images as a model takes them; see `adapt`."""
        return adapt(self, input_size, mean, std, scaling)

    def load(self) -> Data:
        """Return the images; the order of classes and rows is that of their names.

        Raises:
            DataError: There is no such folder, it holds no images, or the test half lacks a class.
        """
        root = Path(self.path).expanduser()
        if not self.path or not root.is_dir():
            raise DataError(
                f"expected a folder with a folder of images per class, got {self.path!r}: give dataset.path"
            )
        top = root / "train" if (root / "train").is_dir() else root
        test = next((root / name for name in TESTS if (root / name).is_dir()), None)
        if (root / "train").is_dir() != (test is not None):
            raise DataError(f"expected both train and test (or val) in {root}, or neither, got one of them")
        if test is None:
            names, (files, labels) = _find(root)
            halves = hold_out(labels, names, root, _below(root, files))
            train, tested = (([files[row] for row in half], labels[half]) for half in halves)
        else:
            names, tested = _find(test)
            others, (files, labels) = _find(top)
            if differ := sorted(set(others) - set(names)):
                raise DataError(f"expected the classes of {top} in {test} too, got none of {differ[:3]}")
            train = files, np.array([names.index(name) for name in others])[labels]
        return image_data(self, _opening(*train), _opening(*tested), tuple(names), _below(top, train[0]))


def _below(top: Path, files: list[str]) -> list[str]:
    """Return files as seen from a folder above them."""
    return [Path(file).relative_to(top).as_posix() for file in files]


def _opening(files: list[str], labels: Labels) -> tuple[Open, Labels]:
    return partial(_open, files), labels


def _open(files: list[str], row: int) -> Image.Image:
    with expecting(f"expected an image in {files[row]}", DataError), Image.open(files[row]) as image:
        image.load()  # here, where the file is known by its name
    return image


def _find(folder: Path) -> tuple[list[str], Files]:
    """Return class names, and the files with their labels, in the order of their names."""
    try:
        names, indices = find_classes(str(folder))
        found = make_dataset(str(folder), indices, extensions=IMG_EXTENSIONS, allow_empty=True)
    except (OSError, ValueError) as error:
        why = f"{error}".split(". Supported", 1)[0]
        why = why if len(why) <= 160 else f"{why[:159]}…"
        raise DataError(f"expected images in a folder per class in {folder}, got: {why}") from error
    if not found:
        raise DataError(f"expected images in a folder per class in {folder}, got none")
    return names, ([file for file, _ in found], np.array([label for _, label in found], dtype=np.int64))
