"""Image files made for tests: noise of a colour that tells the class."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 12


def make_folder(folder: Path, *, classes: tuple[str, ...], per_class: int, seed: int = 0) -> None:
    """Write PNG files, those of a class in a folder of its name; heights and widths differ."""
    chance = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        colour = 40 + np.eye(3)[index % 3] * 120
        for number in range(per_class):
            shape = (SIZE + number % 3, SIZE + number % 5, 3)
            pixels = np.clip(chance.integers(0, 90, shape) + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
