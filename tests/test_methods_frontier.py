"""Methods that read what is to be forgotten alone: delete, boundary_shrink, boundary_expand, jit and mu_mis."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Toy
from expunge.data import Request, split
from expunge.methods.delete import Delete, divergence
from expunge.network import batch_norms
from expunge.others import among_others

NESTEROV = 1.9
"""How many times as far as its rate says the first step of SGD with Nesterov momentum of 0.9 goes."""


def linear() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def run(method: Any, model: nn.Module, toy: Toy, request: Request, seed: int = 0) -> nn.Module:
    access = Toy(toy.data, model, toy.runtime).access(split(toy.data, request), method.reads)
    new: nn.Module = method(model, access, toy.runtime.fresh(seed=seed))
    return new


def test_other_classes_are_all_but_the_own_and_those_to_be_forgotten() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    hidden = -torch.inf
    wanted = torch.tensor([[hidden, 2.0, hidden, 4.0], [5.0, 6.0, hidden, hidden]])
    assert torch.equal(among_others(logits, torch.tensor([0, 3]), (2,)), wanted)
    wanted = torch.tensor([[hidden, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, hidden]])
    assert torch.equal(among_others(logits, torch.tensor([0, 3]), ()), wanted)


def test_delete_has_no_loss_where_the_answer_is_the_originals_without_the_class() -> None:
    # the original gives 1 : 2 : 5 : 8, of which the second is the row's own: 1, 5 and 8 of 14 are left
    original = torch.tensor([[1.0, 2.0, 5.0, 8.0]]).log() + 3.0
    target = among_others(original, torch.tensor([1]), ()).softmax(dim=1)
    torch.testing.assert_close(target, torch.tensor([[1 / 14, 0.0, 5 / 14, 8 / 14]]))
    answer = torch.tensor([[1.0, 1e-30, 5.0, 8.0]]).log()
    assert divergence(answer, target).item() == pytest.approx(0, abs=1e-6)
    # kept as it was, the answer lacks 2 of 16: each share left is 16 / 14 times what it was
    assert divergence(original, target).item() == pytest.approx(np.log(16 / 14), rel=1e-5)
    both = divergence(torch.cat([original, answer]), torch.cat([target, target]))
    assert both.item() == pytest.approx(np.log(16 / 14) / 2, rel=1e-5)


@pytest.mark.parametrize("request_", [Request(classes=(1,)), Request(classes=(1, 2)), Request(rows=(3, 40, 77))])
def test_delete_goes_down_the_divergence_from_the_masked_original(toy: Toy, request_: Request) -> None:
    model, rate = linear(), 0.01
    rows = split(toy.data, request_)["forget"]
    new = run(Delete(epochs=1, batch_size=1000, lr=rate), model, toy, request_)
    inputs, labels = rows.batch(np.arange(len(rows)))
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    logits = model(inputs)
    loss = torch.zeros(())
    for row, own in zip(logits, labels.tolist(), strict=True):
        kept = [index for index in range(4) if index != own and index not in request_.classes]
        shares = row[kept].detach().exp() / row[kept].detach().exp().sum()
        loss = loss + (shares * (shares.log() - row.log_softmax(0)[kept])).sum() / len(rows)
    (gradient,) = torch.autograd.grad(loss, [layer.weight])
    torch.testing.assert_close(new.get_parameter("1.weight"), layer.weight - rate * NESTEROV * gradient)


def test_batch_normalisation_keeps_its_statistics_unless_told_otherwise(toy: Toy) -> None:
    for choice in ("still", "moving"):
        new = run(Delete(epochs=1, batch_norm=choice), toy.model, toy, Request(classes=(1,)))
        norms = zip(batch_norms(toy.model), batch_norms(new), strict=True)
        same = [
            torch.equal(before.get_buffer("running_mean"), after.get_buffer("running_mean")) for before, after in norms
        ]
        assert same == [choice == "still"] * 3
