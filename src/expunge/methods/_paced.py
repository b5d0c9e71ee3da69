"""Paced: a network some elements of whose weights are held, or move more slowly than others, while it is trained.

A mask on gradients holds nothing: weight decay and momentum move what has no gradient. Here the network reads each
weight through PyTorch's own parametrisation, which puts held elements back to where they started, and scales the
gradients of the others, whatever the optimiser does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from expunge.errors import ModelError
from expunge.network import copy_of
from expunge.runtime import Runtime

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def paced(model: nn.Module, paces: Mapping[str, Tensor], runtime: Runtime) -> Iterator[nn.Module]:
    """Give a copy of a model to train; what it has learned is in the model when the context ends.

    Args:
        model: Where the copy starts from.
        paces: By the name of a weight, of its shape: what the gradient of each of its elements is multiplied by, from 0
            to 1. Elements at 0 end bit-equal, and weights without a name here move as they always do.
        runtime: Where it is to be trained.

    Raises:
        ModelError: Batch normalisation is among the weights, and is to be replaced by PyTorch's synchronised one.
    """
    copied = copy_of(model)
    for name, pace in paces.items():
        owner, _, weight = name.rpartition(".")
        module = copied.get_submodule(owner)
        if isinstance(module, NORMS) and runtime.batch_norm == "sync" and runtime.fabric.world_size > 1:
            raise ModelError("expected --batch-norm local where weights of batch normalisation are held, got sync")
        parametrize.register_parametrization(module, weight, _Pace(module.get_parameter(weight), pace))
    yield copied
    for name in paces:
        owner, _, weight = name.rpartition(".")
        parametrize.remove_parametrizations(copied.get_submodule(owner), weight)
    model.load_state_dict(copied.state_dict())


class _Pace(nn.Module):
    """From a weight that is trained to the weight that the network reads."""

    start: Tensor
    pace: Tensor

    def __init__(self, weight: Tensor, pace: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", weight.detach().clone(), persistent=False)
        self.register_buffer("pace", pace.to(weight), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the start where the pace is 0; elsewhere the weight itself, with its gradient at that pace."""
        moving = torch.lerp(weight.detach(), weight, self.pace)
        return torch.where(self.pace > 0, moving, self.start)
