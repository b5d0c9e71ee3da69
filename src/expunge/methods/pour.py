"""pour: project the direction of each forgotten class out of what the head reads. No data, no training.

Le, Peng, Liu and Noble, "POUR: A Provably Optimal Method for Unlearning Representations via Neural Collapse", CVPR
2026, https://arxiv.org/abs/2511.19339 (POUR-P, the closed form). Code:
https://github.com/ale256/representation_unlearning.

Where a network is trained to the end, the features of a class gather at one point, these points are the corners of a
regular simplex around the origin, and so are the head's weights (neural collapse). Project one corner's direction out,
and the others are the corners of a regular simplex of one dimension less: as far apart as they can be.

1. Direction. Take the head's weights, less their mean over classes, which no softmax can tell: they are the corners.
   That of the forgotten class is w.
2. Projection. Take ``P = I - w wᵀ / ‖w‖²``; of several classes, the projection onto what is at right angles to all.
3. Let the head read ``P z`` in place of the features z. As only the head reads them, P is multiplied into its weights;
   this makes those of the forgotten classes zero. Their biases become the mean of the others.

Reads: nothing.

Differences from the paper and its code: neither was to be had. This follows the paper's abstract, a summary of it and
what someone who ported the code says of that, so it is a reconstruction. By the port the weights are taken as they are,
and the bias becomes zero: `centre = false` does so. Where a head's weights do not sum up to zero, the forgotten class's
logit of zero can then be the highest of all. Centred, it is the mean of the others, and never the highest. Several
classes are not in the paper; the projection for them is the obvious one. As the paper says of POUR-P, the encoder stays
as it was: whoever looks at features before the projection finds the class there. Its POUR-D, which trains the encoder
to give the projected features, is not built.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods._subspaces import multiply_inputs
from expunge.network import copy_of, find_head
from expunge.runtime import Runtime
from expunge.settings import settings


@settings
class Pour:
    """Project the forgotten classes' directions out of what the head reads (POUR-P)."""

    reads: ClassVar[frozenset[Part]] = frozenset()

    centre: bool = True
    """Whether the mean over classes is taken from the head's weights first; false is as the code."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy whose head is blind along the directions of the forgotten classes.

        Raises:
            RequestError: The request is of single rows.
            ModelError: There is no linear head.
        """
        classes, forgetting = list(access.classes()), copy_of(model)
        kept = list(access.kept_classes())
        head = find_head(forgetting, access.num_classes)
        with torch.no_grad():
            if self.centre and head.weight.requires_grad:
                head.weight -= head.weight.mean(dim=0)
            multiply_inputs(head, without(head.weight[classes])[None])
            for name, weight in head.named_parameters():
                if weight.requires_grad:
                    # of the weights nothing but rounding is left
                    weight[classes] = weight[kept].mean() if self.centre and name == "bias" else 0.0
        return forgetting


def without(directions: Float[Tensor, "directions width"]) -> Float[Tensor, "width width"]:
    """Return the projection onto what is at right angles to some directions, in double precision."""
    wide = directions.double()
    along: Tensor = torch.linalg.pinv(wide) @ wide
    return torch.eye(wide.shape[1], dtype=wide.dtype, device=wide.device) - along
