"""bad_teacher: learn what is to be forgotten from a teacher that knows nothing, and the rest from the original.

Chundawat, Tarun, Mandal and Kankanhalli, "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks using an
Incompetent Teacher", AAAI 2023, https://arxiv.org/abs/2205.08096; code
https://github.com/vikram2000b/bad-teaching-unlearning.

1. Teachers. The competent one is the original; the incompetent one is a network of the same architecture with random
   weights. The student starts as the original.
2. Rows. Take the forgotten rows and a random share of the retained ones; no label is looked at.
3. Distil. Minimise the Kullback-Leibler divergence of the student's softened outputs from the incompetent teacher's on
   forgotten rows, from the competent teacher's on retained ones, with Adam.

Reads: retain and forget.

Differences from the code: it divides the divergence by the number of classes too (PyTorch's mean over all elements),
which Adam does not feel but for the constant that it adds to each step's divisor. Defaults are those of the code's
notebook: 30 % of the retained rows, one pass, a rate of 0.0001, a temperature of 1.

Reproduction: not tried at the size of its authors, which takes a GPU. On digits, with its own settings, it forgets next
to nothing, for want of steps: the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Le
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods._distillation import Teacher, divergence, teacher_of
from expunge.network import copy_of
from expunge.rows import JoinedRows, RelabelledRows, Rows, TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Loss, Positive, adam, fit


@settings
class BadTeacher:
    """Distil from an incompetent teacher on the forgotten rows, from the original on the others."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    retain_share: Annotated[float, Gt(0), Le(1)] = 0.3
    """Share of the retained rows that is drawn; at least one row."""
    epochs: Count = 1
    """Passes over these and the forgotten rows."""
    batch_size: Count = 256
    """Rows per step."""
    lr: Positive = 1e-4
    """Adam's learning rate."""
    temperature: Positive = 1.0
    """What all logits are divided by before the softmax."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that answers to the forgotten rows as a network that knows nothing."""
        forgetting = copy_of(model)
        with runtime.seeded("bad_teacher/incompetent"):
            incompetent = teacher_of(access.build(), runtime)
        loss = self.imitation(teacher_of(model, runtime), incompetent)
        rows = JoinedRows(marked(self._drawn(access["retain"], runtime), 0), marked(access["forget"], 1))
        training = adam(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)
        fit(forgetting, rows, runtime, training, stage="distil", loss=loss)
        return forgetting

    def imitation(self, competent: Teacher, incompetent: Teacher) -> Loss:
        """Return the loss of step 3. The label of a row is 1 if it is to be forgotten, and 0 if not."""

        def loss(
            logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
        ) -> Tensor:
            wanted = torch.where(labels[:, None] == 1, incompetent(inputs), competent(inputs))
            return divergence(logits, wanted, temperature=self.temperature).mean()

        return loss

    def _drawn(self, retain: Rows, runtime: Runtime) -> Rows:
        order = torch.randperm(len(retain), generator=runtime.generator("bad_teacher/retain")).numpy()
        return TakenRows(retain, np.sort(order[: max(1, round(self.retain_share * len(retain)))]))


def marked(rows: Rows, mark: int) -> Rows:
    """Return the same inputs, all under one label."""
    return RelabelledRows(rows, np.full(len(rows), mark, dtype=np.int64))
