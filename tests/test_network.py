"""A network built again: in the model's precision, with what was never trained as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from conftest import Toy
from expunge.errors import ModelError
from expunge.forgetting import run_method
from expunge.methods.retrain import Retrain
from expunge.network import find_head, rebuild
from expunge.outputs import drop_outputs
from expunge.training import Training


def precisions(model: nn.Module) -> dict[str, torch.dtype]:
    return {name: value.dtype for name, value in model.state_dict().items()}


def mixed(model: nn.Module) -> nn.Module:
    """Return a model with weights in half precision, and normalisation and its memory in single, as many are kept."""
    for module in model.bfloat16().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    return model


def plain(model: nn.Module) -> nn.Module:
    """Return the same network as one that nobody knows how to build."""
    return nn.Sequential(model)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("change", [nn.Module.double, nn.Module.bfloat16, mixed])
def test_a_network_built_again_has_the_precision_of_the_model(
    toy: Toy, change: Callable[[nn.Module], nn.Module], known: bool
) -> None:
    model = change(copy.deepcopy(toy.model))
    model = model if known else plain(model)
    new = rebuild(model)()
    assert precisions(new) == precisions(model)
    assert len(set(precisions(model).values()) - {torch.int64}) == (2 if change is mixed else 1)
    assert all(weight.requires_grad and weight.is_leaf for weight in new.parameters())
    assert precisions(drop_outputs(model, (1,), 4)) == precisions(model)


def test_a_retrained_model_in_double_precision_is_in_double_precision(toy: Toy) -> None:
    model, parts = copy.deepcopy(toy.model).double(), toy.split(1)
    made = run_method(Retrain(training=Training(epochs=1)), model, parts, toy.runtime, rebuild(model))
    assert precisions(made.model) == precisions(model)
    assert toy.accuracy(made.model, parts, "retain") > 0


@pytest.mark.parametrize("known", [True, False])
def test_statistics_beside_frozen_weights_stay_and_others_start_afresh(toy: Toy, known: bool) -> None:
    model = copy.deepcopy(toy.model)
    model = model if known else plain(model)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    frozen, partly, *free = norms
    model.get_submodule(frozen).requires_grad_(False)
    model.get_parameter(f"{partly}.weight").requires_grad_(False)
    new = rebuild(model)()
    for name in (frozen, partly, *free):
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            same = torch.equal(new.get_buffer(f"{name}.{buffer}"), model.get_buffer(f"{name}.{buffer}"))
            assert same == (name == frozen), f"{name}.{buffer}"
    assert free


class TwoHeads(nn.Module):
    """As networks for distillation have them: the logits are the mean of both."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.head_dist = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = (self.head(inputs) + self.head_dist(inputs)) / 2
        return logits


def test_the_head_is_the_last_layer_as_wide_as_there_are_classes_and_one_alone() -> None:
    narrow = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4))
    assert find_head(narrow, 4) is narrow[2]
    bottleneck = nn.Sequential(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8)), nn.Linear(8, 4))
    assert find_head(bottleneck, 4) is bottleneck[1]
    with pytest.raises(ModelError, match=r"that gives the logits, got head and head_dist beside one another: choose"):
        find_head(TwoHeads(), 4)
