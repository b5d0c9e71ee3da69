"""batch_norm: does the class come back when the statistics of batch normalisation are estimated anew?

Batch normalisation keeps a running mean and variance of every channel. A method that trains on unusual inputs, as
noise is, moves them, and part of what looks like forgetting may be these alone: they are undone without any training.

1. In a copy, reset the running statistics of every batch-norm layer, and take the plain mean over batches of retained
   rows; all other layers are in evaluation mode, and no weight moves.
2. ``forget_test``: accuracy on the forgotten classes' test rows (on ``forget`` rows if there are none). Ideal: that of
   retrained models; above their band, what was forgotten is back.
3. ``retain_test``: accuracy on kept rows. It informs.

Both are from 0 to 1; not known for a network without batch normalisation, and then they count for nothing. Stream:
``batch_norm/rows``, ``batch_norm/order``. Source: re-estimation as in Izmailov et al., https://arxiv.org/abs/1803.05407;
as a test of forgetting it is ours.

What it does not catch: anything that weights or biases hide, such as `head_mask`.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from expunge.audits._recovery import after_change, choose, forgotten_part
from expunge.case import Case
from expunge.data import Part
from expunge.finding import Finding
from expunge.network import copy_of
from expunge.rows import Rows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count


@settings
class BatchNorm:
    """Accuracy on forgotten and kept rows with batch-norm statistics of retained rows."""

    level: ClassVar[int | None] = 3

    retain_rows: Count = 2000
    """The most retained rows that statistics are estimated on."""
    batch_size: Count = 256
    """Rows per batch."""
    rows: Count = 2000
    """The most rows of each part that accuracy is measured on."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return two findings; they are not known if a model has no batch normalisation."""
        if not all(layers(evidence.model) for evidence in case.models):
            parts: tuple[Part, Part] = (forgotten_part(case), "retain_test")
            return [
                case.measure(
                    f"batch_norm/{part}",
                    lambda evidence: None,
                    level=None,
                    meaning="Share of rows that the model gets right with new batch-norm statistics.",
                    note="no batch normalisation in a model",
                )
                for part in parts
            ]
        retain = choose(case.split["retain"], self.retain_rows, case.runtime, "batch_norm/rows")

        def change(model: nn.Module) -> Iterator[nn.Module]:
            yield reestimated(model, retain, case.runtime, self.batch_size)

        return after_change(
            case,
            self,
            "batch_norm",
            change,
            level=self.level,
            words="with batch-norm statistics of kept rows",
            rows=self.rows,
        )


def layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norm layers of a model that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]


@torch.no_grad()
def reestimated(model: nn.Module, rows: Rows, runtime: Runtime, batch_size: int) -> nn.Module:
    """Return a copy whose running statistics are the mean over batches of these rows; the model is left as it was."""
    copied = copy_of(model).eval()
    for layer in layers(copied):
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over batches, where the newest one would count most
        layer.train()
    network = runtime.place(copied)
    for inputs, _, _ in runtime.batches(rows, batch_size, stream="batch_norm/order"):
        network(inputs)
    return copied.eval()
