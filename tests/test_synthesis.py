"""Inputs made up from a model alone are taken for their classes, and a model forgets by them without any data."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from conftest import Toy
from expunge.errors import AccessError
from expunge.forgetting import run_method
from expunge.methods.dissolve_data_free import DissolveDataFree
from expunge.network import copy_of, rebuild
from expunge.runtime import open_runtime
from expunge.synthesis import mismatch, synthesise


def test_inputs_are_taken_for_their_classes(toy: Toy) -> None:
    labels = torch.tensor([0, 1, 2, 3]).repeat(4)
    start = torch.randn(len(labels), *toy.data.input_size, generator=torch.Generator().manual_seed(0))
    runtime = toy.runtime.fresh()
    made = synthesise(toy.model, start, labels, runtime, steps=20, lr=0.3, statistics=1.0)
    network = copy_of(toy.model).eval()
    with torch.no_grad():
        before, after = (functional.cross_entropy(network(images), labels) for images in (start, made))
    assert after < 0.2 * before
    assert runtime.cost.seconds["synthesis"] > 0


def test_no_step_gives_the_start_and_the_model_is_left_as_it_was(toy: Toy) -> None:
    start = torch.randn(4, *toy.data.input_size)
    before = copy_of(toy.model)
    made = synthesise(toy.model, start, torch.arange(4), toy.runtime.fresh(), steps=0, lr=0.3, statistics=1.0)
    assert torch.equal(made, start)
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in toy.model.state_dict().items())
    assert not any(module._forward_hooks for module in toy.model.modules())


def test_the_mismatch_is_the_squared_distance_of_mean_and_deviation_by_hand() -> None:
    norm = nn.BatchNorm1d(2, eps=0.0)
    norm.running_mean = torch.tensor([1.0, 0.0])
    norm.running_var = torch.tensor([4.0, 1.0])
    values = torch.tensor([[0.0, -1.0], [4.0, 1.0]])  # means 2 and 0, deviations 2 and 1
    assert mismatch(norm, values).item() == pytest.approx(((1 / 2) ** 2 + 0 + 0 + 0) / 2)


def test_what_batch_normalisation_remembers_pulls_the_inputs(toy: Toy) -> None:
    start = torch.randn(24, *toy.data.input_size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 4

    def distance(statistics: float) -> float:
        runtime = open_runtime(device="cpu")
        made = synthesise(toy.model, start, labels, runtime, steps=10, lr=0.3, statistics=statistics)
        seen: list[float] = []
        network = copy_of(toy.model).eval()
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in norms:
            module.register_forward_hook(lambda norm, inputs, _: seen.append(mismatch(norm, inputs[0]).item()))
        with torch.no_grad():
            network(made)
        assert len(seen) == len(norms) > 0
        return sum(seen)

    assert distance(3.0) < 0.7 * distance(0.0)


def test_a_class_is_forgotten_without_any_data(toy: Toy) -> None:
    parts = toy.split(2)
    made = run_method(DissolveDataFree(), toy.model, parts, toy.runtime, rebuild(toy.model))
    assert all(count.reads == 0 for count in made.access.values())
    assert toy.accuracy(made.model, parts, "forget_test") <= 0.05
    assert toy.accuracy(made.model, parts, "retain_test") >= toy.accuracy(toy.model, parts, "retain_test") - 0.1


def test_it_has_no_way_to_the_rows(toy: Toy) -> None:
    method = DissolveDataFree()
    with pytest.raises(AccessError):
        toy.access(toy.split(2), method.reads)["retain"]
