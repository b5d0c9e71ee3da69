"""boundary_shrink: teach each forgotten row the class that is nearest to it, so that neighbours take the region over.

Chen, Gao, Liu, Peng and Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision
Boundary", CVPR 2023, https://arxiv.org/abs/2303.11570 (Boundary Shrink); code
https://github.com/TY-LEE-KR/Boundary-Unlearning-Code, a copy of the authors'.

1. Nearest class. Move each forgotten row one step up the loss of its own class, by `bound` in the sign of the gradient
   (the fast gradient sign method, https://arxiv.org/abs/1412.6572). The class that the original then takes it for,
   other than its own, is the nearest.
2. Shrink. Train on the forgotten rows, unmoved, under these labels, with SGD.

Reads: forget.

Defaults are those of the code for an All-CNN on CIFAR-10, where ten passes are 790 steps. A small set has fewer, and at
this rate keeps much of the class: on the digits, with some 30 steps, it takes ten times the rate.

Differences from the code: a row that the step does not take out of its own class gets the likeliest other one, where
the code trains it further as what it is; where several classes are forgotten, none of them is given; the step is taken
in units of the normalised input, for which 0.5 is about the code's 0.1 of brightness on CIFAR-10, and its result is
neither clipped nor rounded to what an image can be, since a method knows of no such limits; batch normalisation keeps
its statistics (`batch_norm = "moving"` lets them move to those of the forgotten rows, as the code does); momentum is
Nesterov's. The paper forgets whole classes; single rows are treated alike.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part
from expunge.methods._other_classes import among_others, forgotten_classes
from expunge.network import batch_norms, copy_of
from expunge.rows import RelabelledRows, Rows
from expunge.runtime import Runtime, count_batches
from expunge.settings import settings
from expunge.training import Count, Positive, Training, fit


@settings
class BoundaryShrink:
    """Train the forgotten rows to be of the class nearest to each (Boundary Shrink)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"forget"})

    bound: Positive = 0.5
    """How far each element of an input is moved, in units of the normalised input."""
    epochs: Count = 10
    """Passes over the forgotten rows."""
    batch_size: Count = 64
    """Rows per step."""
    lr: Positive = 1e-5
    """Learning rate of SGD with momentum 0.9."""
    batch_norm: Literal["still", "moving"] = "still"
    """Whether batch normalisation keeps the statistics that it came with."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that takes the forgotten rows for what is nearest to them.

        Raises:
            DivergedError: The loss has left every bound, at lower rates too.
        """
        forgetting, forget = copy_of(model), access["forget"]
        nearest = nearest_labels(
            model, forget, forgotten_classes(access), runtime, bound=self.bound, batch_size=self.batch_size
        )
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=0.0,
            schedule="constant",
        )
        asleep = batch_norms(forgetting) if self.batch_norm == "still" else ()
        fit(forgetting, RelabelledRows(forget, nearest), runtime, training, stage="shrink", asleep=asleep)
        return forgetting


def nearest_labels(
    model: nn.Module, rows: Rows, forgotten: tuple[int, ...], runtime: Runtime, *, bound: float, batch_size: int
) -> Int64[np.ndarray, " rows"]:
    """Return the class that each row is taken for after one step up the loss of its own, other than its own.

    Args:
        model: Left as it is; in evaluation mode.
        rows: Each is read once.
        forgotten: Classes that no row is given.
        runtime: Where.
        bound: How far each element of an input is moved.
        batch_size: Rows at a time.
    """
    network = runtime.place(copy_of(model).eval().requires_grad_(False))
    shares = runtime.shares(len(rows), batch_size)
    found, places = [], []
    with runtime.stage("nearest", count_batches(len(rows), batch_size), len(rows)) as advance:
        for (inputs, labels, _), share in zip(runtime.batches(rows, batch_size), shares, strict=True):
            with runtime.cost.step("nearest", len(inputs)):
                moved = away(network, inputs, labels, bound)
                with torch.no_grad():
                    found.append(among_others(network(moved), labels, forgotten).argmax(dim=1))
            places.append(share)
            advance(1)
    nearest: Int64[np.ndarray, " rows"] = (
        runtime.assemble(torch.cat(found), np.concatenate(places), len(rows)).cpu().numpy()
    )
    return nearest


def away(
    network: Callable[[Tensor], Tensor], inputs: Float[Tensor, "rows ..."], labels: Int64[Tensor, " rows"], bound: float
) -> Float[Tensor, "rows ..."]:
    """Return inputs moved one step up the loss of their own class, by `bound` in the sign of the gradient."""
    start = inputs.detach().clone().requires_grad_()
    torch.autograd.backward(functional.cross_entropy(network(start), labels, reduction="sum"))
    assert start.grad is not None  # noqa: S101
    return inputs + bound * start.grad.sign()
