"""weights: which layers moved, and how far?

The L2 distance of each weight tensor from the original's, relative to the original's L2 norm: 0 for the original, no
upper bound, no ideal. Source: the layer-wise distance of Golatkar et al., https://arxiv.org/abs/1911.04933, which the
UNSIR paper, https://arxiv.org/abs/2111.08947, also plots.

It shows where a method works and counts for no level: two networks trained from different random weights are far apart
even when they compute the same function, since hidden units may stand in any order.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.case import Case
from expunge.finding import Finding
from expunge.settings import settings

NOTE = (
    "tells where a method worked, not how well: networks trained from different random weights are far apart even "
    "when they agree"
)


@settings
class Weights:
    """Relative L2 distance of the weights from the original's, in all and per layer."""

    level: ClassVar[int | None] = None

    def __call__(self, case: Case) -> list[Finding]:
        """Return one finding with a series over the layers; a model of another architecture has no number."""
        original = tensors(case.original.model)
        moved = {evidence: distances(original, tensors(evidence.model)) for evidence in case.models}
        comparable = all(layers is not None for layers in moved.values())
        totals = {
            evidence: None if layers is None else _norm(layers) / _norm(norms(original))
            for evidence, layers in moved.items()
        }
        relative = {
            evidence: [layer / norm for layer, norm in zip(layers or (), norms(original), strict=True) if norm > 0]
            for evidence, layers in moved.items()
            if comparable
        }
        return [
            case.measure(
                "weights/distance",
                totals.__getitem__,
                level=self.level,
                meaning="How far the weights are from the original's, as a share of the original's size.",
                note=NOTE if comparable else f"{NOTE}; a model has other layers than the original",
                series=case.series(
                    [name for name, norm in zip(original, norms(original), strict=True) if norm > 0],
                    "relative distance of each layer",
                    relative.__getitem__,
                )
                if comparable
                else None,
            )
        ]


def tensors(model: nn.Module) -> dict[str, Float[Tensor, "..."]]:
    """Return the named weight tensors of a model, in double precision on the CPU, without scalars."""
    return {name: weight.detach().double().cpu() for name, weight in model.named_parameters() if weight.numel() > 1}


def norms(weights: dict[str, Float[Tensor, "..."]]) -> list[float]:
    """Return the L2 norm of each tensor."""
    return [float(torch.linalg.vector_norm(weight)) for weight in weights.values()]


def distances(first: dict[str, Float[Tensor, "..."]], second: dict[str, Float[Tensor, "..."]]) -> list[float] | None:
    """Return the L2 distance of each tensor from its namesake; None if names or shapes differ."""
    if {name: weight.shape for name, weight in first.items()} != {
        name: weight.shape for name, weight in second.items()
    }:
        return None
    return norms({name: second[name] - first[name] for name in first})


def _norm(values: list[float]) -> float:
    return math.hypot(*values)
