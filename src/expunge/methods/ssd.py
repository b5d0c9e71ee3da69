"""ssd: weaken the weights that matter far more to what is to be forgotten than to all rows. No training.

Foster, Schoepf and Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening", AAAI
2024, https://arxiv.org/abs/2308.07707; code https://github.com/if-loops/selective-synaptic-dampening.

1. Importance. For every weight, take the diagonal of the Fisher information: the mean over rows of the squared gradient
   of the row's cross-entropy. Once over all training rows, once over the forgotten ones.
2. Selection. Choose the weights whose importance to the forgotten rows is more than `alpha` times that to all rows.
3. Dampening. Multiply each of these by `dampening` times its importance to all rows over that to the forgotten ones, by
   1 at the most.

Reads: retain and forget.

Differences from the code: it squares the gradient of each batch's mean loss, where the paper's Fisher information has
each row's own; `fisher = "batches"` does as the code does. The difference decides what `alpha` may be. Row by row, all
rows contain the forgotten ones, so that no weight can be more important to these than to all by a factor above rows /
forgotten rows: 10 for one class out of ten. An `alpha` from there on selects nothing, and is refused.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part
from expunge.errors import SettingsError
from expunge.importance import Importance, Losses, batch_importance, row_importance
from expunge.network import copy_of
from expunge.rows import JoinedRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive


@settings
class Ssd:
    """Dampen the weights that matter most to the forgotten rows (Selective Synaptic Dampening)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    alpha: Positive = 10.0
    """How many times more important a weight must be to the forgotten rows than to all; the paper's for ResNet-18."""
    dampening: Positive = 1.0
    """The paper's lambda: how much is left of a selected weight, in units of how much less it matters to all rows."""
    fisher: Literal["rows", "batches"] = "rows"
    """What is squared: each row's gradient, as in the paper, or a batch's mean gradient, as in its code."""
    batch_size: Count = 64
    """Rows per batch where batches' gradients are squared."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with the selected weights dampened.

        Raises:
            SettingsError: No weight can be above alpha.
        """
        return dampen(self, model, access, runtime, cross_entropies)


def cross_entropies(logits: Float[Tensor, " classes"], label: Int64[Tensor, ""]) -> Float[Tensor, " 1"]:
    """Return the cross-entropy of one row, in nats."""
    return functional.cross_entropy(logits, label)[None]


def dampen(how: Ssd, model: nn.Module, access: Access, runtime: Runtime, losses: Losses) -> nn.Module:
    """Return a copy of a model with weights dampened by the importance that some losses give them.

    Raises:
        SettingsError: No weight can be above alpha.
    """
    forget, everything = access["forget"], JoinedRows(access["retain"], access["forget"])
    if how.fisher == "rows" and how.alpha >= len(everything) / len(forget):
        raise SettingsError(
            f"expected alpha below {len(everything) / len(forget):g}, which is all rows over those to forget, got "
            f"{how.alpha:g}: no weight can be that much more important to them; lower alpha, or take fisher=batches"
        )
    if how.fisher == "rows":
        to_all = row_importance(model, everything, runtime, losses, stage="importance to all")
        to_forget = row_importance(model, forget, runtime, losses, stage="importance to forgotten")
    else:
        size = how.batch_size
        to_all = batch_importance(model, everything, runtime, losses, stage="importance to all", batch_size=size)
        to_forget = batch_importance(model, forget, runtime, losses, stage="importance to forgotten", batch_size=size)
    forgetting = copy_of(model)
    dampen_weights(forgetting, to_all, to_forget, alpha=how.alpha, dampening=how.dampening)
    return forgetting


@torch.no_grad()
def dampen_weights(
    model: nn.Module, to_all: Importance, to_forget: Importance, *, alpha: float, dampening: float
) -> None:
    """Multiply weights in place by ``min(1, dampening * to_all / to_forget)`` where ``to_forget > alpha * to_all``."""
    for name, weight in model.named_parameters():
        if name in to_all:
            every, own = to_all[name].to(weight), to_forget[name].to(weight)
            factor = (dampening * every / own).clamp(max=1)
            weight.copy_(torch.where(own > alpha * every, weight * factor, weight))
