"""Importance: the mean square of the gradient with respect to every weight, row by row or batch by batch.

Of the log-likelihood it is the diagonal of the Fisher information: how sharply the outputs depend on a weight.
The square is of each row's own gradient. The square of a batch's mean gradient is another number: smaller where rows
disagree, by up to the size of the batch, with which it changes. In place of squares there may be absolute values.

The gradients of many rows are computed together by ``torch.func.vmap``, as many as fit; of a row whose losses are too
many for that, so many losses at a time. It does not take every network: not one whose course depends on its values, or
that writes into its buffers. Then they are computed one after the other, at many times the cost, and the user is told.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap

from expunge.network import copy_of
from expunge.rows import Rows
from expunge.runtime import Runtime, count_batches

Importance = dict[str, Tensor]
"""By the name of a weight that is not frozen: one number for each of its elements."""
OfRow = Callable[[Importance, Tensor, Tensor], Tensor]
"""From weights, the input and the label of one row to its losses."""
Sums = Callable[[Importance, Tensor, Tensor], Importance]
"""From weights, inputs and labels to what is taken of each gradient, summed up over the rows and their losses."""
Losses = Callable[[Float[Tensor, " classes"], Int64[Tensor, ""]], Float[Tensor, " losses"]]
"""From the logits and the label of one row to one loss or more, whose squared gradients are summed."""
Size = Callable[[Tensor], Tensor]
"""How a gradient counts, element by element: ``torch.square`` or ``torch.abs``."""
NUMBERS = 2**27
"""The most elements of gradients held at a time, half a gigabyte in single precision; but one gradient at least."""
ROWS = 64
"""The most rows at a time."""


def row_importance(
    model: nn.Module,
    rows: Rows,
    runtime: Runtime,
    losses: Losses,
    *,
    stage: str,
    count: int = 1,
    size: Size = torch.square,
) -> Importance:
    """Return the mean over rows of the squared gradients of each row's own losses, in evaluation mode.

    Args:
        model: Left as it is.
        rows: Each is read once.
        runtime: Where.
        losses: Of one row.
        stage: Name for progress and cost.
        count: How many losses they are; they set how many rows, and how many losses, are gone through at a time.
        size: What is taken of each gradient in place of its square.
    """
    network = copy_of(model).to(runtime.device).eval()
    weights = trainable(network)
    dtype = next(network.parameters()).dtype

    def of_row(chosen: Importance, row: Tensor, label: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, chosen, (row[None].to(dtype),))
        return losses(logits[0], label)

    elements = sum(weight.numel() for weight in weights.values())
    held = max(1, NUMBERS // elements)
    at_once = max(1, min(ROWS, held // count))
    take: Sums | None = None
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with runtime.stage(stage, count_batches(len(rows), at_once)) as advance:
        for inputs, labels, _ in runtime.batches(rows, at_once):
            if len(inputs):
                take = take or choose_sums(of_row, size, count, held, (weights, inputs[:1], labels[:1]), runtime)
                with runtime.cost.step((stage, count), len(inputs)):
                    found = take(weights, inputs, labels)
                for name, value in found.items():
                    sums[name] += value
            advance(1)
    return {name: total(value, runtime) / len(rows) for name, value in sums.items()}


def choose_sums(
    of_row: OfRow,
    size: Size,
    count: int,
    held: int,
    trial: tuple[Importance, Shaped[Tensor, "1 ..."], Int64[Tensor, " 1"]],
    runtime: Runtime,
) -> Sums:
    """Return the function that sums up the gradients of each row's losses: of all together, of some, or one by one.

    Whether ``torch.func.vmap`` takes the network is tried on a row and its first loss. What it raises is told and noted
    in the bill; a fault of the network itself comes up again in what is returned.

    Args:
        of_row: From weights, an input and a label to losses.
        size: What is taken of each gradient.
        count: How many losses a row has.
        held: The most gradients at a time.
        trial: Weights, an input and its label.
        runtime: Where to tell.
    """
    try:
        vmap(jacrev(lambda *given: of_row(*given)[:1]), in_dims=(None, 0, 0))(*trial)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        event = f"gradients are taken row by row, which is slow: torch.func.vmap does not take the network, {reason}"
        if event not in runtime.cost.events:
            runtime.cost.events.append(event)
            runtime.tell(event)
        return lambda *given: one_by_one(of_row, size, *given)
    if held < count:
        return lambda *given: some_at_a_time(of_row, size, held, *given)
    return lambda *given: rows_together(of_row, size, held // count, *given)


def rows_together(
    of_row: OfRow,
    size: Size,
    most: int,
    weights: Importance,
    inputs: Shaped[Tensor, "rows ..."],
    labels: Int64[Tensor, " rows"],
) -> Importance:
    """Return what is taken of the gradients, summed up, with those of at most so many rows held at a time."""
    gradients = vmap(jacrev(of_row), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for start in range(0, len(inputs), most):
        some = slice(start, start + most)
        for name, found in gradients(weights, inputs[some], labels[some]).items():
            sums[name] += size(found).sum(dim=(0, 1))
    return sums


def some_at_a_time(
    of_row: OfRow,
    size: Size,
    most: int,
    weights: Importance,
    inputs: Shaped[Tensor, "rows ..."],
    labels: Int64[Tensor, " rows"],
) -> Importance:
    """Return what is taken of the gradients, summed up, with those of at most so many losses held at a time."""
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row, label in zip(inputs, labels, strict=True):
        losses, pull, *_ = vjp(lambda chosen, row=row, label=label: of_row(chosen, row, label), weights)
        each = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
        for start in range(0, len(losses), most):
            with torch.no_grad():  # of the gradients themselves no graph is wanted
                (found,) = vmap(pull)(each[start : start + most])
            for name, gradients in found.items():
                sums[name] += size(gradients).sum(dim=0)
    return sums


def one_by_one(
    of_row: OfRow,
    size: Size,
    weights: Importance,
    inputs: Shaped[Tensor, "rows ..."],
    labels: Int64[Tensor, " rows"],
) -> Importance:
    """Return what is taken of the gradients, summed up, by a backward pass for each row and loss."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row, label in zip(inputs, labels, strict=True):
        for loss in of_row(leaves, row, label):
            gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, materialize_grads=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                sums[name] += size(gradient)
    return sums


