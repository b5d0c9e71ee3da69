"""lfssd: `ssd` without labels: weaken the weights that the outputs for what is to be forgotten depend on most.

Foster, Schoepf and Brintrup, "Loss-Free Machine Unlearning", Tiny Papers at ICLR 2024,
https://arxiv.org/abs/2402.19308; code https://github.com/if-loops/selective-synaptic-dampening.

1. Importance. For every weight, take the mean over rows of the squared gradient of the squared length of the row's
   logits: how much the outputs depend on it, right or wrong. No label is used.
2. Selection and dampening as in `ssd`.

Reads: retain and forget.

Differences from the code: as for `ssd`, each row's own gradient is squared and not that of a batch's mean;
`fisher = "batches"` squares the latter.
"""

from typing import ClassVar, Literal

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

    alpha: Positive = 10.0
    """How many times more important a weight must be to the forgotten rows than to all."""
    dampening: Positive = 1.0
    """The paper's lambda: how much is left of a selected weight, in units of how much less it matters to all rows."""
    fisher: Literal["rows", "batches"] = "rows"
    """What is squared: each row's gradient, or a batch's mean gradient, as in the code."""
    batch_size: Count = 64
    """Rows per batch where batches' gradients are squared."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with the selected weights dampened.

        Raises:
            SettingsError: No weight can be above alpha.
        """
        return dampen(Ssd(**to_mapping(self)), model, access, runtime, squared_lengths)


def squared_lengths(logits: Float[Tensor, " classes"], label: Int64[Tensor, ""]) -> Float[Tensor, " 1"]:
    """Return the squared length of one row's logits, whatever its label."""
    return logits.square().sum()[None]
