"""Write a method of your own in one file, and let it be guarded, counted and audited like any other.

    python examples/own_method.py
    expunge list methods examples.own_method      (from the folder above, with PYTHONPATH=.)

1. Shrink the head's weights of the forgotten classes.

Reads: nothing.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import nn

from expunge.access import Access
from expunge.data import Part, split
from expunge.datasets.digits import Digits
from expunge.experiment import train
from expunge.forgetting import run_method
from expunge.network import Network, copy_of, find_head, rebuild
from expunge.request import Request
from expunge.runtime import Runtime, open_runtime
from expunge.settings import settings
from expunge.training import Training, predict


@settings
class OwnMethod:
    """Shrink the head's weights of the forgotten classes: too simple to be any good, and the audits say so."""

    reads: ClassVar[frozenset[Part]] = frozenset()

    keep: Annotated[float, Ge(0), Le(1)] = 0.1
    """Share of the weights' size that is left."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with smaller weights."""
        shrunk = copy_of(model)
        with runtime.stage("shrink", 1), torch.no_grad():
            find_head(shrunk, access.num_classes).weight[list(access.classes())] *= self.keep
        return shrunk


def main() -> None:
    """Train on digits and let the threes go."""
    data, runtime = Digits().load(), open_runtime(seed=0)
    model = train(Network(), data, Training(epochs=10), runtime)
    parts = split(data, Request(classes=("3",)))
    made = run_method(OwnMethod(), model, parts, runtime, rebuild(model))
    for part, rows in parts.parts.items():
        logits, labels = predict(made.model, rows, runtime)
        print(f"{part:12} {(logits.argmax(1) == labels).double().mean():.3f}")


if __name__ == "__main__":
    main()
