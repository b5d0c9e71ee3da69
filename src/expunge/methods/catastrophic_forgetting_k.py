"""catastrophic_forgetting_k: train the last k layers on without what is to be forgotten; the others stay as they are.

Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine Unlearning",
https://arxiv.org/abs/2201.06640 (CF-k); code https://github.com/shash42/Evaluating-Inexact-Unlearning.

1. Freeze all layers but the last k, a layer being a convolution, a linear layer or any other module with a weight of
   two dimensions or more. What follows the first of the k, such as batch normalisation, is trained with them.
2. Train on the retained rows, as the original was trained.

Reads: retain.

Differences from the code: batch normalisation in frozen layers keeps its statistics, which the code lets move, and
normalises by them.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from dataclasses import field
from typing import ClassVar

from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.errors import ModelError
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Training, fit


@settings
class CatastrophicForgettingK:
    """Fine-tune the last k layers on the retained rows (CF-k)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    k: Count = 3
    """Layers that are trained, counted from the head, which is the first of them."""
    training: Training = field(default_factory=Training)
    """How to train: as the original was trained."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy whose last layers were trained on without the forgotten rows.

        Raises:
            ModelError: There are no more than k layers.
        """
        forgetting = copy_of(model)
        train_last(forgetting, self.k, access, runtime, self.training)
        return forgetting


def train_last(model: nn.Module, k: int, access: Access, runtime: Runtime, training: Training) -> None:
    """Train the last layers of a model in place on the retained rows, with all others frozen and in evaluation mode.

    A module that has a weight of its own among the frozen ones and trained layers inside it, such as a transformer with
    a class token, keeps that weight and is in training mode itself.

    Raises:
        ModelError: There are no more than k layers.
    """
    first = first_layers(model, k)
    learned = [weight for module in first for weight in module.parameters(recurse=False) if weight.requires_grad]
    for weight in learned:
        weight.requires_grad_(False)
    frozen = set(first)
    asleep = [module for module in first if all(inner in frozen for inner in module.modules() if own_tensors(inner))]
    fit(model, access["retain"], runtime, training, stage=f"last {k}", asleep=asleep)
    for weight in learned:
        weight.requires_grad_(True)


def first_layers(model: nn.Module, k: int) -> list[nn.Module]:
    """Return the modules that hold weights or buffers and come before the last k layers, as the model lists them.

    Raises:
        ModelError: There are no more than k layers.
    """
    modules = [module for module in model.modules() if own_tensors(module)]
    layers = [
        index
        for index, module in enumerate(modules)
        if any(name == "weight" and weight.ndim > 1 for name, weight in module.named_parameters(recurse=False))
    ]
    if len(layers) <= k:
        raise ModelError(f"expected a network of more than {k} layers, got {len(layers)}: lower k, or use 'retrain'")
    return modules[: layers[-k]]


def own_tensors(module: nn.Module) -> list[Tensor]:
    """Return a module's weights and buffers, without those of its children."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
