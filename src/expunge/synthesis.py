"""Synthesis: inputs moved until a model says of them what is wanted, made from the model alone.

Activation maximisation (Simonyan et al., https://arxiv.org/abs/1312.6034); where an error is what is wanted, the noise
of UNSIR. Where the network has batch normalisation, what it remembers of its training data, the mean and the variance
of each channel, can be asked of the inputs too (DeepInversion, Yin et al., https://arxiv.org/abs/1912.08795). A few
steps are enough where inputs only have to lie where the model is at work, not to look like anything.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.network import copy_of
from expunge.runtime import Runtime

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Objective = Callable[[Tensor, Tensor, list[Tensor]], Tensor]
"""From inputs, their logits, and what was measured at each batch normalisation, to the loss."""
Measure = Callable[[nn.Module, Tensor], Tensor]
"""From a batch normalisation and what it is given to a number that is 0 where the two agree."""


def move_inputs(
    model: nn.Module,
    start: Float[Tensor, "images ..."],
    runtime: Runtime,
    objective: Objective,
    *,
    steps: int,
    lr: float,
    stage: str,
    measure: Measure | None = None,
) -> Float[Tensor, "images ..."]:
    """Return inputs moved by Adam to a lower loss, with the model in evaluation mode and its weights out of the graph.

    Args:
        model: Left as it is.
        start: Where the inputs start, on the CPU; all of them make one batch.
        runtime: Where.
        objective: The loss.
        steps: Steps of Adam; with none the start is returned.
        lr: Its learning rate, in units of the normalised input.
        stage: Name for progress and cost.
        measure: What to measure at batch normalisations that remember statistics; None measures nothing.

    Returns:
        As many inputs, on the CPU.
    """
    frozen = copy_of(model).eval().requires_grad_(False)
    network = runtime.place(frozen)
    images = start.to(runtime.device, copy=True).requires_grad_()
    optimizer = torch.optim.Adam([images], lr)
    track = runtime.tracking.curve(stage)
    with _measured(frozen, measure) as found, runtime.stage(stage, steps) as advance:
        for step in range(steps):
            found.clear()
            with runtime.cost.step(stage, len(images)):
                loss = objective(images, network(images), found)
                optimizer.zero_grad()
                runtime.backward(loss)
            optimizer.step()
            track(step + 1, loss.detach())
            advance(1)
    return images.detach().cpu()


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

    Minimises ``cross_entropy(model(x), labels) + statistics * mismatch`` over x; see `move_inputs`, and `mismatch`,
    which is summed over all batch normalisations.

    Args:
        model: Left as it is.
        start: Where the inputs start, on the CPU.
        labels: The class that each input is to be taken for.
        runtime: Where.
        steps: Steps of Adam.
        lr: Its learning rate, in units of the normalised input.
        statistics: Weight of the mismatch.

    Returns:
        As many inputs, on the CPU.
    """
    wanted = labels.to(runtime.device)

    def objective(images: Tensor, logits: Tensor, mismatches: list[Tensor]) -> Tensor:
        loss = functional.cross_entropy(logits, wanted)
        return loss + statistics * torch.stack(mismatches).sum() if mismatches and statistics else loss

    return move_inputs(model, start, runtime, objective, steps=steps, lr=lr, stage="synthesis", measure=mismatch)


@contextmanager
def _measured(model: nn.Module, measure: Measure | None) -> Iterator[list[Tensor]]:
    """Give a list to which each forward pass adds what is measured at every batch normalisation."""
    found: list[Tensor] = []

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert measure is not None  # noqa: S101
        found.append(measure(layer, inputs[0]))

    layers = [layer for layer in model.modules() if isinstance(layer, NORMS) and layer.running_mean is not None]
    handles = [layer.register_forward_pre_hook(watch) for layer in layers if measure is not None]
    yield found
    for handle in handles:
        handle.remove()


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
