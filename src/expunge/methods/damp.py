"""damp: make every layer blind to what the forgotten classes' mean inputs have of their own, the deeper the more.

Hatami, Aalishah and Monosov, "Class Unlearning via Depth-Aware Removal of Forget-Specific Directions", CVPR 2026
workshop on Machine Unlearning for Vision, https://arxiv.org/abs/2604.15166 (Depth-Aware Modulation by Projection).
No code was published.

1. Prototypes. For every layer, take the mean of its inputs (patches, for a convolution) over the rows of each class.
2. Directions. Of each forgotten class's prototype, take the residual that no combination of the retained classes'
   prototypes explains, by least squares. Make the residuals an orthonormal basis Q.
3. Strength. Take ``alpha = depth * separability``. Depth rises evenly over the layers, to 1 at the last. Separability
   is how well a linear probe tells inputs of forgotten rows from those of retained ones: 0 by guessing, 1 always.
4. Projection. Multiply every layer's weights W to ``W (I - alpha Q Qᵀ)``. Biases and normalisations stay.

Reads: retain and forget.

Layers are linear ones and convolutions. The weights that PyTorch's ``nn.MultiheadAttention`` keeps for itself are in
none, and stay; a network with layers of another kind, such as transposed convolutions, or with layers that share a
weight is refused.

A reconstruction: the paper was not to be had, only its abstract and summaries of it. These give steps 1 and 2, the
update of step 4, and that alpha comes from the separability of a binary linear probe and from a fixed ramp over depth,
with no parameter. Not known, and chosen here: that the two are multiplied, and that the ramp is linear; that the probe
is Fisher's linear discriminant, scored by the accuracy of two normal distributions of one covariance, so that means and
Gram matrices are all it takes; that probe and prototypes see single positions or patches, not means over an image; how
many rows are read. The basis Q is of the residuals' singular vectors, where the summaries have QR: of residuals that
depend on one another QR makes directions out of rounding, which may lie among the retained ones.

Where classes are the corners of a simplex around the origin, each is what the others leave when summed up, and step 2
finds nothing of its own. Three small networks with layer normalisation, trained on four classes, forgot nothing so.

Reproduction: not tried. A reconstruction cannot reproduce. On small data it was measured beside all others: the tables
of ``docs/methods.md``.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part, subset
from expunge.errors import ModelError
from expunge.methods._subspaces import check_layers, find_layers, input_grams, multiply_inputs
from expunge.network import copy_of
from expunge.rows import Rows, TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count

NOTHING = 1e-4
"""What residuals are no longer in than this share of the longest forgotten prototype is rounding, and no direction."""
RIDGE = 1e-3
"""Added to the variance within classes, in units of its mean over directions."""


@settings
class Damp:
    """Project forget-specific directions out of every layer, the deeper the more (DAMP, reconstructed)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    rows_per_class: Count = 1000
    """Rows of each class that prototypes and separability come from; all of a class that has fewer. Ours."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a projected copy. Streams: ``damp/retain``, ``damp/forget``.

        Raises:
            RequestError: The request is of single rows.
            ModelError: There is no layer to project, or not all can be; see `expunge.methods._subspaces.check_layers`.
        """
        access.classes()
        check_layers(model)
        retain = subset(access["retain"], self.rows_per_class, runtime.generator("damp/retain"))
        forget = subset(access["forget"], self.rows_per_class, runtime.generator("damp/forget"))
        retained, forgotten = moments(model, retain, runtime), moments(model, forget, runtime)
        if not retained:
            raise ModelError(f"expected linear layers or convolutions, got none in {type(model).__name__}")
        damped = copy_of(model)
        layers = {name: layer for name, layer in find_layers(damped).items() if name in retained}
        for number, (name, layer) in enumerate(layers.items(), start=1):
            strength = number / len(layers) * separability(forgotten[name], retained[name])
            along = own_projection(forgotten[name].prototypes, retained[name].prototypes)
            whole = torch.eye(along.shape[-1], dtype=along.dtype, device=along.device)
            multiply_inputs(layer, whole - strength[:, None, None] * along)
        return damped


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What is known of one layer's inputs."""

    prototypes: Float[Tensor, "groups width classes"]
    """The mean input of each class that there are rows of."""
    gram: Float[Tensor, "groups augmented augmented"]
    """The sum of ``x xᵀ`` over all classes, each x with a 1 at its end; so it holds the sum of x, and their number."""


