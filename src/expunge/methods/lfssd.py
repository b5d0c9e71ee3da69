"""lfssd: `ssd` without labels: weaken the weights that the outputs for what is to be forgotten depend on most.

Foster, Schoepf and Brintrup, "Loss-Free Machine Unlearning", Tiny Papers at ICLR 2024,
https://arxiv.org/abs/2402.19308; code in the words of https://github.com/if-loops/selective-synaptic-dampening, which
says what to change in that of `ssd`.

1. Importance. For every weight, take the mean of the absolute gradient of the squared length of the logits: how much
   the outputs depend on it, right or wrong. No label is used. It is not squared.
2. Selection and dampening as in `ssd`.

Reads: retain and forget.

Settings, defaults and differences are those of `ssd` (see there) but for `alpha`, of which that code names none of its
own. An absolute gradient stands out by the root of what its square does: 5 times for `ssd` is about 2 times here, which
forgets most and can cost as much: of the digits, forgetting the 5 takes 25 points of the others. At 3 it takes 2 of
them, and of two digits at once up to half is left.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods.ssd import Ssd, dampen
from expunge.runtime import Runtime
from expunge.settings import settings, to_mapping
from expunge.training import Count, Positive


@settings
class Lfssd:
    """Dampen the weights that the outputs for the forgotten rows depend on most (loss-free SSD)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    alpha: Positive = 2.0
    """How many times more important a weight must be to the forgotten rows than to the others."""
    dampening: Positive = 1.0
    """The paper's lambda: how much is left of a selected weight, in units of how much less it matters to all rows."""
    against: Literal["retained", "all"] = "retained"
    """What the importance is held against: that to the retained rows, or to all as in the paper."""
    fisher: Literal["batches", "rows"] = "batches"
    """Whose gradient is taken: a batch's mean, as in the code, or each row's."""
    batch_size: Count = 64
    """Rows per batch where batches' gradients are taken."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with the selected weights dampened. Streams: as `ssd`.

        Raises:
            SettingsError: No weight can be above alpha.
        """
        return dampen(Ssd(**to_mapping(self)), model, access, runtime, squared_lengths, size=torch.abs)


def squared_lengths(logits: Float[Tensor, " classes"], label: Int64[Tensor, ""]) -> Float[Tensor, " 1"]:
    """Return the squared length of one row's logits, whatever its label."""
    return logits.square().sum()[None]
