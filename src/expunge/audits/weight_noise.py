"""weight_noise: does the class come back when the weights are shaken?

A class that was hidden in a narrow spot of the weights is found again next to it; one that is gone is not.

1. Add Gaussian noise to every weight tensor of a copy, in each element of standard deviation ``strength`` times the
   root mean square of the tensor, so that the noise's norm is about that share of the tensor's norm.
2. ``{strength}/forget_test``: accuracy on the forgotten classes' test rows (on ``forget`` rows if there are none), the
   mean over draws. Ideal: that of retrained models; above their band, what was forgotten is back.
3. ``{strength}/retain_test``: the same on kept rows. It informs: what is left of the model at that strength.

All numbers are from 0 to 1. Streams: ``weight_noise/0`` and up, one for each draw, so that all models of one
architecture meet the same noise. Source: noise as a probe of flat minima, as in Neyshabur et al.,
https://arxiv.org/abs/1706.08947; as a test of forgetting it is ours.

What it does not catch: an output that is far out of reach, such as that of `head_mask`.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from annotated_types import MinLen
from torch import nn

from expunge.audits._recovery import after_change
from expunge.case import Case
from expunge.finding import Finding
from expunge.network import copy_of
from expunge.settings import settings
from expunge.training import Count, Positive


@settings
class WeightNoise:
    """Accuracy on forgotten and kept rows with noise on the weights."""

    level: ClassVar[int | None] = 3

    strengths: Annotated[tuple[Positive, ...], MinLen(1)] = (0.1, 0.3)
    """Norm of the noise as a share of the norm of each weight tensor."""
    draws: Count = 3
    """Draws of noise that are averaged."""
    rows: Count = 1000
    """The most rows of each part that accuracy is measured on."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return two findings for every strength."""
        findings = []
        for strength in self.strengths:

            def change(model: nn.Module, strength: float = strength) -> Iterator[nn.Module]:
                for draw in range(self.draws):
                    yield shaken(model, strength, case.runtime.generator(f"weight_noise/{draw}"))

            findings += after_change(
                case,
                self,
                f"weight_noise/{strength:g}",
                change,
                level=self.level,
                words=f"when its weights are shaken by {strength:.0%} of their size",
                rows=self.rows,
            )
        return findings


@torch.no_grad()
def shaken(model: nn.Module, strength: float, generator: torch.Generator) -> nn.Module:
    """Return a copy with noise on every weight tensor, in proportion to its size; the model is left as it was."""
    copied = copy_of(model)
    for weight in copied.parameters():
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        weight.add_(strength * weight.square().mean().sqrt() * noise)
    return copied
