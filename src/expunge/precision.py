"""Precision: that of a network's numbers, name by name; half is enough to answer in, and too coarse to train in.

A number in bfloat16 has eight significant bits: a step smaller than a five-hundredth of it is rounded away, and so are
all the following ones. A model in half precision is therefore worked on in single precision, and rounded back once.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from expunge.errors import ModelError

HALVES = (torch.bfloat16, torch.float16)
Precisions = Mapping[str, torch.dtype]
"""By the name of a weight or buffer."""


def precisions_of(model: nn.Module) -> dict[str, torch.dtype]:
    """Return the precision of every weight and buffer of a network."""
    return {name: value.dtype for name, value in _tensors(model).items()}


def in_precisions(model: nn.Module, wanted: Precisions) -> nn.Module:
    """Bring the floating weights and buffers of a network, in place, to the precision that their names tell.

    Args:
        model: Returned.
        wanted: What has no name in it stays as it is.
    """
    for name, value in _tensors(model).items():
        if value.is_floating_point() and wanted.get(name, value.dtype).is_floating_point:
            value.data = value.data.to(wanted.get(name, value.dtype))
    return model


def halves_in(model: nn.Module) -> str | None:
    """Return the half precisions among a network's numbers, in words; None if there are none."""
    found = {str(dtype).removeprefix("torch.") for dtype in precisions_of(model).values() if dtype in HALVES}
    return " and ".join(sorted(found)) or None


def in_single(model: nn.Module) -> nn.Module:
    """Return a copy with what is in half precision in single; without any, the model itself."""
    if halves_in(model) is None:
        return model
    copied = copy.deepcopy(model)
    copied.zero_grad(set_to_none=True)
    return in_precisions(
        copied, {name: torch.float32 for name, dtype in precisions_of(model).items() if dtype in HALVES}
    )


def check_trains(model: nn.Module) -> None:
    """Refuse to train a network in half precision.

    Raises:
        ModelError: Some of its weights that are not frozen are in half precision.
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.dtype in HALVES:
            raise ModelError(
                f"expected weights to train in float32, got {name!r} in {str(weight.dtype).removeprefix('torch.')}, "
                "which rounds small steps away: train model.float(), and for speed with precision bf16-mixed"
            )


def rounded(new: nn.Module, start: nn.Module, model: nn.Module) -> tuple[nn.Module, str]:
    """Bring a network, in place, to the precision of another; return it and what that has undone, in words.

    Args:
        new: What was made in single precision.
        start: What it was made from, in single precision.
        model: The same as it is stored.

    Raises:
        ModelError: Nothing is left of the change.
    """
    moved = changed(new, start)
    in_precisions(new, precisions_of(model))
    left, halves = changed(new, model), halves_in(model)
    if moved and not left:
        raise ModelError(
            f"expected a change that {halves} can hold, got one that is rounded away: give the model in float32, "
            "or raise the learning rate"
        )
    return new, (
        f"the original is in {halves}: it was worked on in float32, and the new model rounded back, which undid the "
        f"change of {moved - left:,} of {moved:,} numbers"
    )


@torch.no_grad()
def changed(new: nn.Module, old: nn.Module) -> int:
    """Return how many weights and buffers, number by number, are not those of another network."""
    before = _tensors(old)
    return sum(
        int((value.to(before[name].device) != before[name]).sum())
        if name in before and before[name].shape == value.shape
        else value.numel()
        for name, value in _tensors(new).items()
    )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())
