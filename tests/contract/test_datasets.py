"""What every data set must do; each file of ``expunge.datasets`` is taken in by its name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.checkpoint import load_model, save_model
from expunge.data import Data
from expunge.datasets import Dataset
from expunge.network import Network
from expunge.settings import build, names
from expunge.stages import load_whole
from images import make_arrays, make_folder, make_hub, make_mnist, make_table

DATASETS = names("datasets")
NUMBERS = "arrays of numbers"
Make = Callable[[str], Dataset]
Load = Callable[[str], Data]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a data set by its name; one of files has some made for it."""
    folder = tmp_path_factory.mktemp("data")
    make_folder(folder / "images", classes=("cat", "dog", "a ship"), per_class=120)
    make_hub(per_class=120).save_to_disk(str(folder / "hub"))
    make_mnist(folder)
    train, test = make_arrays(rows=300, shape=(8, 8, 3)), make_arrays(rows=90, shape=(8, 8, 3), seed=1)
    np.savez(folder / "arrays.npz", x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    np.savez(folder / "numbers.npz", x_train=train[0].astype(np.float64) / 100, y_train=train[1])
    make_table(folder / "table.csv", rows=400)
    settings: dict[str, dict[str, object]] = {
        "arrays": {"path": str(folder / "arrays.npz")},
        NUMBERS: {"name": "arrays", "path": str(folder / "numbers.npz")},
        "folder": {"path": str(folder / "images"), "size": 8},
        "huggingface": {"path": str(folder / "hub"), "size": 8},
        "table": {"path": str(folder / "table.csv"), "label": "kind"},
        "torchvision": {"root": str(folder), "which": "MNIST", "size": 28},
    }

    def make(name: str) -> Dataset:
        dataset: Dataset = build("datasets", {"name": name} | settings.get(name, {}))
        return dataset

    return make


@pytest.fixture(scope="module")
def load(make: Make) -> Load:
    """Load a data set by its name."""
    return lambda name: make(name).load()


@pytest.mark.parametrize("name", DATASETS)
def test_loads_the_same_rows_twice(load: Load, name: str) -> None:
    first, second = load(name), load(name)
    chosen = np.array([0, 3, len(first.train) - 1])
    for left, right in ((first.train, second.train), (first.test, second.test)):
        assert np.array_equal(left.labels, right.labels)
        indices = chosen % len(left)
        assert torch.equal(left.batch(indices)[0], right.batch(indices)[0])


@pytest.mark.parametrize("name", DATASETS)
def test_rows_have_the_shape_and_labels_that_the_data_say(load: Load, name: str) -> None:
    data = load(name)
    for rows in (data.train, data.test):
        inputs, labels = rows.batch(np.arange(16))
        assert inputs.shape == (16, *data.input_size)
        assert inputs.dtype == torch.float32
        assert np.array_equal(labels.numpy(), rows.labels[:16])
        assert set(np.unique(rows.labels)) == set(range(len(data.label_names)))


@pytest.mark.parametrize("name", DATASETS)
def test_inputs_are_near_unit_scale(load: Load, name: str) -> None:
    inputs, _ = load(name).train.batch(np.arange(256))
    assert abs(inputs.mean().item()) < 0.5
    assert 0.7 < inputs.std().item() < 1.4


@pytest.mark.parametrize("name", DATASETS)
def test_no_row_is_in_both_halves(load: Load, name: str) -> None:
    data = load(name)
    train, test = (rows.batch(np.arange(len(rows)))[0].flatten(1) for rows in (data.train, data.test))
    assert not {row.numpy().tobytes() for row in train} & {row.numpy().tobytes() for row in test}


@pytest.mark.parametrize("name", DATASETS)
def test_a_batch_is_its_rows_one_by_one(load: Load, name: str) -> None:
    data = load(name)
    indices = np.array([5, 2, 9])
    together, _ = data.train.batch(indices)
    apart = torch.cat([data.train.batch(np.array([index]))[0] for index in indices])
    assert torch.equal(together, apart)


@pytest.mark.parametrize("name", [*DATASETS, NUMBERS])
def test_a_model_is_later_given_the_inputs_that_it_was_trained_on(make: Make, name: str, tmp_path: Path) -> None:
    data = make(name).load()
    save_model(Network(name="mlp").build(data), tmp_path / "model", data, {})
    later = load_whole(load_model(tmp_path / "model"), make(name))
    chosen = np.arange(16)
    assert torch.equal(later.train.batch(chosen)[0], data.train.batch(chosen)[0])
