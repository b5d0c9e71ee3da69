"""neggrad_plus: descend the loss of the retained rows and climb that of the forgotten ones, in the same step.

Kurmanji, Triantafillou, Hayes and Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023,
https://arxiv.org/abs/2302.09880, as a stronger baseline than `gradient_ascent`; code https://github.com/meghdadk/SCRUB.

1. In every step, take as many forgotten rows as retained ones; the forgotten ones come up again and again.
2. Minimise ``weight * L(retained) - (1 - weight) * L(forgotten)``, where L is the mean cross-entropy, with SGD.

Reads: retain and forget.

Differences from the code: a batch is a random choice of both kinds, half of each on average (the code takes 32 retained
rows and 16 forgotten ones), and each row counts as in a batch of half and half; SGD has Nesterov momentum of 0.9, with
which a rate of 0.001 goes as fast as the code's 0.01 without.

Reproduction: not tried at the size of its authors, which takes a GPU. On digits, with its own settings, it forgets next
to nothing, for want of steps; on a part of CIFAR-10 the class goes: the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Lt
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part
from expunge.network import copy_of
from expunge.rows import JoinedRows, RelabelledRows, Rows, TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, Training, fit


@settings
class NeggradPlus:
    """Gradient descent on the retained rows with gradient ascent on the forgotten ones."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    weight: Annotated[float, Gt(0), Lt(1)] = 0.9999
    """Weight of the retained rows' loss; that of the forgotten rows' is what it lacks to 1."""
    epochs: Count = 5
    """Passes over the retained rows."""
    batch_size: Count = 32
    """Rows of each kind per step, on average."""
    lr: Positive = 0.001
    """Learning rate of SGD with momentum 0.9."""
    weight_decay: NotNegative = 0.0
    """SGD's weight decay."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that is worse at the forgotten rows alone.

        Raises:
            DivergedError: The loss has left every bound, at lower rates too.
        """
        forgetting, retain = copy_of(model), access["retain"]
        forget = repeated(access["forget"], len(retain), runtime.generator("neggrad_plus/forget"))
        marked = RelabelledRows(forget, forget.labels + access.num_classes)
        training = Training(
            epochs=self.epochs,
            batch_size=2 * self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="constant",
        )
        fit(forgetting, JoinedRows(retain, marked), runtime, training, stage="contrast", loss=self.contrast)
        return forgetting

    def contrast(
        self, logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
    ) -> Tensor:
        """Return the loss of step 2. The label of a row to forget is its class plus the number of classes."""
        classes = logits.shape[1]
        losses = functional.cross_entropy(logits, labels % classes, reduction="none")
        return mean_of_both(self.weight * losses, -(1 - self.weight) * losses, labels >= classes)


def mean_of_both(
    retained: Float[Tensor, " rows"], forgotten: Float[Tensor, " rows"], to_forget: Bool[Tensor, " rows"]
) -> Tensor:
    """Return the mean loss of retained rows plus that of forgotten ones, as far as a batch can tell.

    Each row counts as in a batch that has as many of one kind as of the other. On average all have; and what is a mean
    over rows is the same however a batch is shared out over processes.

    Args:
        retained: The loss of each row if it is a retained one.
        forgotten: That if it is to be forgotten.
        to_forget: What it is.
    """
    return 2 * torch.where(to_forget, forgotten, retained).mean()


def repeated(rows: Rows, count: int, generator: torch.Generator) -> Rows:
    """Return so many rows: those there are in a random order, over and over."""
    order = torch.randperm(len(rows), generator=generator).numpy()
    return TakenRows(rows, np.resize(order, count))
