"""Stacked training: the weights that one-after-another training gives, for every optimiser, with and without norms."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from conftest import Toy
from expunge.errors import DivergedError, ModelError, SettingsError
from expunge.network import Network, rebuild
from expunge.population import train_stacked
from expunge.rows import Rows, TakenRows, TensorRows
from expunge.runtime import Runtime, count_batches, open_runtime
from expunge.training import Training, fit, make_optimizer, make_schedule

SEEDS = [3, 11, 42]


def fresh(network: nn.Module, runtime: Runtime) -> nn.Module:
    with runtime.seeded("retrain/init"):
        return rebuild(network)().double()


def plainly(network: nn.Module, rows: Rows, runtime: Runtime, training: Training) -> dict[str, Tensor]:
    """Train one network in double precision throughout, with PyTorch alone."""
    model = fresh(network, runtime).train()
    optimizer = make_optimizer(model, training)
    schedule = make_schedule(optimizer, training, count_batches(len(rows), training.batch_size, training.epochs))
    stream = "retrain/order"
    for inputs, labels, _ in runtime.batches(rows, training.batch_size, epochs=training.epochs, stream=stream):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(inputs.double()), labels))
        optimizer.step()
        schedule.step()
    return model.state_dict()


@pytest.mark.parametrize(("name", "norms"), [("mlp", False), ("small_cnn", True)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_equals_training_one_after_another(
    toy: Toy, name: str, norms: bool, optimizer: Literal["sgd", "adam", "adamw"]
) -> None:
    runtime = open_runtime(device="cpu", precision="64-true")
    network = Network(name=name, args={"width": 4}).build(toy.data)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules()) is norms
    rows = TakenRows(toy.data.train, torch.arange(97).numpy())  # one row joins the last batch
    training = Training(epochs=2, batch_size=32, optimizer=optimizer, lr=0.01)
    stacked = train_stacked(rebuild(network), rows, runtime, training, SEEDS, at_once=2)
    for seed, state in zip(SEEDS, stacked, strict=True):
        own = runtime.fresh(seed=seed)
        fitted = fresh(network, own)
        fit(fitted, rows, own, training, stage="retrain")
        expected = plainly(network, rows, own, training)
        assert list(state) == list(expected)
        for key, value in state.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-11, msg=key)
            torch.testing.assert_close(value, fitted.state_dict()[key], rtol=1e-9, atol=1e-11, msg=key)
    assert not stacked[0]["head.weight"].equal(stacked[1]["head.weight"])


def test_frozen_weights_stay_as_they_are(toy: Toy) -> None:
    network = Network(name="mlp", args={"width": 4}).build(toy.data)
    network.get_parameter("head.weight").requires_grad_(False)
    states = train_stacked(rebuild(network), toy.data.train, toy.runtime, Training(epochs=1), SEEDS)
    for state in states:
        assert state["head.weight"].equal(network.get_parameter("head.weight"))
        assert not state["head.bias"].equal(network.get_parameter("head.bias"))


def test_a_network_that_diverges_is_named_by_its_seed(toy: Toy) -> None:
    network = Network(name="mlp", args={"width": 4}).build(toy.data)
    training = Training(epochs=1, optimizer="sgd", lr=1e30)
    with pytest.raises(DivergedError, match=r"with seeds \[3, 11, 42\]: lower the learning rate"):
        train_stacked(rebuild(network), toy.data.train, toy.runtime, training, SEEDS)


def test_a_scale_of_the_loss_is_refused(toy: Toy) -> None:
    runtime = open_runtime(device="cpu")
    object.__setattr__(runtime, "precision", "16-mixed")
    with pytest.raises(SettingsError, match="got '16-mixed': use bf16-mixed"):
        train_stacked(rebuild(toy.model), toy.data.train, runtime, Training(), SEEDS)


class Dropping(nn.Sequential):
    """Draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 4))


class Branching(nn.Sequential):
    """Goes a way that depends on what it computes."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return logits if logits.sum() > 0 else -logits


class Averaging(nn.Sequential):
    """Its norms count in Python."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.BatchNorm1d(64, momentum=None), nn.Linear(64, 4))


@pytest.mark.parametrize("network", [Dropping(), Branching(), Averaging()], ids=lambda one: type(one).__name__)
def test_a_network_that_cannot_be_stacked_is_told_in_one_line_with_the_way_out(toy: Toy, network: nn.Module) -> None:
    with pytest.raises(ModelError) as raised:
        train_stacked(rebuild(network), toy.data.train, toy.runtime, Training(epochs=1), SEEDS)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("expected a network that many of can be trained at once, got "
                              f"{type(network).__name__} (vmap: ")  # fmt: skip
    assert message.endswith("): train one after another, with stacked = 0")
    assert len(message) < 350


def test_dropout_that_drops_nothing_is_no_hindrance(toy: Toy) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(64, 4))
    assert len(train_stacked(rebuild(network), toy.data.train, toy.runtime, Training(epochs=1), SEEDS)) == 3


def test_no_seeds_make_no_networks_and_the_global_generator_is_left_alone(toy: Toy) -> None:
    before = torch.get_rng_state()
    assert train_stacked(rebuild(toy.model), toy.data.train, toy.runtime, Training(), []) == []
    train_stacked(rebuild(toy.model), toy.data.train, toy.runtime, Training(epochs=1), [1])
    assert torch.get_rng_state().equal(before)


def test_a_single_network_on_hand_made_rows_takes_the_step_of_the_book() -> None:
    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 2, bias=False)
            nn.init.zeros_(self.head.weight)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(inputs)  # type: ignore[no-any-return]

    rows = TensorRows(torch.ones(2, 1), torch.tensor([0, 0]))
    training = Training(epochs=1, batch_size=2, optimizer="sgd", lr=1.0, weight_decay=0.0, schedule="constant")
    state = train_stacked(Line, rows, open_runtime(device="cpu"), training, [0])[0]
    step = 1.9 * 0.5  # Nesterov's first step is 1 + 0.9 gradients, and each logit's is one half
    assert state["head.weight"].flatten().tolist() == pytest.approx([step, -step])
