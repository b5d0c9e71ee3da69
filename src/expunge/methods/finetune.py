"""finetune: train on, without what is to be forgotten. The control for UNSIR's noise.

The same retained rows, steps, batches and learning rates as `unsir`, and no noise at all: what it forgets, it forgets
because the class is absent while the weights move fast.

1. Draw the retain subset.
2. Train at the impair rate, then at the repair rate.

Reads: retain. Source: "fine-tuning" in Golatkar et al., https://arxiv.org/abs/1911.04933; as a control of UNSIR it
is ours.

Reproduction: no public number. As a control it is ours.
"""

from dataclasses import fields
from typing import ClassVar, Literal

from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods.unsir import Unsir
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive


@settings
class Finetune:
    """Train on the retained rows as UNSIR does, without noise."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    retain_rows_per_class: Count = 1000
    """Retained rows drawn per class; all of a class that has fewer."""
    steps: Count = 24
    """Steps of one pass, which sets the batch size: rows / steps, from 8 to 256."""
    impair_lr: Positive = 0.02
    """Adam's learning rate in the first stage."""
    repair_lr: Positive = 0.01
    """Adam's learning rate in the second stage."""
    repair_schedule: Literal["constant", "linear"] = "linear"
    """Learning rate over the second stage: constant, or falling linearly to zero."""
    impair_epochs: Count = 1
    """Passes of the first stage."""
    repair_epochs: Count = 3
    """Passes of the second stage."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy trained on the retain subset."""
        same = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return Unsir(noise="none", **same)(model, access, runtime)
