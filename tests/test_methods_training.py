"""Methods that train: what each shows the network, and which weights it moves."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from conftest import Toy
from expunge.data import split
from expunge.errors import DivergedError, ModelError
from expunge.methods import (
    catastrophic_forgetting_k,
    gradient_ascent,
    neggrad_plus,
    random_labels,
    successive_random_labels,
)
from expunge.methods.catastrophic_forgetting_k import CatastrophicForgettingK, first_layers
from expunge.methods.exact_unlearning_k import ExactUnlearningK
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.neggrad_plus import NeggradPlus, repeated
from expunge.methods.random_labels import RandomLabels
from expunge.methods.successive_random_labels import SuccessiveRandomLabels
from expunge.request import Request
from expunge.rows import Rows, TensorRows
from expunge.training import Training, predict

SHORT = Training(epochs=2, batch_size=64)


def shown(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[Rows]:
    """Return the rows of every training of a method, in the order in which they will come."""
    found: list[Rows] = []
    real = module.fit

    def fit(model: nn.Module, rows: Rows, *others: Any, **named: Any) -> None:
        found.append(rows)
        real(model, rows, *others, **named)

    monkeypatch.setattr(module, "fit", fit)
    return found


def loss_of(model: nn.Module, rows: Rows, toy: Toy) -> float:
    return functional.cross_entropy(*predict(model, rows, toy.runtime)).item()


def test_gradient_ascent_goes_up_the_loss_by_the_gradient(toy: Toy) -> None:
    parts = split(toy.data, Request(rows=(3, 40, 77)))
    method = GradientAscent(epochs=1, lr=0.01, weight_decay=0.0)
    linear = nn.Linear(64, 4)
    model = nn.Sequential(nn.Flatten(), linear)
    new = method(model, toy.access(parts, method.reads), toy.runtime.fresh())
    inputs, labels = parts["forget"].batch(np.arange(3))
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(inputs), labels), [linear.weight])
    # the first step with Nesterov momentum of 0.9 goes 1.9 times as far as the rate says
    torch.testing.assert_close(new.get_parameter("1.weight"), linear.weight + 0.01 * 1.9 * gradient)
    assert loss_of(new, parts["forget"], toy) > loss_of(model, parts["forget"], toy)
    assert gradient_ascent.less_cross_entropy(model(inputs), labels, inputs) < 0


def test_a_loss_that_runs_down_without_end_is_taken_for_one_that_diverged(toy: Toy) -> None:
    parts, method = toy.split(1), GradientAscent(batch_size=16, epochs=8, lr=1e3)
    with pytest.raises(DivergedError, match=r"expected a mean loss between -10000 and 10000 in ascent, got -\d"):
        method(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), toy.access(parts, method.reads), toy.runtime.fresh())


def test_neggrad_plus_weighs_the_mean_of_each_kind() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, 0.0]])
    labels = torch.tensor([0, 1, 2 + 0, 2 + 1])  # the last two are to be forgotten
    losses = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0)), np.log(2.0), np.log1p(np.exp(3.0))]
    wanted = 0.7 * (losses[0] + losses[1]) / 2 - 0.3 * (losses[2] + losses[3]) / 2
    method = NeggradPlus(weight=0.7)
    assert method.contrast(logits, labels, logits).item() == pytest.approx(wanted, rel=1e-6)
    kept = method.contrast(logits[:2], labels[:2], logits[:2]).item()  # a batch may have none to forget
    gone = method.contrast(logits[2:], labels[2:], logits[2:]).item()
    assert kept / 2 + gone / 2 == pytest.approx(wanted, rel=1e-6)  # as two processes would share the batch out


def test_neggrad_plus_shows_as_many_rows_to_forget_as_to_retain(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = shown(monkeypatch, neggrad_plus)
    parts = toy.split(1)
    method = NeggradPlus(epochs=1)
    method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    marked = rows[0].labels >= 4
    assert marked.sum() == (~marked).sum() == len(parts["retain"])
    assert set(rows[0].labels[marked]) == {4 + 1}
    assert set(rows[0].labels[~marked]) == {0, 2, 3}


def test_repeated_rows_come_up_equally_often(toy: Toy) -> None:
    rows = TensorRows(torch.arange(5.0), torch.arange(5))
    counts = np.bincount(repeated(rows, 13, torch.Generator().manual_seed(0)).labels)
    assert sorted(counts) == [2, 2, 3, 3, 3]


@pytest.mark.parametrize("request_", [Request(classes=(1,)), Request(classes=(0, 3)), Request(rows=tuple(range(90)))])
def test_no_forgotten_row_is_shown_under_its_label(
    toy: Toy, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split(toy.data, request_)
    once, anew = shown(monkeypatch, random_labels), shown(monkeypatch, successive_random_labels)
    for method in (RandomLabels(epochs=2), SuccessiveRandomLabels(epochs=2)):
        method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    kept, own = len(parts["retain"]), parts["forget"].labels
    allowed = set(range(4)) - set(request_.classes)
    for rows in (*once, *anew):
        np.testing.assert_array_equal(rows.labels[:kept], parts["retain"].labels)
        assert (rows.labels[kept:] != own).all()
        assert set(rows.labels[kept:]) == allowed
        inputs, labels = rows.batch(np.array([kept]))  # what is shown is what the labels say
        assert labels.item() == rows.labels[kept]
        torch.testing.assert_close(inputs, parts["forget"].batch(np.array([0]))[0])
    assert (len(once), len(anew)) == (1, 2)
    assert (anew[0].labels[kept:] != anew[1].labels[kept:]).any()


def test_wrong_labels_of_rows_are_equally_likely(toy: Toy) -> None:
    parts = split(toy.data, Request(rows=tuple(range(300))))
    access = toy.access(parts, frozenset({"forget"}))
    generator = torch.Generator().manual_seed(0)
    drawn = np.concatenate([random_labels.other_labels(access, generator) for _ in range(40)])
    own = np.tile(parts["forget"].labels, 40)
    for index in range(4):
        shares = np.bincount(drawn[own == index], minlength=4) / (own == index).sum()
        np.testing.assert_allclose(shares, np.where(np.arange(4) == index, 0, 1 / 3), atol=0.03)


@pytest.mark.parametrize("method", [CatastrophicForgettingK, ExactUnlearningK])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_layers_before_the_last_k_are_bit_equal(toy: Toy, method: Any, k: int) -> None:
    chosen = method(k=k, training=SHORT)
    new = chosen(toy.model, toy.access(toy.split(1), chosen.reads), toy.runtime.fresh())
    before, after = toy.model.state_dict(), new.state_dict()
    # small_cnn: trunk.0, trunk.1, trunk.2 and the head, each trunk a convolution with batch normalisation
    first = [name for name in before if any(name.startswith(f"trunk.{index}.") for index in range(4 - k))]
    assert len(first) == (4 - k) * len([name for name in before if name.startswith("trunk.0.")])
    for name in before:
        assert torch.equal(before[name], after[name]) == (name in first), name
    assert all(weight.requires_grad for weight in new.parameters())


class Scaled(nn.Module):
    """A network and a block in it that have weights and buffers of their own, before those of the layers inside."""

    def __init__(self) -> None:
        super().__init__()
        self.shift: Tensor
        self.register_buffer("shift", torch.full((1,), 0.1))
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.block = Block()
        self.head = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(self.stem(images - self.shift)).mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.layers = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.scale)

    def forward(self, images: Tensor) -> Tensor:
        shown: Tensor = self.scale * self.layers(images)
        return shown


@pytest.mark.parametrize("method", [CatastrophicForgettingK, ExactUnlearningK])
def test_the_last_layers_train_in_training_mode_whatever_is_around_them(toy: Toy, method: Any) -> None:
    model, chosen = Scaled(), method(k=3, training=SHORT)
    world = Toy(toy.data, model, toy.runtime)
    new = chosen(model, world.access(toy.split(1), chosen.reads), toy.runtime.fresh())
    before, after = model.state_dict(), new.state_dict()
    for name in before:  # from the second convolution on, all is trained; its block's own weight stands before it
        kept = name in ("shift", "block.scale") or name.startswith("stem.")
        assert torch.equal(before[name], after[name]) == kept, name
    assert after["block.layers.1.num_batches_tracked"] == 2 * -(-240 // 64)
    assert after["stem.1.num_batches_tracked"] == 0


def test_weights_that_came_frozen_are_given_back_frozen(toy: Toy) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    model[1].weight.requires_grad_(False)
    method = CatastrophicForgettingK(k=1, training=SHORT)
    new = method(model, Toy(toy.data, model, toy.runtime).access(toy.split(1), method.reads), toy.runtime.fresh())
    assert [weight.requires_grad for weight in new.parameters()] == [False, True, True, True, True, True]


def test_exact_unlearning_starts_the_last_layers_anew(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, torch.Tensor]] = []

    def fit(model: nn.Module, *others: Any, **named: Any) -> None:
        started.append({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(catastrophic_forgetting_k, "fit", fit)
    method, parts = ExactUnlearningK(k=2), toy.split(1)
    method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    with toy.runtime.seeded("exact_unlearning_k/init"):
        fresh = toy.access(parts, method.reads).build()
    for name, value in started[0].items():
        source = fresh if name.startswith(("trunk.2", "head", "fc", "classifier")) else toy.model
        assert torch.equal(value, source.state_dict()[name]), name
    tuned = CatastrophicForgettingK(k=2)
    tuned(toy.model, toy.access(parts, tuned.reads), toy.runtime.fresh())
    for name, value in started[1].items():
        assert torch.equal(value, toy.model.state_dict()[name]), name


def test_batch_normalisation_among_the_last_layers_goes_with_them() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 4))
    assert first_layers(model, 1) == list(model[:4])
    assert first_layers(model, 2) == list(model[:2])
    with pytest.raises(ModelError, match="expected a network of more than 3 layers, got 3"):
        first_layers(model, 3)
