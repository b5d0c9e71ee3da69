"""Data sets made for tests, as files: noise of a colour that tells the class, and tables of numbers that do."""

import struct
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

SIZE = 12


def make_folder(folder: Path, *, classes: tuple[str, ...], per_class: int, seed: int = 0) -> None:
    """Write PNG files, those of a class in a folder of its name; heights and widths differ."""
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images(index, per_class, seed)):
            image.save(folder / name / f"{number:03}.png")


def images(index: int, count: int, seed: int = 0) -> list[Image.Image]:
    """Return images of a class; heights and widths differ."""
    chance = np.random.default_rng([seed, index])
    colour = 40 + np.eye(3)[index % 3] * 120
    shapes = [(SIZE + number % 3, SIZE + number % 5, 3) for number in range(count)]
    pixels = [np.clip(chance.integers(0, 90, shape) + colour, 0, 255).astype(np.uint8) for shape in shapes]
    return [Image.fromarray(one) for one in pixels]


def make_hub(*, per_class: int, seed: int = 0, image: str = "img") -> datasets.Dataset:
    """Return a data set as the hub has them: images of three classes in turn."""
    rows = [images(index, per_class, seed) for index in range(3)]
    mixed = [rows[index][number] for number in range(per_class) for index in range(3)]
    kinds = {image: datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "ship"])}
    return datasets.Dataset.from_dict({image: mixed, "label": [0, 1, 2] * per_class}, features=datasets.Features(kinds))


def make_mnist(folder: Path, *, name: str = "MNIST", per_class: int = 30) -> None:
    """Write ``NAME/raw`` as torchvision reads it: grey images of 28 x 28 pixels, ten classes in turn."""
    (folder / name / "raw").mkdir(parents=True)
    for half, count, seed in (("train", 10 * per_class, 0), ("t10k", 10 * per_class // 2, 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, values in (("images-idx3", pixels), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            head = struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape)
            (folder / name / "raw" / f"{half}-{kind}-ubyte").write_bytes(head + values.tobytes())


def make_arrays(*, rows: int, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes and class indices of three classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8)
    return pixels, np.arange(rows) % 3


def make_table(file: Path, *, rows: int = 300) -> None:
    """Write a CSV file of two columns of numbers, one of words and the label, a class of three."""
    chance = np.random.default_rng(0)
    kinds = np.arange(rows) % 3
    numbers = chance.normal(size=(rows, 2)) * (3, 0.01) + kinds[:, None] * (5, 0.02)
    words = np.array(["red", "green", "blue"])[chance.integers(0, 3, rows)]
    lines = [f"{a},{b},{word},class-{kind}" for (a, b), word, kind in zip(numbers, words, kinds, strict=True)]
    file.write_text("\n".join(["height,width,colour,kind", *lines]) + "\n")
