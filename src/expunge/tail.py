"""Tail: the last units of a network, run from stored outputs of the unit before them.

A network of units that follow each other (see `expunge.taps`) is cut before one of them. Each row goes through the
units before the cut once; whatever then happens behind the cut costs the units behind it alone.

1. One pass over the rows stores what the last unit before the cut gives.
2. In a copy of the network, the units before the cut are replaced: the last one by a module that gives the stored
   values, the others by modules that compute nothing and give zeros of the right shape.
3. Whether that copy computes the same logits is checked on the first batch. A network with a connection that jumps over the
   cut does not, and is refused.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.errors import ModelError
from expunge.network import copy_of, find_head
from expunge.rows import Rows
from expunge.runtime import Runtime
from expunge.taps import find_units

TOLERANCE = 1e-3
"""The most by which logits of the tail may differ from the network's, absolutely and as a share of a logit."""


class _Given(nn.Module):
    """Stands for a unit before the cut; gives `values`, whatever comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.values = torch.zeros(0)

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        return self.values


@dataclass(frozen=True, kw_only=True)
class Tail:
    """A network cut in two, and what its first part gives for some rows."""

    model: nn.Module
    """The copy without the units before the cut: call `run`."""
    stored: Float[Tensor, "rows ..."]
    """What the last of these units gives, on the runtime's device."""
    logits: Float[Tensor, "rows classes"]
    """What the whole network says of the rows, in evaluation mode."""
    given: tuple[tuple[_Given, tuple[int, ...]], ...]
    """Modules in the place of these units, each with the shape of one row's output."""
    input_size: tuple[int, ...]

    def run(self, values: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows classes"]:
        """Return the logits for values as stored."""
        for module, shape in self.given[:-1]:
            module.values = values.new_zeros(()).expand(len(values), *shape)
        self.given[-1][0].values = values
        logits: Tensor = self.model(values.new_zeros(()).expand(len(values), *self.input_size))
        return logits

    def return_to(self, model: nn.Module) -> None:
        """Copy all weights and buffers behind the cut into a network of the same architecture."""
        model.load_state_dict(model.state_dict() | self.model.state_dict())


@torch.no_grad()
def cut(
    model: nn.Module, rows: Rows, runtime: Runtime, *, num_classes: int, share: float, batch_size: int = 256
) -> Tail:
    """Cut a network before its last units and store what these are given for some rows.

    Args:
        model: Left as it is.
        rows: Each is read once.
        runtime: Where.
        num_classes: Outputs of the head.
        share: Share of the units that are behind the cut, rounded up; one unit at least stays before it.
        batch_size: Rows per pass.

    Raises:
        ModelError: There is no head, or there are fewer than two units, or they do not follow each other.
    """
    whole = copy_of(model).eval()
    units = find_units(whole, find_head(whole, num_classes))
    prefix = units[: max(1, len(units) - math.ceil(share * len(units)))]
    if len(units) < 2:
        raise ModelError(f"expected a network of two units or more, got {len(units)} in {type(model).__name__}")
    network, caught = runtime.place(whole), dict[str, Tensor]()
    handles = [module.register_forward_hook(_catch(caught, name)) for name, module in prefix]
    stored, logits = [], []
    for inputs, _, _ in runtime.batches(rows, batch_size):
        with runtime.cost.step("predict", len(inputs)):
            logits.append(network(inputs).float())
        if len(caught) < len(prefix):
            raise ModelError(f"expected units that give a tensor each, got none of {_missing(prefix, caught)}")
        stored.append(caught[prefix[-1][0]])
    for handle in handles:
        handle.remove()
    given = tuple((_Given(), tuple(caught[name].shape[1:])) for name, _ in prefix)
    for (name, _), (module, _) in zip(prefix, given, strict=True):
        whole.set_submodule(name, module)
    input_size = tuple(inputs.shape[1:])
    tail = Tail(model=whole, stored=torch.cat(stored), logits=torch.cat(logits), given=given, input_size=input_size)
    again = tail.run(tail.stored[:batch_size])
    if not torch.allclose(again.float(), tail.logits[:batch_size], rtol=TOLERANCE, atol=TOLERANCE):
        raise ModelError(f"expected units that follow each other, got a connection that jumps over {prefix[-1][0]!r}")
    return tail


def _catch(caught: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def keep(module: nn.Module, inputs: Any, outputs: Any) -> None:
        if isinstance(outputs, Tensor):
            caught[name] = outputs.detach()

    return keep


def _missing(units: Iterable[tuple[str, nn.Module]], caught: Mapping[str, Tensor]) -> str:
    return ", ".join(name for name, _ in units if name not in caught)
