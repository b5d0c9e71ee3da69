"""Gradients: the slope of a model's mean loss over rows, weight by weight."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.methods._importance import total, trainable
from expunge.network import copy_of
from expunge.rows import Rows
from expunge.runtime import Runtime, count_batches


def mean_gradient(
    model: nn.Module, rows: Rows, runtime: Runtime, *, stage: str, batch_size: int = 256
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy over rows, in evaluation mode, by the names of weights not frozen.

    Args:
        model: Left as it is.
        rows: Each is read once.
        runtime: Where.
        stage: Name for progress and cost.
        batch_size: Rows at a time; it changes no more than rounding.
    """
    network = copy_of(model).eval()
    call = runtime.place(network)
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight) for name, weight in trainable(network).items()}
    with runtime.stage(stage, count_batches(len(rows), batch_size)) as advance:
        for inputs, labels, _ in runtime.batches(rows, batch_size):
            if len(inputs):
                with runtime.cost.step((stage, "gradient"), len(inputs)):
                    loss = functional.cross_entropy(call(inputs), labels, reduction="sum")
                    gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
                for name, gradient in zip(weights, gradients, strict=True):
                    sums[name] += gradient
            advance(1)
    return {name: total(value, runtime) / len(rows) for name, value in sums.items()}
