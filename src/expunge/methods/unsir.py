"""unsir: learn noise that the model is surest is not the class, impair with it, repair without it.

Tarun, Chundawat, Mandal and Kankanhalli, "Fast Yet Effective Machine Unlearning", IEEE TNNLS 2024,
https://arxiv.org/abs/2111.08947. The forgotten rows are never read: the model itself, the names of the classes and
a subset of the retained rows are enough.

1. Noise. Start from N(0, 1) images. With the model frozen, maximise their cross-entropy with the class that they
   stand for, less a penalty on their size (Adam).
2. Impair. Train one pass on the retain subset together with the noise, labelled with the class it was made for, at
   a high learning rate: what the weights knew of the class is overwritten.
3. Repair. Train on the retain subset alone, at a lower rate.

Reads: retain.

Differences from the authors' notebook, which `unsir_notebook` keeps: every class's noise carries its own label; all
noise images are used; the model is in evaluation mode while noise is learned, so that batch-norm statistics stay as
they were; no gradients reach the weights in that step.

Differences from the paper: the noise of all classes is learned in one batch that the classes share, and makes up a
fixed share of the impair step, so that the cost does not grow with their number; a pass has about as many steps on a
small subset as the paper's has on CIFAR-10, since Adam moves the weights by steps and not by rows; repair takes three
passes at a rate that falls to zero, where the paper takes one at a constant rate and "on rare occasions" more; the
retain subset is drawn at random. With `fresh_head`, which is ours and off, the forgotten classes' rows in the last
layer, which impair leaves longer than retraining does, are drawn anew before repair: docs/unsir.md.

How the defaults were chosen: ``benchmarks/defaults.py``.

Reproduction: not reproduced. The notebook's own numbers are those of `unsir_notebook`. With small networks on a part of
CIFAR-10 the class is forgotten wholly, as the paper says, at a cost of nine points of the others at these rates, and so
it is without the noise: ``benchmarks/results/unsir-cifar10.json``.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part, subset
from expunge.network import copy_of, find_head, reset_rows
from expunge.rows import JoinedRows, Rows, TakenRows, TensorRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.synthesis import move_inputs
from expunge.training import Count, NotNegative, Positive, adam, fit


@settings
class Unsir:
    """Error-maximising noise, impair, repair; never reads the forgotten rows."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    noise: Literal["learned", "gaussian", "zeros", "retained", "none"] = "learned"
    """What stands for the class in the impair step; all but the first are controls (see `impostors` for retained)."""
    noise_images: Count = 64
    """The most noise images in all, shared evenly by the forgotten classes; no more than the impair step uses."""
    noise_steps: Count = 40
    """Steps of Adam on the noise."""
    noise_lr: Positive = 0.1
    """Adam's learning rate on the noise, in units of the normalised input."""
    noise_penalty: NotNegative = 0.1
    """Weight of the squared L2 norm of a noise image."""
    noise_share: Annotated[float, Gt(0), Lt(1)] = 0.03
    """Share of noise among the rows of the impair step, at least a row per class; images are repeated to fill it."""
    retain_rows_per_class: Count = 1000
    """Retained rows drawn per class; all of a class that has fewer."""
    steps: Count = 24
    """Steps of one pass of impair or repair, which sets the batch size: rows / steps, from 8 to 256."""
    impair_lr: Positive = 0.02
    """Adam's learning rate in the impair step."""
    repair_lr: Positive = 0.01
    """Adam's learning rate in the repair step."""
    repair_schedule: Literal["constant", "linear"] = "linear"
    """Learning rate over the repair step: constant as in the paper, or falling linearly to zero."""
    impair_epochs: Count = 1
    """Passes of the impair step."""
    repair_epochs: Annotated[int, Ge(0)] = 3
    """Passes of the repair step; with none the copy is returned as impair left it."""

    fresh_head: bool = False
    """Whether the forgotten classes' rows of the last layer start the repair step as in a new network; ours."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that has forgotten the classes.

        Raises:
            RequestError: The request is of single rows.
            DivergedError: A rate is too high for this model.
            ModelError: A fresh head is asked for, and there is no head.
        """
        forgetting = copy_of(model)
        retain = subset(access["retain"], self.retain_rows_per_class, runtime.generator("unsir/retain"))
        mixed = retain
        if self.noise != "none":
            share = round(len(retain) * self.noise_share / (1 - self.noise_share))
            count = max(share, len(access.classes()))  # of a few rows a share can be none
            mixed = JoinedRows(retain, self._noise_rows(model, retain, access, runtime, count))
        impair = adam(epochs=self.impair_epochs, batch_size=batch_size(mixed, self.steps), lr=self.impair_lr)
        fit(forgetting, mixed, runtime, impair, stage="impair")
        if self.fresh_head:
            with runtime.seeded("unsir/head"):
                fresh = find_head(access.build(), access.num_classes)
            reset_rows(find_head(forgetting, access.num_classes), fresh, list(access.classes()))
        if self.repair_epochs:
            repair = adam(
                epochs=self.repair_epochs,
                batch_size=batch_size(retain, self.steps),
                lr=self.repair_lr,
                schedule=self.repair_schedule,
            )
            fit(forgetting, retain, runtime, repair, stage="repair")
        return forgetting

    def _noise_rows(self, model: nn.Module, retain: Rows, access: Access, runtime: Runtime, count: int) -> Rows:
        """Return so many rows of noise, each labelled with the class it was made for."""
        classes = access.classes()
        labels = torch.tensor(classes).repeat(-(-min(self.noise_images, count) // len(classes)))
        images = torch.zeros(len(labels), *access.input_size)
        if self.noise == "retained":
            images = impostors(retain, labels, runtime.generator("unsir/noise"))
        elif self.noise != "zeros":
            images = torch.randn(images.shape, generator=runtime.generator("unsir/noise"))
        if self.noise == "learned":
            images = maximise_error(
                model, images, labels, runtime, steps=self.noise_steps, lr=self.noise_lr, penalty=self.noise_penalty
            )
        for index in classes:
            runtime.images["noise", index] = images[labels == index][:8]
        return TakenRows(TensorRows(images, labels), np.arange(count) % len(images))


def impostors(
    retain: Rows, labels: Int64[Tensor, " images"], generator: torch.Generator
) -> Float[Tensor, "images ..."]:
    """Return retained images to pass for forgotten classes, each class's from one retained class drawn at random.

    Such images are, as the learned noise is meant to be, inputs that the model is sure are not of the class. They are
    rows of the retain subset, which also keeps them under their own labels, so that this control trains on the same
    retained rows as every other and reads no row more. A class with too few rows gives each more than once.

    Args:
        retain: The retain subset.
        labels: The forgotten class that each image is to pass for.
        generator: Draws the class, then its rows.
    """
    chosen = np.zeros(len(labels), dtype=np.int64)
    present = np.unique(retain.labels)
    for index in np.unique(labels.numpy()):
        own = labels.numpy() == index
        posing = present[int(torch.randint(len(present), (1,), generator=generator))]
        rows = np.flatnonzero(retain.labels == posing)
        order = torch.randperm(len(rows), generator=generator).numpy()
        chosen[own] = np.resize(rows[order], own.sum())
    images, _ = retain.batch(chosen)
    return images


def batch_size(rows: Rows, steps: int) -> int:
    """Return the batch size that goes through rows in so many steps, within 8 and 256."""
    return min(max(-(-len(rows) // steps), 8), 256)


def maximise_error(
    model: nn.Module,
    start: Float[Tensor, "images ..."],
    labels: Int64[Tensor, " images"],
    runtime: Runtime,
    *,
    steps: int,
    lr: float,
    penalty: float,
) -> Float[Tensor, "images ..."]:
    """Return inputs that the model is surest do not belong to the classes in `labels`.

    Minimises ``-cross_entropy(model(x), labels) + penalty * mean over images of ||x||²`` over x by Adam, with the
    model in evaluation mode and its weights out of the graph (the paper's equation for the noise).

    Args:
        model: Left as it is.
        start: Where the inputs start, on the CPU.
        labels: The class that each input is to be unlike.
        runtime: Where.
        steps: Steps of Adam.
        lr: Its learning rate.
        penalty: Weight of the squared norm, summed over an input's elements.

    Returns:
        As many inputs, on the CPU.
    """
    wanted = labels.to(runtime.device)

    def objective(images: Tensor, logits: Tensor, _: list[Tensor]) -> Tensor:
        size = images.flatten(1).square().sum(1).mean()
        return penalty * size - functional.cross_entropy(logits, wanted)

    return move_inputs(model, start, runtime, objective, steps=steps, lr=lr, stage="noise")
