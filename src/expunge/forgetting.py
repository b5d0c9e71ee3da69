"""Forgetting: run a method under guard, check what it made, and keep the record of what it read and cost."""

import base64
import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from expunge.access import Access, Count
from expunge.case import Method
from expunge.cost import peak_memory_bytes
from expunge.data import Part, Split
from expunge.errors import DivergedError, ExpungeError, ModelError, RequestError
from expunge.network import copy_of
from expunge.outputs import drop_outputs
from expunge.precision import in_single, rounded
from expunge.result import Bill, Picture
from expunge.rows import Indices, Rows
from expunge.runtime import Runtime, silent
from expunge.settings import describe
from expunge.training import device_of


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What a method made, and what it took."""

    model: nn.Module
    """The new model, on the device that the original is on."""
    method: dict[str, Any]
    """Name and settings of the method."""
    access: dict[Part, Count]
    """How much of every part was read."""
    bill: Bill
    pictures: tuple[Picture, ...]
    history: tuple[dict[str, Any], ...] = ()
    """What the model was made to forget, an entry per request, the last one last; see `expunge.history`."""
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    """What the method keeps for the next request, in the place of rows: sums over them, by names of its own."""


KeepOrDrop = Literal["keep", "drop"]
"""What becomes of the outputs of forgotten classes: kept as the method left them, or dropped from the last layer."""


Again = Callable[[Method, nn.Module, Runtime], Method | None]
"""Looks at what a method made, and gives the method to start over with from the original; None if that stands."""


def run_method(
    method: Method,
    model: nn.Module,
    parts: Split,
    runtime: Runtime,
    build: Callable[[], nn.Module],
    again: Again | None = None,
    *,
    statistics: Mapping[str, Tensor] | None = None,
) -> Forgotten:
    """Let a method make a model forget.

    Of a model in half precision the method gets a copy in single precision, and what it makes is rounded back; see
    `expunge.precision`. How much that undid stands among the events of the bill.

    Args:
        method: What to run; it sees the parts that it declares and no others.
        model: The original; left as it is.
        parts: The data, split by the request.
        runtime: Where; a fresh bill is opened.
        build: Makes a network of the same architecture with fresh weights.
        again: May start over with another method; what all tries read and cost is counted.
        statistics: What an earlier request has kept with the model.

    Raises:
        ModelError: The original has weights that are not finite, or all of them are frozen; or half precision holds
            nothing of the change.
        RequestError: There are no rows to forget, and the method reads them.
        ExpungeError: What the method raised, with its name and the request in front.
        DivergedError: The new model has weights that are not finite.
    """
    check_finite(model, "the original model")
    check_not_frozen(model)
    name = type(method).__module__.rsplit(".", 1)[-1]
    if "forget" in method.reads and not len(parts["forget"]):
        raise RequestError(
            f"{name}, {say(parts)}: expected training rows to forget, which this method reads, got none: "
            "choose one that reads none of them, such as 'unsir'"
        )
    start = in_single(model)
    access = Access(parts, method.reads, lambda: in_single(build()), workers=runtime.workers, statistics=statistics)
    runtime = replace(runtime.fresh(), counted=access.counted)

    def make() -> nn.Module:
        made = method(start, access, runtime)
        if start is model:
            return made
        made, event = rounded(made, start, model)
        runtime.cost.events.append(event)
        return made

    try:
        new = make()
        while again is not None and (other := again(method, new, runtime)) is not None:
            method = other
            new = make()
    except ExpungeError as error:
        raise type(error)(f"{name}, {say(parts)}: {error}") from error
    for weight_name, value in new.state_dict().items():
        if not value.isfinite().all():
            raise DivergedError(
                f"{name}, {say(parts)}: expected finite weights, got NaN or infinity in {weight_name!r}"
            )
    rows = len(parts["retain"]) + len(parts["forget"])
    runtime.tracking.cost(runtime.cost.seconds, runtime.cost.flops)
    return Forgotten(
        model=new.to(device_of(model)),
        method=describe(method),
        access=counts(access, runtime),
        bill=bill(runtime, epoch_flops(model, parts.input_size, rows)),
        pictures=tuple(
            picture(kind, parts.label_names[index], images) for (kind, index), images in runtime.images.items()
        ),
        statistics={name: value.cpu() for name, value in access.kept.items()},
    )


def headed(model: nn.Module, parts: Split, head: KeepOrDrop) -> nn.Module:
    """Return a model with the head as it is, or without the outputs of the forgotten classes.

    Raises:
        RequestError: Outputs are to be dropped, and single rows were to be forgotten.
        ModelError: The network has no linear head.
        SettingsError: It cannot be built with fewer classes.
    """
    return model if head == "keep" else drop_outputs(model, dropped(parts, head), len(parts.label_names))


def dropped(parts: Split, head: KeepOrDrop) -> tuple[int, ...]:
    """Return the classes that a model has no outputs of, as indices."""
    return () if head == "keep" else tuple(int(index) for index in parts.request.classes)


class _ReadsError(Exception):
    """A method has begun to read."""


class _SealedRows:
    """Rows whose labels can be seen, and whose reading ends a trial."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        return self._rows.labels

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        raise _ReadsError


