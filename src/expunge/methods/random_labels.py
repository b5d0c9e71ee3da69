"""random_labels: train on with random wrong labels for what is to be forgotten, drawn once.

Graves, Nagisetty and Ganesh, "Amnesiac Machine Learning", AAAI 2021, https://arxiv.org/abs/2010.10981: the paper's
"unlearning", not its amnesiac unlearning, which must have kept every step of the training.

1. Give every forgotten row a label that is not its own, drawn at random.
2. Train a few passes on these and on the retained rows, with Adam.

Reads: retain and forget.

Differences from the paper: where whole classes are forgotten, labels are drawn from the retained ones alone, so that
none of the forgotten classes is taught to rows of another. Passes, rate and batch size are those of the authors of
"Selective Synaptic Dampening", https://arxiv.org/abs/2308.07707, who compare with it on larger networks.

Reproduction: not tried at the size of its authors, which takes a GPU. On digits, with its own settings, it forgets next
to nothing, for want of steps: the tables of ``docs/methods.md``.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.network import copy_of
from expunge.rows import JoinedRows, RelabelledRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, adam, fit


@settings
class RandomLabels:
    """Random wrong labels for the forgotten rows, drawn once; true ones for the rest."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    epochs: Count = 3
    """Passes over all rows."""
    batch_size: Count = 128
    """Rows per step."""
    lr: Positive = 1e-4
    """Adam's learning rate."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that was taught other labels."""
        forgetting = copy_of(model)
        labels = other_labels(access, runtime.generator("random_labels/labels"))
        rows = JoinedRows(access["retain"], RelabelledRows(access["forget"], labels))
        training = adam(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)
        fit(forgetting, rows, runtime, training, stage="relabelled")
        return forgetting


def other_labels(access: Access, generator: torch.Generator) -> Int64[np.ndarray, " rows"]:
    """Return a label for every forgotten row, each drawn from all classes but its own and the forgotten ones."""
    allowed, single = np.array(access.kept_classes()), bool(access.request.rows)
    own = np.searchsorted(allowed, access["forget"].labels)
    drawn = torch.randint(len(allowed) - single, (len(own),), generator=generator).numpy()
    # of single rows every class is allowed but the row's own: numbers from that one on stand for the next
    labels: Int64[np.ndarray, " rows"] = allowed[drawn + (drawn >= own) if single else drawn]
    return labels
