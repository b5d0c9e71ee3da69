"""Training and prediction: the only two loops over rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from expunge.course import TRIES, Course, weights_of
from expunge.errors import ModelError
from expunge.fingerprints import tensors_hash
from expunge.network import batch_norms
from expunge.precision import check_trains
from expunge.rows import Indices, Rows
from expunge.runtime import Runtime, count_batches
from expunge.settings import settings, to_mapping
from expunge.taps import Tap, tapped

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]
Loss = Callable[[Float[Tensor, "rows classes"], Int64[Tensor, " rows"], Shaped[Tensor, "rows ..."]], Tensor]
"""From logits, labels and inputs of a batch to one number: the loss, as a mean over the rows."""
Penalty = Callable[[nn.Module, int], Tensor]
"""From a model and the number of steps done to one number: what its weights cost beside the loss."""


def cross_entropy(
    logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
) -> Tensor:
    """Return the mean cross-entropy, in nats."""
    return functional.cross_entropy(logits, labels)


@settings
class Training:
    """How to train a network on rows with cross-entropy."""

    epochs: Count = 30
    """Passes over the rows."""
    batch_size: Count = 64
    """Rows per step, over all processes."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    """PyTorch's optimiser of that name; sgd has Nesterov momentum 0.9."""
    lr: Positive = 0.005
    """Learning rate; with a one_cycle schedule the highest."""
    weight_decay: NotNegative = 0.01
    """Weight decay as the optimiser defines it."""
    schedule: Literal["constant", "linear", "one_cycle"] = "one_cycle"
    """Learning rate over the steps: constant, falling linearly to zero, or PyTorch's OneCycleLR."""


def adam(*, epochs: int, batch_size: int, lr: float, schedule: Literal["constant", "linear"] = "constant") -> Training:
    """Return plain Adam without weight decay: how UNSIR's authors take every step."""
    return Training(epochs=epochs, batch_size=batch_size, optimizer="adam", lr=lr, weight_decay=0.0, schedule=schedule)


def fit(
    model: nn.Module,
    rows: Rows,
    runtime: Runtime,
    training: Training,
    *,
    stage: str,
    loss: Loss = cross_entropy,
    penalty: Penalty | None = None,
    asleep: Iterable[nn.Module] = (),
    after_step: Callable[[], None] | None = None,
) -> None:
    """Train a model in place on rows. Weights that are frozen stay as they are.

    A training that diverges goes back and on at half the rate, and one that was killed goes on from the runtime's
    journal (see `expunge.course`); neither does if its steps are watched.

    A batch of one row may give a batch normalisation one value per channel, which has no variance to be divided by: for
    that batch it goes by its running statistics, and leaves them as they are.

    Args:
        model: Returns logits (rows, classes). Left on the runtime's device, in the mode that it came in, with no
            gradients.
        rows: What to train on.
        runtime: Where; the streams ``{stage}/order`` and ``{stage}/dropout`` are drawn from.
        training: How.
        stage: Name for progress, cost and random streams.
        loss: What to make small. For one that is not cross-entropy, labels need not be classes.
        penalty: What to make small beside it, of the model that is trained, which may be a copy of `model`; of weights
            that are shared out over processes, each process's own part.
        asleep: Modules of the model that stay in evaluation mode, such as those whose weights are frozen; each by
            itself, and not the modules inside it.
        after_step: Called after every step, to watch the model as it is then; it must leave it so.

    Raises:
        ModelError: Weights are in half precision (see `expunge.precision`), or all of them are frozen.
        DivergedError: The loss was not finite or left every bound, at lower rates too; the model is then not usable.
        KeyboardInterrupt: The user has asked to stop; progress is kept.
    """
    check_trains(model)
    was_training = model.training
    model.to(runtime.device).train()
    for module in asleep:
        module.training = False
    name = None if after_step else _name(model, rows, runtime, training, stage)
    trainee = runtime.trainee(model)
    optimizer = make_optimizer(trainee.model, training)
    steps = count_batches(len(rows), training.batch_size, training.epochs)
    schedule = make_schedule(optimizer, training, steps)
    norms = awake_norms(trainee.model, runtime)
    network, stepper = trainee.call, runtime.stepper(optimizer)
    trainable = sum(weight.requires_grad for weight in model.parameters())
    with (
        runtime.seeded(f"{stage}/dropout", apart=True),
        runtime.stage(stage, steps, len(rows) * training.epochs) as advance,
        runtime.stoppable(),
    ):
        course = Course(
            model=trainee.model,
            optimizer=optimizer,
            schedule=schedule,
            runtime=runtime,
            stage=stage,
            steps=steps,
            name=name,
            tries=0 if after_step else TRIES,
        )
        advance(course.done)
        track = runtime.tracking.curve(stage)
        while course.done < steps:
            for inputs, labels, weight in runtime.batches(
                rows, training.batch_size, epochs=training.epochs, stream=f"{stage}/order", skip=course.done
            ):
                if not len(inputs):  # a process without a share of this batch still takes part in the step
                    inputs, labels = inputs.new_zeros(1, *inputs.shape[1:]), labels.new_zeros(1)
                with runtime.cost.step(("fit", trainable, loss), len(inputs)), rested(norms, len(inputs)):
                    error = loss(network(inputs), labels, inputs)
                    stepper.zero_grad()
                    # multiplying by one would cost a node of the graph at every step of a single process
                    whole = error if weight == 1 else error * weight
                    runtime.backward(whole if penalty is None else whole + penalty(trainee.model, course.done))
                stepper.step()
                schedule.step()
                if after_step is not None:
                    after_step()
                advance(1)
                track(course.done + 1, error.detach())
                if not course.step(error.detach()):
                    break
    trainee.put_into(model)
    model.zero_grad(set_to_none=True)
    model.train(was_training)


