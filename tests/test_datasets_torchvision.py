"""torchvision's data sets: what is read, and that exactly those that it unpickles are refused."""

import ast
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from expunge.datasets.torchvision import PICKLED, SOURCES, Torchvision
from expunge.errors import DataError
from images import make_folder, make_mnist

LEGACY = {"EMNIST", "FashionMNIST", "KMNIST", "MNIST", "QMNIST"}
"""Unpickle nothing but files that a torchvision of years ago has left."""


def unpickles(name: str) -> bool:
    """Return whether the file of one of torchvision's data sets calls pickle or torch.load."""
    module = sys.modules[getattr(torchvision.datasets, name).__module__]
    calls = [
        ast.unparse(node.func) for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)
    ]
    return any(call in {"pickle.load", "pickle.loads", "torch.load"} for call in calls)


def test_exactly_the_sets_that_are_unpickled_are_refused() -> None:
    classes = {name for name in torchvision.datasets.__all__ if isinstance(getattr(torchvision.datasets, name), type)}
    assert {name for name in classes if unpickles(name)} - LEGACY == set(PICKLED)
    assert not set(SOURCES) & set(PICKLED)
    for name in PICKLED:
        with pytest.raises(DataError, match=f"expected a data set without pickles, got {name}: "):
            Torchvision(which=name).load()


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_takes_the_arguments_that_it_is_given(name: str) -> None:
    source, parameters = SOURCES[name], inspect.signature(getattr(torchvision.datasets, name)).parameters
    given = {half[0] for half in (source.train, source.test) if half}
    assert given | {"root", "download"} <= set(parameters)
    module = inspect.getsource(sys.modules[getattr(torchvision.datasets, name).__module__])
    for attribute in filter(None, (source.labels, source.names)):
        assert f"{attribute}" in module or issubclass(
            getattr(torchvision.datasets, name), torchvision.datasets.ImageFolder
        )


def test_grey_images_have_their_pixels_and_names(tmp_path: Path) -> None:
    make_mnist(tmp_path, name="FashionMNIST")
    data = Torchvision(which="FashionMNIST", root=str(tmp_path), size=28, channels=1).load()
    assert data.label_names[:2] == ("T-shirt/top", "Trouser")
    assert (len(data.train), len(data.test)) == (300, 150)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 28, 28), dtype=np.uint8)
    found, labels = data.train.batch(np.array([13]))
    assert labels.tolist() == [3]
    assert torch.equal(found[0, 0], (torch.from_numpy(pixels[13]).float() / 255 - 0.5) / 0.25)


def test_files_without_names_are_read_too(tmp_path: Path) -> None:
    training, testing = (
        tmp_path / "gtsrb" / "GTSRB" / "Training",
        tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images",
    )
    for label in range(2):
        (training / f"{label:05}").mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (9, 7), (80 * label, number, 0)).save(training / f"{label:05}" / f"{number}.ppm")
    testing.mkdir(parents=True)
    Image.new("RGB", (9, 7), (255, 0, 0)).save(testing / "00000.ppm")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\n00000.ppm;1\n")
    data = Torchvision(which="GTSRB", root=str(tmp_path), size=4, mean=(0.0,), std=(1.0,)).load()
    assert (data.label_names, data.train.labels.tolist()) == (("0", "1"), [0, 0, 0, 1, 1, 1])
    assert data.test.batch(np.array([0]))[0][0, :, 0, 0].tolist() == [1, 0, 0]


def test_a_set_in_one_piece_has_one_row_in_five_held_out(tmp_path: Path) -> None:
    make_folder(tmp_path / "eurosat" / "2750", classes=("Forest", "River"), per_class=10)
    data = Torchvision(which="EuroSAT", root=str(tmp_path), size=8).load()
    assert data.label_names == ("Forest", "River")
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert data.train.batch(np.arange(16))[1].tolist() == data.train.labels.tolist()


def test_nothing_is_downloaded_unasked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected MNIST of torchvision in .*download=true.*, got: Dataset not found"):
        Torchvision(which="MNIST", root=str(tmp_path)).load()
    assert not list(tmp_path.rglob("*.gz"))


def test_what_an_old_torchvision_pickled_is_refused(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    (tmp_path / "MNIST" / "processed").mkdir()
    (tmp_path / "MNIST" / "processed" / "training.pt").write_bytes(b"anything")
    with pytest.raises(DataError, match=r"without pickles, got .*training\.pt: remove it, raw/ has the same rows"):
        Torchvision(which="MNIST", root=str(tmp_path)).load()


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"got 'FashonMNIST' \(did you mean 'FashionMNIST'\?\): give dataset\.which"):
        Torchvision(which="FashonMNIST").load()
