"""retrain: train a network of the same architecture from scratch, without what is to be forgotten.

The reference that every other method is measured against, and the costliest one.

1. Build the network anew, with fresh random weights.
2. Train it on the retained rows alone, as the original was trained.

Reads: retain. Source: Cao and Yang, "Towards Making Systems Forget with Machine Unlearning", S&P 2015,
https://doi.org/10.1109/SP.2015.35 (retraining as the definition of forgetting).

Reproduction: no public number. It is the measure of the others.
"""

from dataclasses import field
from typing import ClassVar

from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Training, fit


@settings
class Retrain:
    """Train from scratch without the forgotten rows."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    training: Training = field(default_factory=Training)
    """How to train; to be a reference it must be how the original was trained."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a new network that never saw the forgotten rows."""
        with runtime.seeded("retrain/init"):
            new = access.build()
        fit(new, access["retain"], runtime, self.training, stage="retrain")
        return new.train(model.training)
