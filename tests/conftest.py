"""A toy world that every test can afford: four classes of small shapes and a network that knows them."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from expunge.access import Access
from expunge.data import Data, Part, Split, split
from expunge.datasets.shapes import Shapes
from expunge.network import Network, rebuild
from expunge.request import Request
from expunge.runtime import Runtime, open_runtime
from expunge.training import Training, fit, predict

warnings.filterwarnings("ignore", category=DeprecationWarning)
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start: two workers on two cores

TRAINING = Training(epochs=15, batch_size=32)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own, also for the processes that they start."""
    os.environ["EXPUNGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return Path(os.environ["EXPUNGE_CACHE"])


@dataclass(frozen=True)
class Toy:
    """Data, a network trained on them, and where it ran."""

    data: Data
    model: nn.Module
    runtime: Runtime

    def split(self, *classes: int) -> Split:
        return split(self.data, Request(classes=classes))

    def access(self, parts: Split, reads: frozenset[Part]) -> Access:
        return Access(parts, reads, rebuild(self.model))

    def accuracy(self, model: nn.Module, parts: Split, part: Part) -> float:
        logits, labels = predict(model, parts[part], self.runtime)
        return (logits.argmax(1) == labels).double().mean().item()


def make_toy(network: Network, seed: int = 0, train_rows: int = 320, test_rows: int = 160) -> Toy:
    shapes = Shapes(classes=4, size=8, channels=1, train_rows=train_rows, test_rows=test_rows, noise=0.3)
    data = shapes.load()
    runtime = open_runtime(device="cpu", seed=seed)
    with runtime.seeded("train/init"):
        model = network.build(data)
    fit(model, data.train, runtime, TRAINING, stage="train")
    return Toy(data, model, runtime.fresh())


@pytest.fixture(scope="session")
def toy() -> Toy:
    return make_toy(Network(name="small_cnn", args={"width": 8}))
