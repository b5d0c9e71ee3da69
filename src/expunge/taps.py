"""Taps: where a network's features are read off, from its first blocks to the input of its head.

1. The units of a network are its top modules. While there are fewer than four that hold layers, the unit with the most
   layers is opened: its children take its place. A layer is a module with a weight of two dimensions or more, such as a
   convolution or a linear layer; the head does not count.
2. Of the units before the last, those that end nearest to a quarter, a half and three quarters of all layers are
   tapped at their output. The last one's output is what the head reads.
3. The head is tapped at its input.

So the taps depend on the structure of the modules alone, and are the same for all models of one architecture.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from expunge.network import find_head
from expunge.outputs import AmongAll

HEAD = "head"
"""Name of the depth at the input of the head."""
UNITS = 4
QUARTERS = (1 / 4, 1 / 2, 3 / 4)
Caught = dict[str, Float[Tensor, "rows _"]]


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A module whose output, or for the head input, is a feature."""

    name: str
    """The module's dotted name, or ``head``."""
    module: nn.Module
    width: int
    """Outputs of the module's last layer; of the head, its inputs."""
    channels_first: bool
    """Whether that layer is a convolution."""


def find_taps(model: nn.Module, num_classes: int) -> tuple[Tap, ...]:
    """Return where to read features, the input of the head last.

    Raises:
        ModelError: There is no head.
    """
    if isinstance(model, AmongAll):
        return find_taps(model.model, num_classes - len(model.dropped))
    head = find_head(model, num_classes)
    units = find_units(model, head)
    counts = [len(_layers(module, head)) for _, module in units]
    ends = [sum(counts[: index + 1]) for index in range(len(units) - 1)]
    nearest = {
        min(range(len(ends)), key=lambda index: abs(ends[index] - share * sum(counts))) for share in QUARTERS if ends
    }
    earlier = [_tap(*units[index], head) for index in sorted(nearest)]
    return *earlier, Tap(name=HEAD, module=head, width=head.in_features, channels_first=False)


def find_units(model: nn.Module, head: nn.Linear) -> list[tuple[str, nn.Module]]:
    """Return the units of a network by their dotted names, in the order in which the model lists them."""
    units = [(name, module) for name, module in _children("", model) if _layers(module, head)]
    while len(units) < UNITS:
        deep = [index for index, (_, module) in enumerate(units) if len(_layers(module, head)) > 1]
        if not deep:
            break
        largest = max(deep, key=lambda index: len(_layers(units[index][1], head)))
        inner = [(name, module) for name, module in _children(*units[largest]) if _layers(module, head)]
        units[largest : largest + 1] = inner
    return units


@contextmanager
def tapped(taps: tuple[Tap, ...]) -> Iterator[Caught]:
    """Catch the features of each forward pass; what the modules compute is left as it is.

    Yields:
        By tap, the pooled features of the last pass; none of a module that was not called or gave no tensor of rows.
    """
    caught: Caught = {}

    def keep(tap: Tap, values: Any) -> None:
        if isinstance(values, Tensor) and values.ndim > 1:
            caught[tap.name] = pool(values.detach(), tap.width, channels_first=tap.channels_first)

    def before(tap: Tap) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: keep(tap, inputs[0] if inputs else None)

    def after(tap: Tap) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda module, inputs, outputs: keep(tap, outputs)

    handles = [
        tap.module.register_forward_pre_hook(before(tap))
        if tap.name == HEAD
        else tap.module.register_forward_hook(after(tap))
        for tap in taps
    ]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def pool(values: Float[Tensor, "rows ..."], width: int, *, channels_first: bool) -> Float[Tensor, "rows _"]:
    """Return the mean over all positions, in single precision."""
    channels = channel_axis(values, width, channels_first=channels_first)
    positions = [dim for dim in range(1, values.ndim) if dim != channels]
    return values.float().mean(dim=positions) if positions else values.float()


def channel_axis(values: Float[Tensor, "rows ..."], width: int, *, channels_first: bool) -> int:
    """Return the dimension of the channels.

    Channels are the second dimension, or the last one. Which of them, the layer's kind says, unless only the other is
    as wide as the layer.
    """
    kinds = (1, values.ndim - 1) if channels_first else (values.ndim - 1, 1)
    return next((dim for dim in kinds if values.shape[dim] == width), kinds[0])


def _children(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.{child}" if name else child, inner) for child, inner in module.named_children()]


def _layers(module: nn.Module, head: nn.Linear) -> list[Tensor]:
    """Return the weights of a module's layers, without the head's."""
    return [
        weight
        for inner in module.modules()
        if inner is not head
        for name, weight in inner.named_parameters(recurse=False)
        if name == "weight" and weight.ndim > 1
    ]


def _tap(name: str, module: nn.Module, head: nn.Linear) -> Tap:
    last = _layers(module, head)[-1]
    return Tap(name=name, module=module, width=len(last), channels_first=last.ndim > 2)
