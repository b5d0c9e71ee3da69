"""boundary_expand: teach the forgotten rows to be of a class that there is not, and then take that class away.

Chen, Gao, Liu, Peng and Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision
Boundary", CVPR 2023, https://arxiv.org/abs/2303.11570 (Boundary Expanding); code
https://github.com/TY-LEE-KR/Boundary-Unlearning-Code, a copy of the authors'.

1. Widen. Give the head one more output, the shadow class, with fresh weights (Glorot's normal ones and no bias); the
   other outputs stay as they are.
2. Expand. Train on the forgotten rows, all labelled with the shadow class, with SGD.
3. Prune. Drop the shadow class. What the forgotten rows have left is meant to be spread over the other classes.

The output of the forgotten class stays in the head as it was, but for what the training did to it: where few classes
are left to take its rows, they may come back to it.

Reads: forget.

Defaults are those of the code for an All-CNN on CIFAR-10, where ten passes are 790 steps. A small set has fewer, and at
this rate keeps much of the class: on the digits, with some 30 steps, it takes ten times the rate.

Differences from the code: several forgotten classes share one shadow class; batch normalisation keeps its statistics
(`batch_norm = "moving"` lets them move to those of the forgotten rows, as the code does); momentum is Nesterov's. The
paper forgets one whole class; single rows are treated alike.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.network import batch_norms, copy_of, find_head, with_head
from expunge.rows import RelabelledRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, Training, fit


@settings
class BoundaryExpand:
    """Train the forgotten rows to be of a shadow class, and prune it (Boundary Expanding)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"forget"})

    epochs: Count = 10
    """Passes over the forgotten rows."""
    batch_size: Count = 64
    """Rows per step."""
    lr: Positive = 1e-5
    """Learning rate of SGD with momentum 0.9."""
    batch_norm: Literal["still", "moving"] = "still"
    """Whether batch normalisation keeps the statistics that it came with."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy in which the forgotten rows went to the shadow class. Stream: ``boundary_expand/shadow``.

        Raises:
            ModelError: The network has no linear head.
            DivergedError: The loss has left every bound, at lower rates too.
        """
        classes, forget = access.num_classes, access["forget"]
        narrow = find_head(copy_of(model), classes)
        with runtime.seeded("boundary_expand/shadow"):
            wide = widened(narrow)
        forgetting = copy_of(model)
        forgetting = with_head(forgetting, find_head(forgetting, classes), wide)
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=0.0,
            schedule="constant",
        )
        shadow = RelabelledRows(forget, np.full(len(forget), classes))
        asleep = batch_norms(forgetting) if self.batch_norm == "still" else ()
        fit(forgetting, shadow, runtime, training, stage="expand", asleep=asleep)
        return with_head(forgetting, wide, pruned(wide, narrow))


def widened(head: nn.Linear) -> nn.Linear:
    """Return a head with one more output, whose weights torch's global generator draws; the others are as they were."""
    wide = nn.Linear(head.in_features, head.out_features + 1, bias=head.bias is not None).to(head.weight)
    nn.init.xavier_normal_(wide.weight)
    if wide.bias is not None:
        nn.init.zeros_(wide.bias)
    with torch.no_grad():
        for name, weight in head.named_parameters():
            wide.get_parameter(name)[:-1] = weight
            wide.get_parameter(name).requires_grad_(weight.requires_grad)
    return wide.train(head.training)


@torch.no_grad()
def pruned(wide: nn.Linear, head: nn.Linear) -> nn.Linear:
    """Put the weights of a wide head's outputs but the last into a head with one output less, and return it."""
    head.to(wide.weight.device)
    for name, weight in head.named_parameters():
        weight.copy_(wide.get_parameter(name)[:-1])
    return head
