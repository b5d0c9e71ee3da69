"""Synthesis: inputs that a model takes for given classes, made from the model alone.

Images of noise are moved until the model names the class that each is to stand for: activation maximisation (Simonyan
et al., https://arxiv.org/abs/1312.6034). Where the network has batch normalisation, what it remembers of its training
data, the mean and the variance of each channel, is asked of the images too (DeepInversion, Yin et al.,
https://arxiv.org/abs/1912.08795). A few steps are enough where the images only have to lie where the model is at work,
not to look like anything.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.network import copy_of
from expunge.runtime import Runtime

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synthesise(
    model: nn.Module,
    start: Float[Tensor, "images ..."],
    labels: Int64[Tensor, " images"],
    runtime: Runtime,
    *,
    steps: int,
    lr: float,
    statistics: float,
) -> Float[Tensor, "images ..."]:
    """Return inputs that the model takes for the classes in `labels`.

    Minimises ``cross_entropy(model(x), labels) + statistics * mismatch`` over x by Adam, in evaluation mode, with the
    weights out of the graph. The mismatch is the sum over batch normalisations of the mean squared difference between
    the images' mean and standard deviation per channel and the remembered ones, in units of the remembered deviation.

    Args:
        model: Left as it is.
        start: Where the inputs start, on the CPU; all of them make one batch.
        labels: The class that each input is to be taken for.
        runtime: Where.
        steps: Steps of Adam; with none the start is returned.
        lr: Its learning rate, in units of the normalised input.
        statistics: Weight of the mismatch.

    Returns:
        As many inputs, on the CPU.
    """
    network = copy_of(model).eval().requires_grad_(False)
    images = start.to(runtime.device, copy=True).requires_grad_()
    labels = labels.to(runtime.device)
    optimizer = torch.optim.Adam([images], lr)
    mismatches: list[Tensor] = []
    call = runtime.place(network)
    with runtime.stage("synthesis", steps) as advance, ExitStack() as watched:
        for module in network.modules():
            if isinstance(module, NORMS) and module.running_mean is not None:
                watched.callback(module.register_forward_hook(_note(mismatches)).remove)
        for _ in range(steps):
            mismatches.clear()
            with runtime.cost.step("synthesis", len(images)):
                loss = functional.cross_entropy(call(images), labels)
                if mismatches and statistics:
                    loss = loss + statistics * torch.stack(mismatches).sum()
                optimizer.zero_grad()
                runtime.backward(loss)
            optimizer.step()
            advance(1)
    return images.detach().cpu()


def _note(mismatches: list[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    return lambda module, inputs, output: mismatches.append(mismatch(module, inputs[0]))


def mismatch(norm: nn.Module, values: Float[Tensor, "images channels ..."]) -> Float[Tensor, ""]:
    """Return how far values differ, per channel, in mean and deviation from what a batch normalisation remembers.

    The mean over channels of both squared differences, in units of the remembered standard deviation.

    Args:
        norm: A batch normalisation with remembered statistics.
        values: What it is given.
    """
    assert isinstance(norm, NORMS) and norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018
    axes = [axis for axis in range(values.ndim) if axis != 1]
    variance, mean = torch.var_mean(values, dim=axes, correction=0)
    deviation = (norm.running_var + norm.eps).sqrt()
    # the root of zero has no gradient
    spread = (variance + norm.eps).sqrt()
    return (((mean - norm.running_mean) / deviation).square() + ((spread - deviation) / deviation).square()).mean()
