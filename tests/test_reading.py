"""Reading ahead by worker processes changes no order, no random stream, no count and no error."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expunge import reading
from expunge.access import Access
from expunge.data import Data, split
from expunge.datasets.folder import Folder
from expunge.datasets.shapes import Shapes
from expunge.errors import DataError
from expunge.forgetting import Forgotten, run_method
from expunge.methods.unsir import Unsir
from expunge.network import rebuild
from expunge.reading import read
from expunge.request import Request
from expunge.rows import Indices
from expunge.runtime import open_runtime
from expunge.training import Training, fit, predict
from images import make_folder

CLASSES = ("cat", "dog", "ship")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("images")
    make_folder(folder, classes=CLASSES, per_class=30)
    return Folder(path=str(folder), size=8).load()


def network() -> nn.Module:
    """A network that draws random numbers of its own at every step."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def forget(data: Data, workers: int) -> Forgotten:
    runtime = open_runtime(device="cpu", workers=workers)
    model = network()
    parts = split(data, Request(classes=("dog",)))
    return run_method(Unsir(noise_steps=2), model, parts, runtime, rebuild(model))


def test_weights_and_logits_are_the_same_with_any_number_of_workers(data: Data) -> None:
    found = []
    for workers in (0, 1, 2):
        runtime = open_runtime(device="cpu", workers=workers)
        model = network()
        fit(model, data.train, runtime, Training(epochs=2, batch_size=7), stage="train")
        found.append((model.state_dict(), predict(model, data.test, runtime, batch_size=4)))
    for weights, (logits, labels) in found[1:]:
        assert all(torch.equal(value, weights[name]) for name, value in found[0][0].items())
        assert torch.equal(logits, found[0][1][0])
        assert torch.equal(labels, found[0][1][1])


def test_a_method_forgets_the_same_and_its_reads_are_counted_the_same(data: Data) -> None:
    here, ahead = forget(data, 0), forget(data, 2)
    assert ahead.access == here.access
    assert here.access["retain"].rows == 48
    assert here.access["retain"].reads == 48 * 4  # one pass of impair, three of repair
    assert all(torch.equal(value, ahead.model.state_dict()[name]) for name, value in here.model.state_dict().items())


def test_the_global_random_stream_is_left_alone(data: Data) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert len(list(read(data.train, [np.arange(3)], 1, torch.Generator()))) == 1
    assert torch.equal(torch.rand(4), expected)


def test_an_error_of_a_row_is_the_same_one_line(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=CLASSES, per_class=10)
    rows = Folder(path=str(tmp_path)).load().train
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(
            DataError, match=r"^expected an image in \S+cat/004\.png, got: cannot identify image file \S+$"
        ):
            list(read(rows, [np.array([3])], workers, torch.Generator()))


class _Lost:
    """Rows whose reader is killed, as by a machine that runs out of memory."""

    labels = np.zeros(4, dtype=np.int64)

    def __len__(self) -> int:
        return 4

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_lost_worker_is_told_in_one_line() -> None:
    with pytest.raises(
        DataError, match=r"expected 1 workers to read rows, got: DataLoader worker .*: give fewer --workers"
    ):
        list(read(_Lost(), [np.arange(2)], 1, torch.Generator()))


def test_a_single_batch_is_read_without_starting_a_process(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(reading, "DataLoader", refuse)
    runtime = open_runtime(device="cpu", workers=2)
    assert len(list(runtime.batches(data.test, 512))) == 1
    with pytest.raises(AssertionError, match="a process was started"):
        list(runtime.batches(data.test, 4))


def test_the_guard_counts_what_each_worker_reads() -> None:
    data = Shapes(classes=3, size=8, channels=1, train_rows=40).load()
    access = Access(split(data, Request(classes=(1,))), frozenset(["retain"]), nn.Identity, workers=2)
    rows = access["retain"]
    list(read(rows, [np.array([0, 1]), np.array([1, 2]), np.array([5])], 2, torch.Generator()))
    rows.batch(np.array([5, 6]))
    assert (access.counts()["retain"].rows, access.counts()["retain"].reads) == (5, 7)
