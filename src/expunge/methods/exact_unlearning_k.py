"""exact_unlearning_k: train the last k layers from scratch without what is to be forgotten; the others stay.

Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine Unlearning",
https://arxiv.org/abs/2201.06640 (EU-k); code https://github.com/shash42/Evaluating-Inexact-Unlearning. What the last
layers knew is gone for certain; the features that they read were learned with the forgotten rows.

1. Freeze all layers but the last k, as in `catastrophic_forgetting_k`.
2. Give the last k fresh random weights, batch normalisation among them fresh statistics.
3. Train them on the retained rows, as the original was trained.

Reads: retain.

Differences from the code: batch normalisation in frozen layers keeps its statistics, which the code lets move, and
normalises by them; batch normalisation among the last layers starts anew, which the code leaves as it was.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from dataclasses import field
from typing import ClassVar

import torch
from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods.catastrophic_forgetting_k import first_layers, own_tensors, train_last
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Training


@settings
class ExactUnlearningK:
    """Retrain the last k layers from scratch on the retained rows (EU-k)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    k: Count = 3
    """Layers that are trained anew, counted from the head, which is the first of them."""
    training: Training = field(default_factory=Training)
    """How to train: as the original was trained."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy whose last layers never saw the forgotten rows.

        Raises:
            ModelError: There are no more than k layers.
        """
        forgetting = copy_of(model)
        with runtime.seeded("exact_unlearning_k/init"):
            renew_last(forgetting, access.build(), self.k)
        train_last(forgetting, self.k, access, runtime, self.training)
        return forgetting


@torch.no_grad()
def renew_last(model: nn.Module, fresh: nn.Module, k: int) -> None:
    """Give the last k layers, and what follows the first of them, the weights and buffers of a fresh network.

    Weights that are frozen in the model are its own in the fresh one; see `expunge.network.rebuild`.

    Raises:
        ModelError: There are no more than k layers.
    """
    kept = {id(tensor) for module in first_layers(model, k) for tensor in own_tensors(module)}
    new = dict(fresh.named_parameters()) | dict(fresh.named_buffers())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if id(tensor) not in kept:
            tensor.copy_(new[name])
