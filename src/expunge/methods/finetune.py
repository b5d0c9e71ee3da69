"""finetune: train on, without what is to be forgotten. The control for UNSIR's noise.

The same retained rows, steps, batch sizes and learning rates as `unsir`, and no noise at all: what it forgets, it
forgets because the class is absent while the weights move fast.

1. Draw the retain subset.
2. Train one pass at the impair rate, then one at the repair rate.

Reads: retain. Source: "fine-tuning" in Golatkar et al., https://arxiv.org/abs/1911.04933; as a control of UNSIR it
is ours.
"""

from typing import ClassVar

from torch import nn

from expunge.data import Access, Part, subset
from expunge.methods.unsir import batch_size
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, adam, fit


@settings
class Finetune:
    """Train on the retained rows with UNSIR's rates, without noise."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    retain_rows_per_class: Count = 1000
    """Retained rows drawn per class; all of a class that has fewer."""
    steps: Count = 32
    """Steps of one pass, which sets the batch size: rows / steps, from 8 to 256."""
    impair_lr: Positive = 0.02
    """Adam's learning rate in the first pass."""
    repair_lr: Positive = 0.01
    """Adam's learning rate in the second pass."""
    impair_epochs: Count = 1
    """Passes at the first rate."""
    repair_epochs: Count = 1
    """Passes at the second rate."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy trained on the retain subset."""
        tuned = copy_of(model)
        retain = subset(access["retain"], self.retain_rows_per_class, runtime.generator("finetune/retain"))
        for stage, epochs, lr in (
            ("impair", self.impair_epochs, self.impair_lr),
            ("repair", self.repair_epochs, self.repair_lr),
        ):
            fit(
                tuned,
                retain,
                runtime,
                adam(epochs=epochs, batch_size=batch_size(retain, self.steps), lr=lr),
                stage=stage,
            )
        return tuned