def moments(model: nn.Module, rows: Rows, runtime: Runtime) -> dict[str, Moments]:
    """Return the moments of every layer's inputs, from one pass over rows, class by class."""
    prototypes: dict[str, list[Tensor]] = {}
    grams: dict[str, Tensor] = {}
    for label in np.unique(rows.labels):
        of_class = TakenRows(rows, np.flatnonzero(rows.labels == label))
        for name, gram in input_grams(model, of_class, runtime, stage="prototypes", bias=True).items():
            prototypes.setdefault(name, []).append(mean_of(gram.values))
            grams[name] = gram.values + grams.get(name, 0.0)
    return {name: Moments(prototypes=torch.stack(prototypes[name], dim=-1), gram=grams[name]) for name in grams}


def mean_of(gram: Float[Tensor, "groups augmented augmented"]) -> Float[Tensor, "groups width"]:
    """Return the mean input."""
    return gram[:, :-1, -1] / gram[:, -1, -1:]


def scatter_of(gram: Float[Tensor, "groups augmented augmented"]) -> Float[Tensor, "groups width width"]:
    """Return the sum of ``(x - mean) (x - mean)ᵀ``."""
    return gram[:, :-1, :-1] - gram[:, :-1, -1:] * mean_of(gram)[:, None]


def separability(forgotten: Moments, retained: Moments) -> Float[Tensor, " groups"]:
    """Return how much better than guessing a linear probe tells forgotten from retained inputs, from 0 to 1.

    Twice the accuracy of Fisher's discriminant less 1. Of two normal distributions with one covariance its accuracy is
    that of a normal variable below half of the Mahalanobis distance of the means.
    """
    count = forgotten.gram[:, -1, -1] + retained.gram[:, -1, -1]
    within = (scatter_of(forgotten.gram) + scatter_of(retained.gram)) / count[:, None, None]
    energy = (forgotten.gram + retained.gram).diagonal(dim1=1, dim2=2)[:, :-1].mean(1) / count
    spread = within.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(within.dtype).eps * energy)  # not rounding
    ridge = torch.where(spread > 0, RIDGE * spread, 1.0)  # inputs that are all zero tell no rows apart
    within = within + ridge[:, None, None] * torch.eye(within.shape[-1], dtype=within.dtype, device=within.device)
    apart = mean_of(forgotten.gram) - mean_of(retained.gram)
    squared: Tensor = (apart * torch.linalg.solve(within, apart)).sum(1)
    return torch.erf(squared.clamp_min(0).sqrt() / 8**0.5)


def own_projection(
    forgotten: Float[Tensor, "groups width forgotten"], retained: Float[Tensor, "groups width retained"]
) -> Float[Tensor, "groups width width"]:
    """Return ``Q Qᵀ`` of step 2 for each group: zero where retained prototypes explain all of the forgotten ones.

    Q has as many directions as the residuals span, which several classes can do with fewer than they are.
    """
    residuals = forgotten - retained @ (torch.linalg.pinv(retained, rtol=NOTHING**2) @ forgotten)
    found = []
    for own, whole in zip(residuals, forgotten, strict=True):
        directions, sizes, _ = torch.linalg.svd(own, full_matrices=False)
        directions = directions[:, sizes > NOTHING * whole.norm(dim=0).max()]
        found.append(directions @ directions.mT)
    return torch.stack(found)
