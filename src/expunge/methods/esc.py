"""esc: erase the principal directions of the forgotten rows' features. No training.

Lee, Park, Jeon, Hwang and Park, "ESC: Erasing Space Concept for Knowledge Deletion", CVPR 2025,
https://arxiv.org/abs/2504.02199; code https://github.com/KU-VGI/ESC.

1. Features. Take what the head reads of every forgotten row.
2. Directions. Take the left singular vectors U of these features, the strongest first; they are not centred.
3. Erase. Let the head read ``z - U_p U_pᵀ z``, U_p being the first `percent` per cent of the directions.

Reads: forget.

The default `percent` is that of the code, 1.5, which had 3 when it was first published: of 512 features, 7 directions
in place of 15.

Differences from the code: it rounds the number of directions down, which for a narrow network is none; here it is one
at least, and one for each forgotten class. It keeps the projection as a buffer before the head; here it is multiplied
into the head's weights, which gives the same logits in the same architecture, but leaves features read before the head
as they were. U comes from the Gram matrix of the features, whose eigenvectors it is, so that they are never all held.
ESC-T, which trains a mask on the elements of U, is not built.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Lt
from jaxtyping import Float
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.errors import SettingsError
from expunge.methods._subspaces import input_grams, multiply_inputs, spectrum
from expunge.network import copy_of, editable_head
from expunge.runtime import Runtime
from expunge.settings import settings


@settings
class Esc:
    """Erase the principal directions of the forgotten rows' features (Erasing Space Concept)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"forget"})

    percent: Annotated[float, Gt(0), Lt(100)] = 1.5
    """The paper's p: how many of the directions are erased, in per cent of the width of the features."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy whose head is blind along the erased directions.

        Raises:
            ModelError: There is no linear head, or it cannot be edited; see `expunge.network.editable_head`.
            SettingsError: No direction would be left.
        """
        forgetting = copy_of(model)
        head = editable_head(forgetting, access.num_classes)
        name = next(name for name, module in forgetting.named_modules() if module is head)
        erased = max(int(head.in_features * self.percent / 100), len(access.request.classes), 1)
        if erased >= head.in_features:
            raise SettingsError(f"expected fewer directions than the {head.in_features} features, got {erased}")
        gram = input_grams(model, access["forget"], runtime, stage="features", only=name)[name]
        multiply_inputs(head, erasing(gram.values, erased))
        return forgetting


def erasing(grams: Float[Tensor, "groups width width"], directions: int) -> Float[Tensor, "groups width width"]:
    """Return the projections that take the strongest directions away from Gram matrices."""
    _, vectors = spectrum(grams)
    strongest = vectors[..., :directions]
    return torch.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device) - strongest @ strongest.mT