def awake_norms(model: nn.Module, runtime: Runtime) -> list[nn.Module]:
    """Return the batch normalisations that go by the statistics of this process's own share of a batch."""
    synchronised = nn.SyncBatchNorm if runtime.fabric.world_size > 1 else ()
    return [norm for norm in batch_norms(model) if norm.training and not isinstance(norm, synchronised)]


@contextmanager
def rested(norms: list[nn.Module], rows: int) -> Iterator[None]:
    """Let batch normalisations that are given one value per channel go by their running statistics inside.

    PyTorch refuses to train them on one value.

    Args:
        norms: In training mode, as they are after it.
        rows: How many make up the batch; of more than one nothing is done.
    """

    def rest(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        norm.training = inputs[0].numel() > inputs[0].shape[1]

    handles = [norm.register_forward_pre_hook(rest) for norm in norms] if rows == 1 else []
    try:
        yield
    finally:
        for handle, norm in zip(handles, norms, strict=False):
            handle.remove()
            norm.train()


def _name(model: nn.Module, rows: Rows, runtime: Runtime, training: Training, stage: str) -> str | None:
    """Return the name of a training in the journal: by what it starts from and how it goes."""
    if runtime.journal is None:
        return None
    start = tensors_hash(weights_of(model))
    return runtime.journal.name("fit", stage, runtime.seed, to_mapping(training), len(rows), start)


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimiser of the weights that are not frozen."""
    return optimizer_of([weight for weight in model.parameters() if weight.requires_grad], training)


def optimizer_of(weights: list[Tensor], training: Training) -> torch.optim.Optimizer:
    """Return the optimiser of these weights: PyTorch's fused kernels, which cost half of its loops over weights.

    Raises:
        ModelError: There are none.
    """
    if not weights:
        raise ModelError("expected weights to train, got all of them frozen: unfreeze layers, or use another method")
    lr, decay = training.lr, training.weight_decay
    match training.optimizer:
        case "sgd":
            # of weights that are shared out, PyTorch has no fused SGD
            fused = not any(isinstance(weight, DTensor) for weight in weights)
            return torch.optim.SGD(weights, lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=fused)
        case "adam":
            return torch.optim.Adam(weights, lr, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(weights, lr, weight_decay=decay, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, training: Training, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate over so many steps."""
    match training.schedule:
        case "constant":
            return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        case "linear":
            return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        case "one_cycle":
            # one step more than there are: the schedule is advanced once after the last step
            return torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=steps + 1)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first weight."""
    return next(model.parameters()).device


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a model says of rows, on the CPU."""

    logits: Float[Tensor, "rows classes"]
    """Of all rows, in order."""
    labels: Int64[Tensor, " rows"]
    features: Mapping[str, Float[Tensor, "kept _"]]
    """By tap, of the rows that were to be kept, in single precision."""


def predict(
    model: nn.Module, rows: Rows, runtime: Runtime, *, batch_size: int = 512
) -> tuple[Float[Tensor, "rows classes"], Int64[Tensor, " rows"]]:
    """Return logits and labels of all rows, in order, on the CPU, with the model in evaluation mode.

    The model is left in the mode and on the device that it came in.
    """
    observed = observe(model, rows, runtime, (), np.zeros(0, dtype=np.int64), batch_size=batch_size)
    return observed.logits, observed.labels


@torch.no_grad()
def observe(
    model: nn.Module,
    rows: Rows,
    runtime: Runtime,
    taps: tuple[Tap, ...],
    kept: Indices,
    *,
    batch_size: int = 512,
) -> Observed:
    """Return logits and labels of all rows and the features of some, from one pass in evaluation mode.

    The model is left in the mode and on the device that it came in.

    Args:
        model: Returns logits (rows, classes).
        rows: What to show it.
        runtime: Where.
        taps: Where to read features.
        kept: Indices of the rows whose features are wanted, in ascending order; all others are dropped at once.
        batch_size: Rows per pass, over all processes.
    """
    was_training, home = model.training, device_of(model)
    network = runtime.place(model.eval())
    logits, labels, places = [], [], []
    features: dict[str, list[Tensor]] = {tap.name: [] for tap in taps}
    shares = runtime.shares(len(rows), batch_size)
    with tapped(taps) as caught:
        for (inputs, targets, _), share in zip(runtime.batches(rows, batch_size), shares, strict=True):
            with runtime.cost.step("predict", len(inputs)):
                logits.append(network(inputs).float())
            labels.append(targets)
            wanted = np.isin(share, kept)
            places.append(np.searchsorted(kept, share[wanted]))
            for name, values in caught.items():
                if len(values) == len(share):
                    features[name].append(values[torch.from_numpy(wanted).to(values.device)].cpu())
            caught.clear()
    model.to(home).train(was_training)
    gathered = [runtime.gather(torch.cat(values), len(rows), batch_size).cpu() for values in (logits, labels)]
    return Observed(
        logits=gathered[0],
        labels=gathered[1],
        features={
            name: runtime.assemble(torch.cat(values), np.concatenate(places), len(kept)).cpu()
            for name, values in features.items()
            if sum(map(len, values)) == sum(map(len, places))
        },
    )
