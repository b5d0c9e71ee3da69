"""null_space: teach the forgotten rows other labels, by steps that no retained row's layers can feel.

Chen, Zhu, Yu and Zhou, "Machine Unlearning via Null Space Calibration", IJCAI 2024,
https://arxiv.org/abs/2404.13588 (UNSC). Code: https://github.com/HQC-ML/UNSC.

1. Subspace. For every layer, gather the directions that hold a `share` of the energy of its inputs (patches, for a
   convolution), one retained class after the other: each adds the strongest of what the classes before it lack. What
   is at right angles to all is the null space N.
2. Pseudo-labels. Give every forgotten row the class that the original finds most likely of those that are kept; a
   single row, of those that are not its own.
3. Train on the forgotten rows under these labels, by gradients projected onto N. A weight W can so become ``W + C Nᵀ``
   alone, which gives inputs of the subspace what W gave them. Biases and normalisations stay.

Reads: retain and forget.

Differences from the code: the paper itself was not to be had; its notebooks were. There the share is 0.99 for CIFAR-100
and rises from 0.97 to 0.997 over the classes of CIFAR-10, and the last direction that would reach it is left out; here
it is taken. The steps there are plain gradient descent at 0.04; here SGD has momentum 0.9, which goes ten times as far,
so that the rate is a tenth. A pass has the ten steps that 5,000 rows have in the code's batches of 512, however few
rows there are. In place of each gradient, the change of the weight is projected, which comes to the same, and to no
drift by rounding. The code cuts patches without a convolution's border and stride; here they are its own. Weights
that are in no linear layer or convolution stay, as those that PyTorch's ``nn.MultiheadAttention`` keeps for itself.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Le
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils import parametrize

from expunge.access import Access
from expunge.data import Part, subset
from expunge.errors import ModelError
from expunge.methods._subspaces import Layer, basis, find_layers, input_grams, matrix_of
from expunge.network import copy_of
from expunge.rows import RelabelledRows, Rows, TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.synthesis import NORMS
from expunge.training import Count, Positive, Training, fit, predict

Basis = Float[Tensor, "width kept"]


@settings
class NullSpace:
    """Relabel the forgotten rows by steps in the null space of the retained rows' activations (UNSC)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    share: Annotated[float, Gt(0), Le(1)] = 0.99
    """Share of the energy of each retained class's inputs that the subspace holds."""
    rows_per_class: Count = 256
    """Retained rows of each class that the subspace is made from; all of a class that has fewer."""
    epochs: Count = 25
    """Passes over the forgotten rows."""
    steps: Count = 10
    """Steps of one pass, which sets the batch size: rows / steps, from 8 to 512."""
    lr: Positive = 0.004
    """Learning rate of SGD with momentum 0.9."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that answers the retained rows as before, as far as the subspace holds them.

        Streams: ``null_space/retain``, ``calibration/order``.

        Raises:
            ModelError: There is no layer that could be trained.
            DivergedError: The rate is too high for this model.
        """
        retain = subset(access["retain"], self.rows_per_class, runtime.generator("null_space/retain"))
        bases = retained_subspaces(model, retain, runtime, self.share)
        labels = pseudo_labels(model, access, runtime)
        training = Training(
            epochs=self.epochs,
            batch_size=min(max(-(-len(labels) // self.steps), 8), 512),
            optimizer="sgd",
            lr=self.lr,
            weight_decay=0.0,
            schedule="constant",
        )
        bound = bind(model, bases)
        asleep = [module for module in bound.modules() if isinstance(module, NORMS)]
        rows = RelabelledRows(access["forget"], labels)
        fit(bound, rows, runtime, training, stage="calibration", asleep=asleep)
        return released(model, bound)


def retained_subspaces(model: nn.Module, retain: Rows, runtime: Runtime, share: float) -> dict[str, list[Basis]]:
    """Return, for each group of every layer, an orthonormal basis of the inputs of the retained classes."""
    bases: dict[str, list[Basis]] = {}
    for label in np.unique(retain.labels):
        of_class = TakenRows(retain, np.flatnonzero(retain.labels == label))
        for name, gram in input_grams(model, of_class, runtime, stage="retained subspaces").items():
            held = bases.get(name, [None] * len(gram.values))
            bases[name] = [basis(group, share, old) for group, old in zip(gram.values, held, strict=True)]
    return bases


def pseudo_labels(model: nn.Module, access: Access, runtime: Runtime) -> Int64[np.ndarray, " rows"]:
    """Return the labels of step 2."""
    logits, own = predict(model, access["forget"], runtime)
    if access.request.rows:
        logits[torch.arange(len(own)), own] = -torch.inf
    else:
        logits[:, list(access.classes())] = -torch.inf
    logits[:, list(access.earlier_classes)] = -torch.inf
    labels: Int64[np.ndarray, " rows"] = logits.argmax(1).numpy()
    return labels


class OnlyIn(nn.Module):
    """A weight that can move in some subspace of its inputs alone: the rest of every change is left out."""

    def __init__(self, layer: Layer, subspace: Float[Tensor, "groups width width"]) -> None:
        super().__init__()
        self.start: Tensor
        self.subspace: Tensor
        self.register_buffer("start", matrix_of(layer).detach().clone(), persistent=False)
        self.register_buffer("subspace", subspace.to(self.start), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight, with its change from the start projected onto the subspace."""
        change = weight.reshape(self.start.shape) - self.start
        return (self.start + change @ self.subspace).reshape(weight.shape)


def bind(model: nn.Module, bases: dict[str, list[Basis]]) -> nn.Module:
    """Return a copy whose layers can move at right angles to some bases alone, and whose other weights are frozen.

    Raises:
        ModelError: Nothing could move.
    """
    bound = copy_of(model)
    layers = {name: layer for name, layer in find_layers(bound).items() if name in bases and layer.weight.requires_grad}
    if not layers:
        raise ModelError(f"expected linear layers or convolutions to train, got none in {type(model).__name__}")
    bound.requires_grad_(False)
    for name, layer in layers.items():
        null = [torch.eye(len(held), dtype=held.dtype, device=held.device) - held @ held.mT for held in bases[name]]
        layer.weight.requires_grad_()
        parametrize.register_parametrization(layer, "weight", OnlyIn(layer, torch.stack(null)))
    return bound


@torch.no_grad()
def released(model: nn.Module, bound: nn.Module) -> nn.Module:
    """Return a copy of a model with the weights that the layers of a bound one have come to."""
    free = copy_of(model).to(next(bound.parameters()).device)
    for name, layer in find_layers(bound).items():
        free.get_submodule(name).get_parameter("weight").copy_(layer.weight)
    return free
