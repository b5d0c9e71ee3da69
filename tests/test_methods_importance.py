"""Methods that change weights by their importance: ssd, lfssd and fisher, against loops over single rows."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from conftest import Toy
from expunge.data import split
from expunge.errors import SettingsError
from expunge.methods import _importance, ssd
from expunge.methods._importance import Importance, Losses, Size, batch_importance, row_importance
from expunge.methods.fisher import Fisher, expected
from expunge.methods.lfssd import Lfssd, squared_lengths
from expunge.methods.ssd import Ssd, cross_entropies, dampen_weights
from expunge.request import Request
from expunge.rows import Rows, TakenRows

LossOfRow = Callable[[Tensor, Tensor], list[tuple[Tensor, float]]]
"""From logits (1, classes) and labels (1,) of one row to losses, each with the weight of its squared gradient."""


def by_loop(model: nn.Module, rows: Rows, losses: LossOfRow) -> dict[str, Tensor]:
    """Return the mean squared gradients by one backward pass after the other."""
    network = copy.deepcopy(model).eval()
    sums = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    for index in range(len(rows)):
        inputs, labels = rows.batch(np.array([index]))
        for loss, weight in losses(network(inputs), labels):
            network.zero_grad()
            torch.autograd.backward(loss, retain_graph=True)
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                sums[name] += weight * parameter.grad.square()
    return {name: value / len(rows) for name, value in sums.items()}


def over_labels(logits: Tensor, labels: Tensor) -> list[tuple[Tensor, float]]:
    """Return the cross-entropy with every class, weighted by its probability."""
    shares = logits.softmax(dim=1)[0].tolist()
    return [(functional.cross_entropy(logits, torch.tensor([index])), share) for index, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("losses", "oracle", "count"),
    [
        (cross_entropies, lambda logits, labels: [(functional.cross_entropy(logits, labels), 1.0)], 1),
        (squared_lengths, lambda logits, labels: [(logits.norm() ** 2, 1.0)], 1),
        (expected, over_labels, 4),
    ],
)
def test_importance_is_that_of_a_loop_over_rows(toy: Toy, losses: Losses, oracle: LossOfRow, count: int) -> None:
    rows = TakenRows(toy.data.train, np.arange(0, 320, 4)[:70])  # more than one batch
    found = row_importance(toy.model, rows, toy.runtime.fresh(), losses, stage="importance", count=count)
    wanted = by_loop(toy.model, rows, oracle)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-6 * float(wanted[name].max()), msg=name)
        assert value.max() > 0


def test_importance_of_batches_squares_their_mean_gradient(toy: Toy) -> None:
    rows = TakenRows(toy.data.train, np.arange(24))
    runtime = toy.runtime.fresh()
    found = batch_importance(toy.model, rows, runtime, cross_entropies, stage="importance", batch_size=24)
    network = copy.deepcopy(toy.model).eval()
    inputs, labels = rows.batch(np.arange(24))
    torch.autograd.backward(functional.cross_entropy(network(inputs), labels))
    for name, weight in network.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(found[name], weight.grad.square(), rtol=1e-3, atol=1e-9)


def test_frozen_weights_have_no_importance(toy: Toy) -> None:
    model = copy.deepcopy(toy.model)
    next(model.parameters()).requires_grad_(False)
    rows = TakenRows(toy.data.train, np.arange(4))
    found = row_importance(model, rows, toy.runtime.fresh(), cross_entropies, stage="importance")
    assert set(found) == {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_dampening_by_hand() -> None:
    model = nn.Linear(5, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]))
    to_all = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    to_forget = torch.tensor([[2.0, 2.5, 10.0, 1.0, 0.0]])
    to_retained = {"weight": to_all}  # the same here, that the numbers are easy
    dampen_weights(model, to_retained, {"weight": to_all}, {"weight": to_forget}, alpha=2.0, dampening=1.0)
    # at the threshold a weight stays; above it, it is divided by the ratio; one that nothing depends on stays
    torch.testing.assert_close(model.weight, torch.tensor([[1.0, 2.0 / 2.5, 0.3, 0.0, 5.0]]))
    dampen_weights(model, to_retained, {"weight": to_all}, {"weight": to_forget}, alpha=2.0, dampening=5.0)
    torch.testing.assert_close(model.weight, torch.tensor([[1.0, 2.0 / 2.5, 0.15, 0.0, 5.0]]))
    to_retained = {"weight": torch.tensor([[0.9, 1.25, 5.1, 0.0, 0.0]])}  # selects the first and the fourth
    dampen_weights(model, to_retained, {"weight": to_all}, {"weight": to_forget}, alpha=2.0, dampening=1.0)
    torch.testing.assert_close(model.weight, torch.tensor([[0.5, 2.0 / 2.5, 0.15, 0.0, 5.0]]))


@pytest.mark.parametrize("against", ["retained", "all"])
@pytest.mark.parametrize(
    ("method", "losses", "size"), [(Ssd, cross_entropies, torch.square), (Lfssd, squared_lengths, torch.abs)]
)
def test_only_weights_above_the_threshold_change(
    toy: Toy, method: Any, losses: Losses, size: Size, against: str
) -> None:
    parts, chosen = toy.split(1), method(alpha=2.0, fisher="rows", against=against)
    new = chosen(toy.model, toy.access(parts, chosen.reads), toy.runtime.fresh())
    own, retained, every = (
        row_importance(toy.model, rows, toy.runtime.fresh(), losses, stage="by itself", size=size)
        for rows in (parts["forget"], parts["retain"], toy.data.train)
    )
    some = 0
    for name, weight in toy.model.named_parameters():
        ratio = own[name] / (every if against == "all" else retained)[name]
        changed = new.get_parameter(name) != weight
        assert changed[ratio > 2.001].all(), name
        assert not changed[~(ratio > 1.999)].any(), name
        dampened = weight * every[name] / own[name]
        torch.testing.assert_close(new.get_parameter(name)[changed], dampened[changed], rtol=1e-3, atol=1e-6)
        some += int(changed.sum())
    assert some > 0
    assert all(torch.equal(value, new.get_buffer(name)) for name, value in toy.model.named_buffers())


def test_the_importance_of_loss_free_dampening_is_absolute_and_not_squared(toy: Toy) -> None:
    rows = TakenRows(toy.data.train, np.arange(12))
    found = row_importance(toy.model, rows, toy.runtime.fresh(), squared_lengths, stage="rows", size=torch.abs)
    network = copy.deepcopy(toy.model).eval()
    sums = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    for index in range(12):
        network.zero_grad()
        torch.autograd.backward(network(rows.batch(np.array([index]))[0]).square().sum())
        for name, weight in network.named_parameters():
            assert weight.grad is not None
            sums[name] += weight.grad.abs() / 12
    for name, value in found.items():
        torch.testing.assert_close(value, sums[name], rtol=1e-3, atol=1e-6 * float(sums[name].max()), msg=name)


def test_batches_are_of_one_class_where_classes_are_forgotten_and_drawn_where_rows_are(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Rows] = []

    def watched(model: nn.Module, rows: Rows, *others: Any, **named: Any) -> Importance:
        seen.append(rows)
        return batch_importance(model, rows, *others, **named)

    monkeypatch.setattr(ssd, "batch_importance", watched)
    for request in (Request(classes=(1,)), Request(rows=tuple(range(0, 320, 2)))):
        method, parts = Ssd(), split(toy.data, request)
        method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    retained, forgotten, drawn, _ = (rows.labels for rows in seen)
    assert (np.diff(retained) >= 0).all()
    assert set(retained) == {0, 2, 3}
    assert set(forgotten) == {1}
    assert (np.diff(drawn) < 0).sum() > 20


def test_the_defaults_dampen_whatever_the_share_of_the_rows(toy: Toy) -> None:
    for request in (Request(classes=(1,)), Request(classes=(0, 3)), Request(classes=(0, 1, 3))):
        for method in (Ssd(), Lfssd()):
            new = method(toy.model, toy.access(split(toy.data, request), method.reads), toy.runtime.fresh())
            changed = [(new.get_parameter(name) != weight).sum() for name, weight in toy.model.named_parameters()]
            assert 0 < sum(changed) < 0.7 * sum(weight.numel() for weight in toy.model.parameters())


class Choosing(nn.Module):
    """A network that torch.func.vmap does not take: what it does depends on what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([self.layer(row * (2.0 if row.mean() > 0 else 0.5)) for row in inputs.flatten(1)])


