"""Tail: the last units of a network, run from stored outputs of the unit before them.

A network of units that follow each other (see `expunge.taps`) is cut before one of them. Each row goes through the
units before the cut once; whatever then happens behind the cut costs the units behind it alone.

1. One pass over the rows stores what the last unit before the cut gives, and what the network makes of it.
2. In a copy of the network, the units before the cut are replaced: the last one by a module that gives the stored
   values, the others by modules that compute nothing and give zeros of the right shape. What was called between them,
   such as batch normalisation, is replaced too: it would take its statistics from the zeros. The head is taken off.
3. Whether that copy, with the head put after it, computes the same logits is checked on the first batch. A network
   with a connection that jumps over the cut does not, and is refused; nor does one that changes what the head gives.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from expunge.errors import ModelError
from expunge.network import copy_of, find_head
from expunge.rows import Rows
from expunge.runtime import Runtime
from expunge.taps import HEAD, find_units

TOLERANCE = 1e-2
"""The most by which logits of the tail may differ from the network's, absolutely and as a share of a logit."""


class _Given(nn.Module):
    """Stands for a unit before the cut; gives `values`, whatever comes in."""

    def __init__(self, unit: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.unit = (unit,)  # in a tuple it is no submodule, whose weights would be the tail's
        self.shape = shape
        self.values = torch.zeros(0, *shape)

    def __getattr__(self, name: str) -> Any:
        """Return what the network around it reads of the unit, such as the type of its weights."""
        return getattr(vars(self)["unit"][0], name) if "unit" in vars(self) else super().__getattr__(name)

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        return self.values


class _Through(nn.Module):
    """Stands for a module between units before the cut; gives what comes in."""

    def forward(self, first: Any, *others: Any, **options: Any) -> Any:
        return first


class Body(nn.Module):
    """What lies between the cut and the head: from stored values to what the head reads."""

    def __init__(self, model: nn.Module, given: list[_Given], input_size: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self._given = given
        self._input_size = input_size

    def forward(self, values: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows width"]:
        """Return what the head reads."""
        for module in self._given:
            module.values = values.new_zeros(()).expand(len(values), *module.shape)
        self._given[-1].values = values
        features: Tensor = self.model(values.new_zeros(()).expand(len(values), *self._input_size))
        return features


class Tail(nn.Module):
    """What follows the cut: a body and the head."""

    def __init__(self, body: Body, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, values: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows classes"]:
        """Return logits."""
        logits: Tensor = self.head(self.body(values))
        return logits

    def put_into(self, model: nn.Module) -> None:
        """Copy all weights and buffers behind the cut into a network of the same architecture."""
        model.load_state_dict(model.state_dict() | self.body.model.state_dict())
        find_head(model, self.head.out_features).load_state_dict(self.head.state_dict())


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network cut in two, and what it makes of some rows in evaluation mode."""

    tail: Tail
    """A copy; weights that no stored value reaches are frozen."""
    stored: Float[Tensor, "rows ..."]
    """What the last unit before the cut gives."""
    features: Float[Tensor, "rows width"]
    """What the head reads."""
    logits: Float[Tensor, "rows classes"]
    labels: Int64[Tensor, " rows"]


def cut(
    model: nn.Module, rows: Rows, runtime: Runtime, *, num_classes: int, share: float, batch_size: int = 256
) -> Cut:
    """Cut a network before its last units and store what these are given for some rows.

    Args:
        model: Left as it is.
        rows: Each is read once.
        runtime: Where; everything stays on its device.
        num_classes: Outputs of the head.
        share: Share of the units that are behind the cut, rounded up; one unit at least stays before it.
        batch_size: Rows per pass, over all processes.

    Raises:
        ModelError: There is no head, or there are fewer than two units, or they do not follow each other.
    """
    whole = copy_of(model).eval()
    head = find_head(whole, num_classes)
    units = find_units(whole, head)
    if len(units) < 2:
        raise ModelError(f"expected a network of two units or more, got {len(units)} in {type(model).__name__}")
    prefix = units[: max(1, len(units) - math.ceil(share * len(units)))]
    seen = _watch(whole, [*prefix, (HEAD, head)], rows, runtime, batch_size)
    names = {module: name for name, module in whole.named_modules()}
    given = [_Given(unit, tuple(seen.outputs[name].shape[1:])) for name, unit in prefix]
    _replace(
        whole, {name: module for (name, _), module in zip(prefix, given, strict=True)} | {names[head]: nn.Identity()}
    )
    _replace(whole, {name: _Through() for name in seen.only_before(prefix[-1][0])})
    tail = Tail(Body(whole, given, seen.input_size), head)
    found = Cut(
        tail=tail,
        stored=seen.outputs[prefix[-1][0]],
        features=seen.inputs[HEAD],
        logits=seen.outputs[HEAD],
        labels=seen.labels,
    )
    _check(found, seen.logits, prefix[-1][0], batch_size)
    return found


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What some modules were given and gave; of all but the last two only the last batch is kept."""

    calls: list[str]
    """Names of all modules in the order in which they came to an end, over all batches."""
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    logits: Tensor
    labels: Tensor
    input_size: tuple[int, ...]

    def only_before(self, last: str) -> list[str]:
        """Return the modules that come to an end before a unit does, and are not called again after it."""
        first_pass = self.calls[: self.calls.index("")]  # the whole model comes to an end last
        end = first_pass.index(last)
        return [name for name in dict.fromkeys(first_pass[:end]) if name not in first_pass[end:]]


@torch.no_grad()
def _watch(
    model: nn.Module, units: list[tuple[str, nn.Module]], rows: Rows, runtime: Runtime, batch_size: int
) -> _Seen:
    network = runtime.place(model)
    now: dict[str, tuple[Any, Any]] = {}
    calls: list[str] = []
    handles = [module.register_forward_hook(_keep(now, name)) for name, module in units]
    handles += [module.register_forward_hook(_note(calls, name)) for name, module in model.named_modules()]
    wanted = [name for name, _ in units[-2:]]
    parts: dict[str, list[Tensor]] = {}
    shape: tuple[int, ...] = ()
    for inputs, labels, _ in runtime.batches(rows, batch_size):
        with runtime.cost.step("predict", len(inputs)):
            logits = network(inputs)
        shape = tuple(inputs.shape[1:])
        if not all(isinstance(value, Tensor) for name, _ in units for value in now.get(name, (None, None))):
            raise ModelError("expected units that take and give one tensor each: choose a method that cuts no network")
        for name in wanted:
            parts.setdefault(f"in {name}", []).append(now[name][0])
            parts.setdefault(f"out {name}", []).append(now[name][1])
        parts.setdefault("logits", []).append(logits)
        parts.setdefault("labels", []).append(labels)
    for handle in handles:
        handle.remove()
    whole = {key: runtime.gather(torch.cat(values), len(rows), batch_size) for key, values in parts.items()}
    dtype = next(model.parameters()).dtype  # autocast leaves some of what it gives in half precision
    return _Seen(
        calls=calls,
        inputs={HEAD: whole[f"in {HEAD}"].to(dtype)},
        outputs={name: output for name, (_, output) in now.items()}
        | {name: whole[f"out {name}"].to(dtype) for name in wanted},
        logits=whole["logits"].to(dtype),
        labels=whole["labels"],
        input_size=shape,
    )


def _keep(now: dict[str, tuple[Any, Any]], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        now[name] = (inputs[0] if inputs else None), output

    return hook


def _note(calls: list[str], name: str) -> Callable[[nn.Module, Any, Any], None]:
    return lambda module, inputs, output: calls.append(name)


def _replace(model: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Replace submodules by name, the outer ones first; what is within a replaced one is gone with it."""
    present = dict(model.named_modules())
    for name in sorted(new, key=len):
        if name in present and not isinstance(present[name], _Given):
            model.set_submodule(name, new[name])
            present = dict(model.named_modules())


def _check(found: Cut, logits: Tensor, last: str, batch_size: int) -> None:
    """Check that the tail computes what the network does, and freeze the weights that play no part in it."""
    again = found.tail(found.stored[:batch_size])
    same = again.shape == logits[:batch_size].shape
    if not same or not torch.allclose(again, logits[:batch_size], rtol=TOLERANCE, atol=TOLERANCE):
        raise ModelError(
            f"expected units that follow each other and end in the head, got others around {last!r}: "
            "choose a method that cuts no network"
        )
    weights = [weight for weight in found.tail.parameters() if weight.requires_grad]
    reached = torch.autograd.grad(again.sum(), weights, allow_unused=True) if weights else ()
    for weight, gradient in zip(weights, reached, strict=True):
        weight.requires_grad_(gradient is not None)
