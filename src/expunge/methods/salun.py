"""salun: teach random wrong labels for what is to be forgotten, through the weights that it is most sensitive to.

Fan, Liu, Zhang, Wong, Wei and Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both
Image Classification and Generation", ICLR 2024, https://arxiv.org/abs/2310.12508; code
https://github.com/OPTML-Group/Unlearn-Saliency.

1. Saliency. For every weight, take the size of the gradient of the forgotten rows' cross-entropy, at the original.
2. Mask. The weights of the largest sizes are salient: half of all, the paper's median, over all layers together. All
   others keep their values.
3. Random labels. Give every forgotten row a label that is not its own, drawn at random, and train the salient weights
   one pass on these and on the retained rows, with SGD. Do both again, as often as there are passes.

Reads: retain and forget.

Differences from the code: until February 2026 it multiplied the gradients by the mask alone, so that weight decay (and
momentum where it had built up) went on moving the others, in the paper's own runs too; here they end bit-equal, as in
today's. It sums batches' mean gradients, here it is the mean over rows. Its labels are drawn from all classes, the true
one included; here, as in the paper, never the true one, and where whole classes are forgotten a retained one, as in
`random_labels`. On CIFAR-10 it goes through the forgotten rows first; here, as it does on CIFAR-100, both are mixed.
SGD has Nesterov momentum and starts anew with every pass. Buffers such as batch normalisation's statistics move, as in
the code. Defaults are those of the example in the code's page, for a tenth of CIFAR-10 at random.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods._gradients import mean_gradient
from expunge.methods._paced import paced
from expunge.methods.random_labels import other_labels
from expunge.network import copy_of
from expunge.rows import JoinedRows, RelabelledRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, Training, fit


@settings
class Salun:
    """Random labels for the forgotten rows, taught through the most salient weights alone (SalUn)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    share: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of the weights that are salient; at 1 nothing is held."""
    epochs: Count = 10
    """Passes over all rows, each with labels of its own."""
    batch_size: Count = 256
    """Rows per step."""
    lr: Positive = 0.013
    """Learning rate of SGD with momentum 0.9."""
    weight_decay: NotNegative = 5e-4
    """SGD's weight decay, on salient weights."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy whose salient weights were taught other labels.

        Raises:
            ModelError: Batch normalisation is to be synchronised over processes; see `paced`.
        """
        forgetting, retain, forget = copy_of(model), access["retain"], access["forget"]
        gradient = mean_gradient(model, forget, runtime, stage="saliency", batch_size=self.batch_size)
        training = Training(
            epochs=1,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="constant",
        )
        with paced(forgetting, largest(gradient, self.share), runtime) as student:
            for epoch in range(self.epochs):
                labels = other_labels(access, runtime.generator(f"salun/labels/{epoch}"))
                rows = JoinedRows(retain, RelabelledRows(forget, labels))
                fit(student, rows, runtime, training, stage=f"relabelled {epoch + 1}")
        return forgetting


def largest(gradient: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return 1 for the elements of the largest sizes, a share of all weights together rounded, and 0 for the others."""
    sizes = torch.cat([value.flatten().abs() for value in gradient.values()])
    mask = torch.zeros_like(sizes)
    mask[sizes.topk(round(share * len(sizes))).indices] = 1
    parts = torch.split(mask, [value.numel() for value in gradient.values()])
    return {name: part.view_as(value) for (name, value), part in zip(gradient.items(), parts, strict=True)}