@pytest.mark.parametrize(
    ("losses", "oracle", "count"),
    [
        (cross_entropies, lambda logits, labels: [(functional.cross_entropy(logits, labels), 1.0)], 1),
        (expected, over_labels, 4),
    ],
)
def test_a_network_that_cannot_be_taken_together_is_gone_through_row_by_row_and_this_is_told(
    toy: Toy, losses: Losses, oracle: LossOfRow, count: int
) -> None:
    told: list[str] = []
    runtime = replace(toy.runtime.fresh(), tell=told.append)
    model, rows = Choosing(), TakenRows(toy.data.train, np.arange(70))
    found = row_importance(model, rows, runtime, losses, stage="importance", count=count)
    for name, value in by_loop(model, rows, oracle).items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-7, msg=name)
    assert len(told) == 1
    assert told == runtime.cost.events
    assert told[0].startswith(
        "gradients are taken row by row, which is slow: torch.func.vmap does not take the network"
    )
    row_importance(toy.model, rows, runtime, losses, stage="importance", count=count)
    assert len(told) == 1


@pytest.mark.parametrize("held", [1, 3, 10, 25])
@pytest.mark.parametrize("together", [True, False])
def test_no_more_gradients_are_held_at_a_time_than_are_promised(
    toy: Toy, held: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)) if together else Choosing()
    classes, weight = (10, 640) if together else (4, 260)
    rows, seen = TakenRows(toy.data.train, np.arange(7)), list[Tensor]()

    def watched(gradients: Tensor) -> Tensor:
        seen.append(gradients)
        return gradients.square()

    whole = row_importance(model, rows, toy.runtime.fresh(), expected, stage="whole", count=classes)
    monkeypatch.setattr(_importance, "NUMBERS", held * weight + weight // 2)
    runtime = toy.runtime.fresh()
    found = row_importance(model, rows, runtime, expected, stage="parts", count=classes, size=watched)
    for name, value in found.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-9)
    assert max(gradients.numel() for gradients in seen) <= held * weight
    if together:
        assert sum(gradients.numel() for gradients in seen) == 7 * classes * weight
    assert not together or not runtime.cost.events


