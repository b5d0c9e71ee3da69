"""dissolve_data_free: `dissolve` without any data, on inputs that are made up from the model.

Ours, and experimental: what it was measured to do, and what not, stands in ``docs/unsir.md``. In the setting of
zero-shot unlearning (Chundawat et al., https://arxiv.org/abs/2201.05629): the model and the names of the classes are
all there is; no row of any kind is read.

1. Synthesis. For each retained class, move a few images of noise until the model takes them for it; see
   `expunge.synthesis`.
2. Dissolve. What `dissolve` does on its subset of retained rows is done on these.

Reads: nothing.

Reproduction: no public number. It is ours.
"""

from dataclasses import field
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods.dissolve import Dissolve
from expunge.rows import TensorRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.synthesis import synthesise
from expunge.training import Count, NotNegative, Positive


@settings
class DissolveDataFree:
    """Dissolve on inputs made up from the model; reads no data at all. Experimental."""

    reads: ClassVar[frozenset[Part]] = frozenset()

    images: Count = 200
    """Inputs made in all, shared evenly by the retained classes."""
    fewest_images: Count = 5
    """Inputs made for each retained class at least."""
    synthesis_steps: Annotated[int, Ge(0)] = 10
    """Steps of Adam on the inputs; with none they stay images of noise."""
    synthesis_lr: Positive = 0.3
    """Adam's learning rate on the inputs, in units of the normalised input."""
    statistics: NotNegative = 1.0
    """Weight of what batch normalisations remember of the training data, where the network has any."""
    dissolve: Dissolve = field(default_factory=lambda: Dissolve(lr=0.1, margin=0.05))
    """How to dissolve; `retain_share` and `fewest_rows` play no part. Gentler than `dissolve` on rows is."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that has forgotten the classes.

        Raises:
            RequestError: The request is of single rows.
            ModelError: The network cannot be cut; see `expunge.methods._tail.cut`.
            DivergedError: No rate that was tried leaves the answers to the made-up inputs nearly as they were.
        """
        access.classes()  # a request of single rows is refused before anything is made
        kept = access.kept_classes()
        each = max(self.fewest_images, round(self.images / len(kept)))
        labels = torch.tensor(kept).repeat_interleave(each)
        generator = runtime.generator("dissolve_data_free/start")
        images = synthesise(
            model,
            torch.randn(len(labels), *access.input_size, generator=generator),
            labels,
            runtime,
            steps=self.synthesis_steps,
            lr=self.synthesis_lr,
            statistics=self.statistics,
        )
        return self.dissolve.on(TensorRows(images, labels), model, access, runtime)
