"""Stacked training: many small networks of one architecture trained at once, each from a seed of its own.

Source: "Model ensembling" of torch.func, https://docs.pytorch.org/tutorials/intermediate/ensembling.html.

1. Build each network from its own seed and stack their weights and buffers along a new first dimension.
2. Take each network's own next batch, in the order that its own seed draws.
3. Map one network's loss over the stack. Each network's running statistics are a slice of the stacked buffers, so batch
   normalisation in training mode updates each by itself.
4. The gradient of the sum of the losses holds the gradient of each; the optimisers of `Training` go element by element,
   so one step over the stack is a step of each.

Every network gets the weights that `training.fit` would give it, up to the rounding of sums in another order. One small
matrix product costs the processor as much as sixty-four in one call, which is where the time is saved.

Not every network can be stacked. One that draws random numbers while it trains, as dropout does, would depend on the
others in its stack; one whose course depends on numbers that it computes has no single course for all. Both are
refused.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from expunge.errors import DivergedError, ModelError, SettingsError
from expunge.precision import check_trains
from expunge.rows import Rows
from expunge.runtime import Runtime, batch_starts, count_batches
from expunge.training import Training, make_schedule, optimizer_of


def train_stacked(
    build: Callable[[], nn.Module],
    rows: Rows,
    runtime: Runtime,
    training: Training,
    seeds: Sequence[int],
    *,
    stage: str = "retrain",
    at_once: int = 64,
) -> list[dict[str, Tensor]]:
    """Return the weights of one network per seed, trained on rows from scratch.

    Args:
        build: Makes a network with fresh weights from torch's global generator.
        rows: What to train on.
        runtime: Where; for each seed the streams ``{stage}/init`` and ``{stage}/order`` are drawn from.
        training: How.
        seeds: One per network.
        stage: Name for progress, cost and random streams.
        at_once: The most networks in one stack.

    Raises:
        SettingsError: The precision needs a scale of the loss per network, as 16-mixed does.
        ModelError: The network cannot be stacked, or is in half precision.
        DivergedError: A network's loss was not finite.
    """
    if runtime.precision == "16-mixed":
        raise SettingsError("expected a precision without a scale of the loss, got '16-mixed': use bf16-mixed")
    states: list[dict[str, Tensor]] = []
    for start in range(0, len(seeds), at_once):
        states += _train(build, rows, [runtime.fresh(seed=seed) for seed in seeds[start : start + at_once]],
                         training, runtime, stage)  # fmt: skip
    return states


def _train(
    build: Callable[[], nn.Module],
    rows: Rows,
    streams: Sequence[Runtime],
    training: Training,
    runtime: Runtime,
    stage: str,
) -> list[dict[str, Tensor]]:
    networks = []
    for stream in streams:
        with stream.seeded(f"{stage}/init"):
            networks.append(build().to(runtime.device).train())
    if runtime.precision == "64-true":
        networks = [network.double() for network in networks]
    one = networks[0]
    check_trains(one)
    trained = {name for name, weight in one.named_parameters() if weight.requires_grad}
    weights, buffers = stack_module_state(networks)
    dtype = next(iter(weights.values())).dtype

    def loss_of(
        weights: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Float[Tensor, "rows ..."],
        labels: Int64[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        return functional.cross_entropy(functional_call(one, (weights, buffers), (inputs,)), labels)

    losses_of = vmap(loss_of, randomness="error")
    steps = count_batches(len(rows), training.batch_size, training.epochs)
    optimizer = optimizer_of([weights[name] for name in weights if name in trained], training)
    schedule = make_schedule(optimizer, training, steps)
    total = torch.zeros(len(networks), device=runtime.device, dtype=dtype)
    track = runtime.tracking.curve(f"{stage} stacked")
    with runtime.stage(stage, steps) as advance:
        for step, (inputs, labels) in enumerate(_batches(rows, streams, training, stage), start=1):
            optimizer.zero_grad()
            with runtime.fabric.autocast(), _stackable(one):
                losses = losses_of(weights, buffers, inputs.to(runtime.device, dtype), labels.to(runtime.device))
            torch.autograd.backward(losses.sum())
            optimizer.step()
            schedule.step()
            total += losses.detach()
            track(step, losses.detach().mean())
            advance(1)
    if not total.isfinite().all():
        bad = [stream.seed for stream, finite in zip(streams, total.isfinite().tolist(), strict=True) if not finite]
        raise DivergedError(f"expected finite losses in {stage}, got others with seeds {bad}: lower the learning rate")
    stacked = {name: value.detach().cpu() for name, value in (weights | buffers).items()}
    return [{name: stacked[name][index].clone() for name in one.state_dict()} for index in range(len(networks))]


@contextmanager
def _stackable(network: nn.Module) -> Iterator[None]:
    """Say in one line that a network cannot be mapped over, and what to do."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split(". ")[0].splitlines()[0]
        raise ModelError(
            f"expected a network that many of can be trained at once, got {type(network).__name__} ({reason}): "
            "train one after another, with stacked = 0"
        ) from error


def _batches(
    rows: Rows, streams: Sequence[Runtime], training: Training, stage: str
) -> Iterator[tuple[Shaped[Tensor, "models rows ..."], Int64[Tensor, "models rows"]]]:
    """Yield each network's own batch, in the order and of the sizes that `Runtime.batches` gives it."""
    generators = [stream.generator(f"{stage}/order") for stream in streams]
    cuts = batch_starts(len(rows), training.batch_size)[1:]
    for _ in range(training.epochs):
        orders = np.stack([torch.randperm(len(rows), generator=generator).numpy() for generator in generators])
        for chunk in np.split(orders, cuts, axis=1):
            inputs, labels = rows.batch(chunk.reshape(-1))
            yield inputs.view(*chunk.shape, *inputs.shape[1:]), labels.view(chunk.shape)
