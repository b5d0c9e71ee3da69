"""CIFAR-10 from parquet files as the Hugging Face hub keeps them, decoded once into memory; for benchmarks alone.

Used as the data set ``cifar10`` by other benchmarks.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from expunge.data import Data, choose
from expunge.rows import TensorRows
from expunge.settings import settings

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "cifar10"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@settings
class Cifar10:
    """CIFAR-10, or as many rows of every class of it."""

    folder: str = str(FOLDER)
    """Folder of ``train-*.parquet`` and ``test-*.parquet`` with the columns ``img`` and ``label``."""
    train_per_class: Annotated[int, Ge(0)] = 5000
    """Training rows of each class."""
    test_per_class: Annotated[int, Ge(0)] = 1000
    """Test rows of each class."""

    def load(self) -> Data:
        """Return the rows, normalised by CIFAR-10's usual mean and standard deviation per channel."""
        halves = {"train": self.train_per_class, "test": self.test_per_class}
        rows = {half: _rows(Path(self.folder), half, count) for half, count in halves.items()}
        return Data(
            train=rows["train"], test=rows["test"], label_names=NAMES, input_size=(3, 32, 32), mean=MEAN, std=STD
        )


def _rows(folder: Path, half: str, per_class: int) -> TensorRows:
    """Return as many rows of each class, the same ones every time."""
    from datasets import load_dataset

    found = load_dataset("parquet", data_files={half: str(folder / f"{half}-*.parquet")}, split=half)
    labels = np.asarray(found["label"])
    chosen = choose(labels, per_class, torch.Generator().manual_seed(0))
    images = np.stack([np.asarray(row["img"].convert("RGB")) for row in found.select(chosen)])
    return TensorRows(normalised(torch.from_numpy(images)), torch.from_numpy(labels[chosen]))


def normalised(images: Tensor) -> Tensor:
    """Return bytes (rows, height, width, channel) as normalised numbers (rows, channel, height, width)."""
    scaled = images.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