def check_takes_rows(method: Method, parts: Split, runtime: Runtime, build: Callable[[], nn.Module]) -> None:
    """Refuse a method that cannot forget single rows, before anything is trained for it.

    The method is tried on a network with random weights, up to where it begins to read: one that refuses rows has done
    so by then. For a request of classes there is nothing to check.

    Raises:
        RequestError: The method does not take single rows.
    """
    if not parts.request.rows:
        return
    sealed = replace(parts, parts={part: _SealedRows(rows) for part, rows in parts.parts.items()})
    quiet = replace(runtime.fresh(), progress=silent, journal=None, workers=0)
    with quiet.seeded("trial"):
        network = build()
    with suppress(_ReadsError):
        run_method(method, network, sealed, quiet, build)


def say(parts: Split) -> str:
    """Return the request in words, for messages."""
    if parts.request.rows:
        return f"forgetting {len(parts.request.rows)} rows"
    return "forgetting " + ", ".join(repr(parts.label_names[int(index)])[:60] for index in parts.request.classes)


def check_finite(model: nn.Module, what: str) -> None:
    """Refuse a model with weights that are not finite.

    Raises:
        ModelError: Which weight.
    """
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise ModelError(f"expected finite weights in {what}, got NaN or infinity in {name!r}")


def check_not_frozen(model: nn.Module) -> None:
    """Refuse a model of which nothing may change.

    Raises:
        ModelError: All its weights are frozen.
    """
    weights = list(model.parameters())
    if not any(weight.requires_grad for weight in weights):
        raise ModelError(
            f"expected a model with weights that may change, got a {type(model).__name__} with all {len(weights)} "
            "frozen: call model.requires_grad_(), or that of the layers that may change"
        )


def counts(access: Access, runtime: Runtime) -> dict[Part, Count]:
    """Return how much of every part was read, by all processes together."""
    for rows in access.counted.values():
        rows.add(int(runtime.total(rows.reads)) - rows.reads, runtime.union(rows.seen))
    return access.counts()


def bill(runtime: Runtime, per_epoch: int) -> Bill:
    """Return a cost as it stands in a result: operations of all processes, memory of the one that took most."""
    cost, flops = runtime.cost, int(runtime.total(runtime.cost.flops))
    return Bill(
        seconds=dict(cost.seconds) | {"total": cost.total},
        flops=flops,
        epoch_equivalents=flops / per_epoch if per_epoch else None,
        peak_memory_bytes=int(runtime.highest(peak_memory_bytes(runtime.device))),
        events=tuple(cost.events),
    )


def epoch_flops(model: nn.Module, input_size: tuple[int, ...], rows: int) -> int:
    """Return the operations of one forward and backward pass over so many rows: the unit of epoch equivalents."""
    probe = copy_of(model).train().requires_grad_()
    inputs = torch.zeros(8, *input_size, device=device_of(model), dtype=next(model.parameters()).dtype)
    with FlopCounterMode(display=False) as counter:
        logits = probe(inputs)
        loss = functional.cross_entropy(logits, torch.zeros(8, dtype=torch.int64, device=logits.device))
        torch.autograd.backward(loss)
    return int(counter.get_total_flops()) * rows // 8


def picture(kind: str, label: str, images: Float[Tensor, "images ..."]) -> Picture:
    """Return inputs as one PNG, side by side, each stretched over the full range of brightness.

    One or three channels are shown as they are, others by their mean; an input that is no image as one row of pixels.
    """
    tiles = images.float().cpu()
    if tiles.ndim != 4:
        tiles = tiles.flatten(1)[:, None, None, :]
    if tiles.shape[1] not in (1, 3):
        tiles = tiles.mean(1, keepdim=True)
    grid = make_grid(tiles, nrow=len(tiles), normalize=True, scale_each=True, padding=1, pad_value=1.0)
    return Picture(kind=kind, label=label, png=as_png(grid))


def as_png(image: Float[Tensor, "channels rows columns"]) -> str:
    """Return an image, from 0 to 1, as a PNG in base64."""
    buffer = io.BytesIO()
    to_pil_image(image).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
