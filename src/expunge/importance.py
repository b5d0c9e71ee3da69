"""Importance: the mean square of the gradient with respect to every weight, row by row or batch by batch.

Of the log-likelihood it is the diagonal of the Fisher information: how sharply the outputs depend on a weight.
The square is of each row's own gradient. The square of a batch's mean gradient is another number: smaller where rows
disagree, by up to the size of the batch, with which it changes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from expunge.network import copy_of
from expunge.rows import Rows
from expunge.runtime import Runtime, count_batches

Importance = dict[str, Tensor]
"""By the name of a weight that is not frozen: one number for each of its elements."""
Losses = Callable[[Float[Tensor, " classes"], Int64[Tensor, ""]], Float[Tensor, " losses"]]
"""From the logits and the label of one row to one loss or more, whose squared gradients are summed."""
NUMBERS = 2**27
"""The most elements of gradients held at a time, half a gigabyte in single precision."""
ROWS = 64
"""The most rows at a time."""


def row_importance(
    model: nn.Module, rows: Rows, runtime: Runtime, losses: Losses, *, stage: str, count: int = 1
) -> Importance:
    """Return the mean over rows of the squared gradients of each row's own losses, in evaluation mode.

    Args:
        model: Left as it is. It must be one that ``torch.func.vmap`` takes.
        rows: Each is read once.
        runtime: Where.
        losses: Of one row.
        stage: Name for progress and cost.
        count: How many losses they are; they set how many rows are gone through at a time.
    """
    network = copy_of(model).to(runtime.device).eval()
    weights = trainable(network)
    dtype = next(network.parameters()).dtype

    def of_row(chosen: Importance, row: Tensor, label: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, chosen, (row[None].to(dtype),))
        return losses(logits[0], label)

    size = max(1, min(ROWS, NUMBERS // (count * sum(weight.numel() for weight in weights.values()))))
    gradients = vmap(jacrev(of_row), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with runtime.stage(stage, count_batches(len(rows), size)) as advance:
        for inputs, labels, _ in runtime.batches(rows, size):
            if len(inputs):
                with runtime.cost.step((stage, count), len(inputs)):
                    found = gradients(weights, inputs, labels)
                for name, gradient in found.items():
                    sums[name] += gradient.square().sum(dim=(0, 1))
            advance(1)
    return {name: total(value, runtime) / len(rows) for name, value in sums.items()}


def batch_importance(
    model: nn.Module, rows: Rows, runtime: Runtime, losses: Losses, *, stage: str, batch_size: int
) -> Importance:
    """Return the mean over batches of the squared gradient of each batch's mean loss, in evaluation mode.

    Args:
        model: Left as it is.
        rows: Each is read once; the stream ``{stage}/order`` puts them into batches.
        runtime: Where.
        losses: Of one row.
        stage: Name for progress and cost.
        batch_size: Rows whose gradients are averaged before they are squared.
    """
    network = copy_of(model).eval()
    call = runtime.place(network)
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    batches = count_batches(len(rows), batch_size)
    with runtime.stage(stage, batches) as advance:
        for inputs, labels, weight in runtime.batches(rows, batch_size, stream=f"{stage}/order"):
            if not len(inputs):  # a process without a share of this batch still takes part in its sum
                inputs, labels = inputs.new_zeros(1, *inputs.shape[1:]), labels.new_zeros(1)
            with runtime.cost.step((stage, "batch"), len(inputs)):
                loss = vmap(losses)(call(inputs), labels).sum(dim=1).mean() * (weight / runtime.fabric.world_size)
                gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for name, gradient in zip(weights, gradients, strict=True):
                sums[name] += total(gradient, runtime).square()
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
