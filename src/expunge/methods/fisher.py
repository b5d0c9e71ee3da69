"""fisher: add noise to every weight, the more the less the retained rows depend on it. No training.

Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks", CVPR 2020,
https://arxiv.org/abs/1911.04933 (Fisher forgetting).
Code: https://github.com/AdityaGolatkar/SelectiveForgetting.

1. Take the diagonal F of the Fisher information of the retained rows: the squared gradient, expected over the labels
   that the model itself gives.
2. Take the variance of the noise, ``alpha * min(1 / F, cap)``, for weights of two dimensions and more as a mean over
   their inputs. It is ten times that for biases, batch normalisation and the head.
3. Where whole classes are forgotten, set their weights in the head to zero first, with a variance of 1e-3.
4. Add normal noise of that variance to every weight.

Reads: retain.

Caps, tens, the `alpha` of 1e-6 and step 3 (1e-4 there, times ten for the head) are those of the code, checked against
its notebook, ``Forgetting.ipynb``; it has other values of `alpha` for other experiments.

Differences from the paper: its noise has the variance ``alpha / sqrt(F)``, its code has ``alpha / F``, which is done
here. Step 3 only lowers the output of a class, where others are above zero; `forget_head = false` leaves the noise
alone.

Differences from the code: it takes any weight with as many outputs as there are classes for one of the head; here the
head is the last linear layer.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods._importance import row_importance
from expunge.network import copy_of, find_head
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Positive

SMALLEST = 1e-8
"""Added to the information, that no variance be infinite."""


@settings
class Fisher:
    """Noise on every weight that the retained rows do not hold in place (Fisher forgetting)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    alpha: Positive = 1e-6
    """Scale of the variance of the noise: how much retained accuracy is given up."""
    cap: Positive = 1e3
    """The most that 1 / F counts."""
    head_cap: Positive = 1e2
    """The most that 1 / F counts in the head."""
    forget_head: bool = True
    """Whether the head's weights of forgotten classes are put to zero first; for single rows there are none."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with noise on its weights. Stream: ``fisher/noise``."""
        forgetting = copy_of(model)
        information = row_importance(
            model, access["retain"], runtime, expected, stage="information", count=access.num_classes
        )
        head = {id(weight) for weight in find_head(forgetting, access.num_classes).parameters()}
        classes = [] if access.request.rows or not self.forget_head else list(access.classes())
        generator = runtime.generator("fisher/noise")
        with torch.no_grad():
            for name, weight in forgetting.named_parameters():
                if name in information:
                    in_head = id(weight) in head
                    variance = self.variance(information[name], in_head=in_head).to(weight)
                    if in_head:
                        weight[classes], variance[classes] = 0.0, 1e-3
                    noise = torch.randn(weight.shape, generator=generator).to(weight)
                    weight.add_(variance.sqrt() * noise)
        return forgetting

    def variance(self, information: Float[Tensor, "..."], *, in_head: bool) -> Float[Tensor, "..."]:
        """Return the variance of the noise on a weight of step 2."""
        inverse = (1 / (information + SMALLEST)).clamp(max=min(self.cap, self.head_cap) if in_head else self.cap)
        if information.ndim > 1:
            inverse = inverse.mean(dim=1, keepdim=True).expand_as(inverse).clone()
        return self.alpha * inverse * (10 if in_head or information.ndim == 1 else 1)


def expected(logits: Float[Tensor, " classes"], label: Int64[Tensor, ""]) -> Float[Tensor, " classes"]:
    """Return a loss per class whose squared gradients sum up to their expectation over the model's own labels."""
    logs = logits.log_softmax(dim=0)
    return logs.exp().sqrt().detach() * -logs
