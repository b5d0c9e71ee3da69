"""ssd: weaken the weights that matter far more to what is to be forgotten than to the rest. No training.

Foster, Schoepf and Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening", AAAI
2024, https://arxiv.org/abs/2308.07707; code https://github.com/if-loops/selective-synaptic-dampening.

1. Importance. For every weight, take the diagonal of the Fisher information: the mean of the squared gradient of the
   cross-entropy. Once over the retained rows, once over the forgotten ones; over all rows it is the mean of both.
2. Selection. Choose the weights whose importance to the forgotten rows is more than `alpha` times that to the retained.
3. Dampening. Multiply each of these by `dampening` times its importance to all rows over that to the forgotten ones, by
   1 at the most.

Reads: retain and forget.

In the paper the selection too is by the importance to all rows, of which the forgotten ones are a part; so none can be
more important to them by a factor above rows / forgotten rows. That leaves the paper's alpha of 10 room with 20 classes
and more, where it was used. Of ten equal classes it selects no weight at all. Held against the retained rows it means
the same for any share; among a hundred classes 10 times all is 11 times the retained. `against = "all"` does as the
paper does, and refuses an `alpha` that no weight can be above.

The code has an `alpha` of 10 for a ResNet-18 and of 5 for a ViT, with a `dampening` of 1, and for faces 50 and 0.1. The
default is the lower one: on the digits 10 leaves up to half of what is to be forgotten, 5 a seventh.

The code squares the gradient of each batch's mean loss, where the paper's Fisher information has each row's own, and
its batches are each of one class, or two, as its rows are in the order of their classes. The paper's numbers come from
there, and on the digits more is forgotten so: it is the default; `fisher = "rows"` does as the paper says.

Differences from the code: the importance to all rows is the mean over both parts by their rows, so that no batch is of
both; where single rows are forgotten, all batches are drawn at random.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part
from expunge.errors import SettingsError
from expunge.methods._importance import Importance, Losses, Size, batch_importance, row_importance
from expunge.network import copy_of
from expunge.rows import TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive


@settings
class Ssd:
    """Dampen the weights that matter most to the forgotten rows (Selective Synaptic Dampening)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    alpha: Positive = 5.0
    """How many times more important a weight must be to the forgotten rows than to the others."""
    dampening: Positive = 1.0
    """The paper's lambda: how much is left of a selected weight, in units of how much less it matters to all rows."""
    against: Literal["retained", "all"] = "retained"
    """What the importance is held against: that to the retained rows, or to all as in the paper."""
    fisher: Literal["batches", "rows"] = "batches"
    """What is squared: a batch's mean gradient, as in the code, or each row's gradient, as in the paper."""
    batch_size: Count = 64
    """Rows per batch where batches' gradients are squared."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with the selected weights dampened. Streams: ``ssd/retain`` and ``ssd/forget``, for rows.

        Raises:
            SettingsError: No weight can be above alpha.
        """
        return dampen(self, model, access, runtime, cross_entropies)


def cross_entropies(logits: Float[Tensor, " classes"], label: Int64[Tensor, ""]) -> Float[Tensor, " 1"]:
    """Return the cross-entropy of one row, in nats."""
    return functional.cross_entropy(logits, label)[None]


def dampen(
    how: Ssd, model: nn.Module, access: Access, runtime: Runtime, losses: Losses, size: Size = torch.square
) -> nn.Module:
    """Return a copy of a model with weights dampened by the importance that some losses give them.

    Raises:
        SettingsError: No weight can be above alpha.
    """
    retained, forgotten = len(access["retain"]), len(access["forget"])
    most = (retained + forgotten) / forgotten
    if how.against == "all" and how.alpha >= most:
        raise SettingsError(
            f"expected alpha below {most:g}, which is all rows over those to forget, got {how.alpha:g}: no weight can "
            "be that much more important to them than to all; lower alpha, or take against=retained"
        )
    to_retained = importance(how, model, access, "retain", runtime, losses, size)
    to_forgotten = importance(how, model, access, "forget", runtime, losses, size)
    to_all = {
        name: (retained * value + forgotten * to_forgotten[name]) / (retained + forgotten)
        for name, value in to_retained.items()
    }
    forgetting = copy_of(model)
    against = to_all if how.against == "all" else to_retained
    dampen_weights(forgetting, against, to_all, to_forgotten, alpha=how.alpha, dampening=how.dampening)
    return forgetting


def importance(
    how: Ssd, model: nn.Module, access: Access, part: Part, runtime: Runtime, losses: Losses, size: Size
) -> Importance:
    """Return the importance of every weight to a part, each of whose rows is read once."""
    rows, stage = access[part], f"importance to {part}"
    if how.fisher == "rows":
        return row_importance(model, rows, runtime, losses, stage=stage, size=size)
    order = np.argsort(rows.labels, kind="stable")
    if access.request.rows:
        order = torch.randperm(len(rows), generator=runtime.generator(f"ssd/{part}")).numpy()
    ordered = TakenRows(rows, order)
    return batch_importance(model, ordered, runtime, losses, stage=stage, batch_size=how.batch_size, size=size)


@torch.no_grad()
def dampen_weights(
    model: nn.Module,
    against: Importance,
    to_all: Importance,
    to_forgotten: Importance,
    *,
    alpha: float,
    dampening: float,
) -> None:
    """Dampen the weights of a model in place that are important to what is to be forgotten.

    Each with ``to_forgotten > alpha * against`` is multiplied by ``min(1, dampening * to_all / to_forgotten)``.
    """
    for name, weight in model.named_parameters():
        if name in to_all:
            every, own = to_all[name].to(weight), to_forgotten[name].to(weight)
            factor = (dampening * every / own).clamp(max=1)
            weight.copy_(torch.where(own > alpha * against[name].to(weight), weight * factor, weight))
