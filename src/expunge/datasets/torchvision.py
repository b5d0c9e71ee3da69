"""torchvision: its data sets of labelled images, by name: MNIST, FashionMNIST, SVHN, STL10, GTSRB, Food101 and more.

Files lie under `root` as torchvision keeps them; nothing is downloaded unless `download` says so. A set that comes in
one piece has one row in five held out for testing, drawn class by class.

Refused are the sets that torchvision reads with pickle or ``torch.load``: CIFAR10, CIFAR100, ImageNet, LSUN, PhotoTour,
and what old versions of it left in a folder ``processed`` of MNIST and its like.
See https://docs.pytorch.org/vision/stable/datasets.html.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision import datasets

from expunge.data import Data, Scaling
from expunge.datasets._halves import hold_out
from expunge.datasets._images import ImageSettings, Labels, adapt, image_data
from expunge.errors import DataError, did_you_mean, expecting
from expunge.settings import settings

PICKLED = {
    "CIFAR10": "get uoft-cs/cifar10 as parquet, and read it with --data huggingface",
    "CIFAR100": "get uoft-cs/cifar100 as parquet, and read it with --data huggingface",
    "ImageNet": "unpack it into a folder per class, and read it with --data folder",
    "LSUN": "export its images into a folder per class, and read them with --data folder",
    "LSUNClass": "export its images into a folder per class, and read them with --data folder",
    "PhotoTour": "it has no classes",
}
"""Data sets that torchvision unpickles, and how to have the same rows without."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    labels: str
    """torchvision's attribute with the labels, or with pairs of file and label."""
    names: str | None = "classes"
    """Its attribute with the class names; None if the classes have none but their numbers."""
    train: tuple[str, object] | None = ("split", "train")
    """The argument that asks for training rows; None if there is but one piece."""
    test: tuple[str, object] | None = ("split", "test")


TRAIN, TEST = ("train", True), ("train", False)
SOURCES = {
    "Caltech101": _Source(labels="y", names="categories", train=None, test=None),
    "Caltech256": _Source(labels="y", names="categories", train=None, test=None),
    "Country211": _Source(labels="targets"),
    "DTD": _Source(labels="_labels"),
    "EuroSAT": _Source(labels="targets", train=None, test=None),
    "FashionMNIST": _Source(labels="targets", train=TRAIN, test=TEST),
    "FGVCAircraft": _Source(labels="_labels", train=("split", "trainval")),
    "Flowers102": _Source(labels="_labels"),
    "Food101": _Source(labels="_labels"),
    "GTSRB": _Source(labels="_samples", names=None),
    "Imagenette": _Source(labels="_samples", test=("split", "val")),
    "KMNIST": _Source(labels="targets", train=TRAIN, test=TEST),
    "MNIST": _Source(labels="targets", train=TRAIN, test=TEST),
    "OxfordIIITPet": _Source(labels="_labels", train=("split", "trainval")),
    "RenderedSST2": _Source(labels="_samples"),
    "SEMEION": _Source(labels="labels", names=None, train=None, test=None),
    "STL10": _Source(labels="labels"),
    "SUN397": _Source(labels="_labels", train=None, test=None),
    "SVHN": _Source(labels="labels", names=None),
    "USPS": _Source(labels="targets", names=None, train=TRAIN, test=TEST),
}
"""Data sets of labelled images that torchvision reads without unpickling."""


@settings
class Torchvision(ImageSettings):
    """One of torchvision's data sets."""

    which: str = ""
    """Its name in torchvision."""
    root: str = "data"
    """Folder that torchvision's files lie in."""
    download: bool = False
    """Whether torchvision may fetch files that are not there."""

    def adapted(
        self, input_size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], scaling: Scaling
    ) -> "Torchvision":
        """Return the same images as a model takes them; see `adapt`."""
        return adapt(self, input_size, mean, std, scaling)

    def load(self) -> Data:
        """Return the images, in torchvision's order.

        Raises:
            DataError: torchvision has no such set, would unpickle it, or does not find or fetch its files.
        """
        if self.which in PICKLED:
            raise DataError(f"expected a data set without pickles, got {self.which}: {PICKLED[self.which]}")
        if self.which not in SOURCES:
            raise DataError(
                f"expected a data set of torchvision, got {self.which!r}{did_you_mean(self.which, SOURCES)}: "
                "give dataset.which"
            )
        source = SOURCES[self.which]
        train = self._read(source.train)
        labels = _labels(train, source)
        classes = getattr(train, source.names) if source.names else range(int(labels.max(initial=0)) + 1)
        names = tuple(name[0] if isinstance(name, tuple) else str(name) for name in classes)  # a tuple lists synonyms
        if source.test is None:
            halves = hold_out(labels, names, self.which)
            first, second = ((partial(_chosen, train, half), labels[half]) for half in halves)
        else:
            test = self._read(source.test)
            first, second = (partial(_open, train), labels), (partial(_open, test), _labels(test, source))
        return image_data(self, first, second, names)

    def _read(self, half: tuple[str, object] | None) -> Any:
        root = Path(self.root).expanduser()
        old = sorted((root / self.which / "processed").glob("*.pt"))
        if old:
            raise DataError(f"expected a data set without pickles, got {old[0]}: remove it, raw/ has the same rows")
        arguments = {} if half is None else dict([half])
        do = "look at dataset.root" if self.download else "give dataset.root, or dataset.download=true"
        with expecting(f"expected {self.which} of torchvision in {root} ({do})", DataError):
            return getattr(datasets, self.which)(str(root), download=self.download, **arguments)


def _labels(found: Any, source: _Source) -> Labels:
    """Return the class index of every row, without decoding any."""
    labels = getattr(found, source.labels)
    if source.labels == "_samples":
        labels = [label for _, label in labels]
    return np.asarray(labels, dtype=np.int64)


def _open(found: Any, row: int) -> Image.Image:
    image: Image.Image = found[row][0]
    return image


def _chosen(found: Any, rows: Labels, row: int) -> Image.Image:
    return _open(found, int(rows[row]))