def test_a_network_at_fault_is_not_taken_for_one_that_cannot_be_taken_together(toy: Toy) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        row_importance(
            nn.Linear(3, 4), TakenRows(toy.data.train, np.arange(4)), toy.runtime, cross_entropies, stage="x"
        )


@pytest.mark.parametrize("fisher", ["rows", "batches"])
@pytest.mark.parametrize("method", [Ssd, Lfssd])
def test_no_weight_is_more_important_to_some_rows_than_to_all_by_more_than_their_share(
    toy: Toy, method: Any, fisher: str
) -> None:
    parts = toy.split(1)
    share = len(toy.data.train) / len(parts["forget"])
    own = row_importance(toy.model, parts["forget"], toy.runtime.fresh(), cross_entropies, stage="forget")
    every = row_importance(toy.model, toy.data.train, toy.runtime.fresh(), cross_entropies, stage="all")
    assert max(float((own[name] / every[name].clamp_min(1e-30)).max()) for name in own) <= share * 1.001
    refused = method(alpha=share, fisher=fisher, against="all")
    with pytest.raises(SettingsError, match=r"expected alpha below 4, .* got 4: no weight"):
        refused(toy.model, toy.access(parts, refused.reads), toy.runtime.fresh())
    for taken in (method(alpha=1.5, fisher=fisher, against="all"), method(alpha=1.5, fisher=fisher)):
        new = taken(toy.model, toy.access(parts, taken.reads), toy.runtime.fresh())
        assert any((new.get_parameter(name) != weight).any() for name, weight in toy.model.named_parameters())


def test_loss_free_importance_needs_no_label(toy: Toy) -> None:
    logits = torch.tensor([1.0, -2.0, 2.0])
    assert squared_lengths(logits, torch.tensor(0)) == squared_lengths(logits, torch.tensor(2)) == 9.0


def test_variance_of_the_noise_by_hand() -> None:
    method = Fisher(alpha=0.01, cap=100.0, head_cap=10.0)
    information = torch.tensor([[1.0, 0.5], [0.001, 0.2]])
    # over the inputs of each output: (1 + 2) / 2, and (100 + 5) / 2 with the cap
    body = torch.tensor([[0.015, 0.015], [0.525, 0.525]])
    torch.testing.assert_close(method.variance(information, in_head=False), body)
    head = torch.tensor([[0.15, 0.15], [0.75, 0.75]])  # (10 + 5) / 2 with the head's cap, ten times
    torch.testing.assert_close(method.variance(information, in_head=True), head)
    torch.testing.assert_close(method.variance(information[0], in_head=False), torch.tensor([0.1, 0.2]))


def test_noise_has_the_variance_of_the_formula(toy: Toy) -> None:
    parts = split(toy.data, Request(rows=(1, 2, 3)))
    method = Fisher(alpha=1e-4)
    information = row_importance(toy.model, parts["retain"], toy.runtime.fresh(), expected, stage="by hand", count=4)
    scaled = []
    for seed in range(12):
        new = method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh(seed=seed))
        for name, weight in toy.model.named_parameters():
            variance = method.variance(information[name], in_head=name.startswith(("head", "fc", "classifier")))
            scaled.append(((new.get_parameter(name) - weight) / variance.sqrt()).flatten().detach())
    noise = torch.cat(scaled)
    assert noise.mean().abs() < 4 / len(noise) ** 0.5
    assert noise.var().item() == pytest.approx(1, abs=4 * (2 / len(noise)) ** 0.5)
    first, second = noise.chunk(12)[:2]
    assert not torch.equal(first, second)


def test_fisher_puts_the_head_of_a_forgotten_class_to_zero_and_can_leave_it(toy: Toy) -> None:
    parts = toy.split(1)
    for forget_head in (True, False):
        method = Fisher(alpha=1e-12, forget_head=forget_head)
        new = method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
        name = next(name for name, weight in toy.model.named_parameters() if weight.shape[0] == 4 and weight.ndim == 2)
        before, after = toy.model.get_parameter(name), new.get_parameter(name)
        torch.testing.assert_close(after[[0, 2, 3]], before[[0, 2, 3]], rtol=0, atol=1e-3)
        assert (after[1].abs().mean() < 0.1) == forget_head
        assert before[1].abs().mean() > 0.1
