"""Batches of one row: batch normalisation has no variance to go by, and training goes on all the same."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from conftest import TRAINING, Toy
from expunge.data import split
from expunge.errors import RequestError
from expunge.forgetting import run_method
from expunge.network import rebuild
from expunge.request import Request
from expunge.rows import TakenRows
from expunge.settings import build, names
from expunge.training import Training, fit


class Pooled(nn.Module):
    """Convolutions with batch normalisation over maps of 8 x 8, of one pixel, and over rows."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.narrow = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.narrow(self.wide(inputs)))
        return outputs


@pytest.fixture(scope="module")
def pooled(toy: Toy) -> Pooled:
    with toy.runtime.seeded("pooled"):
        model = Pooled()
    fit(model, toy.data.train, toy.runtime.fresh(), TRAINING, stage="train")
    return model


@pytest.mark.parametrize("name", names("methods"))
def test_a_single_row_can_be_forgotten_whatever_is_normalised_over_rows(toy: Toy, pooled: Pooled, name: str) -> None:
    parts, method = split(toy.data, Request(rows=(5,))), build("methods", {"name": name})
    try:
        new = run_method(method, pooled, parts, toy.runtime, rebuild(pooled)).model
    except RequestError as error:
        assert "expected a request of whole classes, got 1 single rows" in str(error)  # noqa: PT017
        return
    assert all(value.isfinite().all() for value in new.state_dict().values())


def test_one_row_is_normalised_by_running_statistics_where_it_has_no_variance(toy: Toy, pooled: Pooled) -> None:
    rows = TakenRows(toy.data.train, np.arange(5, 6))
    training = Training(epochs=1, batch_size=8, optimizer="sgd", lr=0.1, weight_decay=0.0, schedule="constant")
    trained, by_hand = copy.deepcopy(pooled), copy.deepcopy(pooled).train()
    fit(trained, rows, toy.runtime.fresh(), training, stage="one row")
    for norm in (by_hand.narrow[2], by_hand.head[1]):
        norm.eval()
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.1, momentum=0.9, nesterov=True)
    inputs, labels = rows.batch(np.zeros(1, dtype=np.int64))
    torch.autograd.backward(functional.cross_entropy(by_hand(inputs), labels))
    optimizer.step()
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(value, by_hand.state_dict()[name], rtol=1e-5, atol=1e-7, msg=name)
    moved = {name for name, value in trained.named_buffers() if not torch.equal(value, pooled.get_buffer(name))}
    assert moved == {f"wide.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert all(module.training for module in trained.modules())
    assert not any(module._forward_pre_hooks for module in trained.modules())


def test_what_is_asleep_stays_so_after_a_batch_of_one_row(toy: Toy, pooled: Pooled) -> None:
    rows, model = TakenRows(toy.data.train, np.arange(3)), copy.deepcopy(pooled)
    modes: list[bool] = []

    def watch() -> None:
        modes.extend(module.training for module in model.modules() if isinstance(module, nn.BatchNorm1d))

    training = Training(epochs=1, batch_size=1)  # one row, then two
    fit(model, rows, toy.runtime.fresh(), training, stage="a", asleep=[model.head[1]], after_step=watch)
    assert modes == [False, False]
    modes.clear()
    fit(model, rows, toy.runtime.fresh(), training, stage="b", after_step=watch)
    assert modes == [True, True]
