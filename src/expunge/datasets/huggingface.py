"""huggingface: images by the library `datasets`: from the hub, from parquet files, of a folder, or saved to disk.

`path` is an id on the hub (``ylecun/mnist``), a folder of parquet files or of images, a folder that ``save_to_disk``
made, or one parquet file. What the library has fetched or read once lies in its own cache, mapped into memory, and is
found there without a network too (``HF_HUB_OFFLINE=1``). No code of a data set is ever run.

Labels are read without decoding an image. Class names are those of a ClassLabel, or else the sorted values.
See https://huggingface.co/docs/datasets/loading.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from expunge.data import Data, Scaling
from expunge.datasets._halves import hold_out
from expunge.datasets._images import ImageSettings, Labels, adapt, image_data
from expunge.errors import DataError, expecting
from expunge.settings import settings

if TYPE_CHECKING:
    from datasets import Dataset

TESTS = ("test", "validation", "valid", "val")
"""Names of splits to test on, the best first."""
Values = Shaped[np.ndarray, "_"]


@settings
class Huggingface(ImageSettings):
    """Images with labels of one of the two columns of a data set of the hub or of this machine."""

    path: str = ""
    """Id on the hub, or a folder, or a parquet file."""
    config: str | None = None
    """Configuration of a data set that has several."""
    revision: str | None = None
    """Commit, tag or branch on the hub; None takes the newest."""
    train: str = "train"
    """Split to train on."""
    test: str | None = None
    """Split to test on; None takes test or validation, and without them holds out one row in five."""
    image: str | None = None
    """Column of images; None takes the only one."""
    label: str | None = None
    """Column of labels; None takes the only one of class labels, or else the only one beside the images."""

    def adapted(
        self, input_size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], scaling: Scaling
    ) -> "Huggingface":
        """Return the same images as a model takes them; see `adapt`."""
        return adapt(self, input_size, mean, std, scaling)

    def load(self) -> Data:
        """Return the images, in the order in which they come.

        Raises:
            DataError: Nothing is found or reached under that path, a split or column is missing or cannot be told, or
                a label is missing or in the test rows alone.
        """
        if not self.path:
            raise DataError("expected an id on the hub, a folder or a parquet file, got '': give dataset.path")
        with expecting(f"expected a data set in {self.path!r}", DataError), _quiet():
            splits = self._splits()
        train = _split(splits, self.train)
        image, label = self._columns(train)
        tested = self.test or next((name for name in TESTS if name in splits), None)
        names, known = _names(train, label)
        labels = _labels(_values(train, label), known, label)
        if tested is None:
            halves = [(train.select(half), labels[half]) for half in hold_out(labels, names, self.path)]
        else:
            other = _split(splits, tested)
            missing = {image, label} - set(other.column_names)
            if missing:
                raise DataError(f"expected the columns of {self.train!r} in {tested!r} too, got none of {missing}")
            halves = [(train, labels), (other, _labels(_values(other, label), known, label))]
        first, second = ((partial(_open, half.select_columns([image]), image), own) for half, own in halves)
        return image_data(self, first, second, names)

    def _splits(self) -> Mapping[str, "Dataset"]:
        from datasets import Dataset, load_dataset, load_from_disk  # half a second that only this data set needs

        path = Path(self.path).expanduser()
        found: Any
        if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = load_from_disk(str(path))
        elif path.is_file():
            found = load_dataset("parquet", data_files=str(path), split="train")
        else:
            found = load_dataset(str(path) if path.exists() else self.path, self.config, revision=self.revision)
        splits: Mapping[str, Dataset] = {self.train: found} if isinstance(found, Dataset) else found
        return splits

    def _columns(self, split: "Dataset") -> tuple[str, str]:
        """Return the columns of images and of labels."""
        from datasets import ClassLabel
        from datasets import Image as ImageFeature

        kinds = split.features
        for name in (self.image, self.label):
            if name is not None and name not in kinds:
                raise DataError(f"expected a column of {self.path}, got {name!r} (known: {', '.join(kinds)})")
        images = [name for name, kind in kinds.items() if isinstance(kind, ImageFeature)]
        image = self.image or _only(images, "image", "images", kinds)
        if image not in images:
            raise DataError(f"expected a column of images, got {image!r} with {kinds[image]}")
        classes = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
        others = [name for name in kinds if name not in images]
        return image, self.label or _only(classes or others, "label", "labels", kinds)


def _only(names: list[str], setting: str, what: str, columns: Mapping[str, object]) -> str:
    if len(names) != 1:
        came = ", ".join(names) or f"none among {', '.join(columns)}"
        raise DataError(f"expected one column of {what}, got {came}: give dataset.{setting}")
    return names[0]


def _split(splits: Mapping[str, "Dataset"], name: str) -> "Dataset":
    if name not in splits:
        raise DataError(f"expected a split {name!r}, got {', '.join(splits)}: give dataset.train or dataset.test")
    return splits[name]


def _values(split: "Dataset", column: str) -> Values:
    """Return the values of a column, without decoding any other."""
    values = split.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        raise DataError(f"expected a label in every row, got {values.null_count} without in column {column!r}")
    array: Values = values.to_numpy()
    return array


def _names(split: "Dataset", column: str) -> tuple[tuple[str, ...], Values]:
    """Return class names and the values that stand for them in a column, in ascending order."""
    from datasets import ClassLabel

    kind = split.features[column]
    if isinstance(kind, ClassLabel):
        return tuple(kind.names), np.arange(len(kind.names))
    values = _values(split, column)
    if not isinstance(values[0].item() if isinstance(values[0], np.generic) else values[0], int | str):
        raise DataError(f"expected labels that are numbers of classes or words, got {kind} in column {column!r}")
    known = np.unique(values)
    return tuple(str(value) for value in known), known


def _labels(values: Values, known: Values, column: str) -> Labels:
    """Return the class index of every value."""
    labels = np.searchsorted(known, values).astype(np.int64)
    strange = known[np.minimum(labels, len(known) - 1)] != values
    if strange.any():
        raise DataError(f"expected labels of the training rows, got {values[strange][0]!r} in column {column!r}")
    return labels


def _open(split: "Dataset", column: str, row: int) -> Image.Image:
    image: Image.Image = split[row][column]
    return image


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the library show neither bars nor its retries: its last word is the error that it raises."""
    import datasets
    from huggingface_hub.utils import logging as hub

    libraries: tuple[Any, ...] = (datasets.logging, hub)
    levels = [library.get_verbosity() for library in libraries]
    bars = datasets.are_progress_bars_disabled()
    for library in libraries:
        library.set_verbosity(library.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