def batch_importance(
    model: nn.Module,
    rows: Rows,
    runtime: Runtime,
    losses: Losses,
    *,
    stage: str,
    batch_size: int,
    size: Size = torch.square,
) -> Importance:
    """Return the mean over batches of the squared gradient of each batch's mean loss, in evaluation mode.

    Args:
        model: Left as it is.
        rows: Each is read once, in order.
        runtime: Where.
        losses: Of one row; of the logits of a batch, by ``torch.func.vmap``.
        stage: Name for progress and cost.
        batch_size: Rows whose gradients are averaged before they are squared.
        size: What is taken of each batch's gradient in place of its square.
    """
    network = copy_of(model).eval()
    call = runtime.place(network)
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    batches = count_batches(len(rows), batch_size)
    with runtime.stage(stage, batches) as advance:
        for inputs, labels, weight in runtime.batches(rows, batch_size):
            if not len(inputs):  # a process without a share of this batch still takes part in its sum
                inputs, labels = inputs.new_zeros(1, *inputs.shape[1:]), labels.new_zeros(1)
            with runtime.cost.step((stage, "batch"), len(inputs)):
                loss = vmap(losses)(call(inputs), labels).sum(dim=1).mean() * (weight / runtime.fabric.world_size)
                gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for name, gradient in zip(weights, gradients, strict=True):
                sums[name] += size(total(gradient, runtime))
            advance(1)
    return {name: value.detach() / batches for name, value in sums.items()}


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights that are not frozen, by their names, out of any graph."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def total(value: Tensor, runtime: Runtime) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if runtime.fabric.world_size == 1:
        return value
    summed = runtime.fabric.all_reduce(value, reduce_op="sum")
    assert isinstance(summed, Tensor)  # noqa: S101
    return summed
