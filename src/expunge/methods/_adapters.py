"""Adapters: low-rank updates of a network's layers (LoRA), put in by peft and merged into plain weights afterwards.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685. A layer's output is
``W x + b + scale * B A x``; W and b stay as they are, A starts at random and B at zero, so that at first nothing has
changed.
"""

import importlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from expunge.errors import SettingsError
from expunge.network import copy_of
from expunge.runtime import Runtime

if TYPE_CHECKING:
    from peft import LoraModel

ADAPTER = "default"
"""The name that peft knows the one adapter by."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def adaptable_layers(model: nn.Module, input_size: tuple[int, ...]) -> list[str]:
    """Return the names of the layers that an adapter can act on and be merged into, in the order of the model.

    These are linear layers and plain convolutions that a forward pass calls. A layer whose weight another module takes
    for itself, as ``nn.MultiheadAttention`` does with its projections, is never called: an adapter in it would do
    nothing. A convolution with groups or dilation, or a layer of a derived class, which may make something else of its
    weight, cannot be merged into. Layers with a frozen weight are left out too.

    Args:
        model: Left as it is; shown two inputs of zeros.
        input_size: Shape of one input.
    """
    called = _called(model, input_size)
    return [name for name, module in model.named_modules() if name in called and _takes_adapter(module)]


@torch.no_grad()
def _called(model: nn.Module, input_size: tuple[int, ...]) -> set[str]:
    """Return the names of the modules that a forward pass calls, but for the model itself."""
    watched, called = copy_of(model).train(), set[str]()  # in evaluation some layers take fused paths past themselves
    for name, module in watched.named_modules():
        if name:
            module.register_forward_pre_hook(lambda _, __, name=name: called.add(name))
    weight = next(watched.parameters())
    with torch.random.fork_rng(devices=[weight.device] if weight.device.type == "cuda" else []):
        watched(torch.zeros(2, *input_size, device=weight.device, dtype=weight.dtype))
    return called


def _takes_adapter(module: nn.Module) -> bool:
    if type(module) in CONVOLUTIONS:
        layer: Any = module
        plain = layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"
        return plain and bool(layer.weight.requires_grad)
    return type(module) is nn.Linear and module.weight.requires_grad


def adapt(
    model: nn.Module,
    layers: Sequence[str],
    runtime: Runtime,
    *,
    rank: int,
    scale: float,
    dropout: float,
    stream: str,
) -> "LoraModel":
    """Return a copy of a model with an adapter in each of some layers; everything else is frozen.

    Args:
        model: Left as it is.
        layers: Names of `adaptable_layers`, at least one.
        runtime: Where.
        rank: Rows of A.
        scale: Factor of the update, which is LoRA's alpha over the rank.
        dropout: Share of an adapter's inputs that are dropped while it is trained.
        stream: Random stream of the numbers that A starts with.

    Raises:
        SettingsError: peft is not installed.
    """
    peft = _peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=scale * rank,
        lora_dropout=dropout,
        # of a list peft takes every layer whose name ends so, of an expression those whose whole name it is
        target_modules="|".join(re.escape(name) for name in layers),
    )
    with runtime.seeded(stream):
        adapted: LoraModel = peft.LoraModel(copy_of(model).to(runtime.device), config, ADAPTER)
    return adapted


def _peft() -> Any:
    """Return peft, which takes seconds to import and is there for this alone.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise SettingsError(f"expected peft for adapters, got: {error}: pip install 'expunge[lora]'") from None


def merged(adapted: "LoraModel", model: nn.Module) -> nn.Module:
    """Return a copy of a model with the weights of an adapted one, each adapter added to the layer that it is in.

    Args:
        adapted: Not to be used any more.
        model: What it is an adapted copy of; left as it is.
    """
    plain = copy_of(model)
    plain.load_state_dict(adapted.merge_and_unload().state_dict())
    return plain
