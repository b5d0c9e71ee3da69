"""quantization: does the class come back when the weights are rounded, as they are to be put into use?

A method that hides a class by moving every weight a little may be undone by rounding, which takes such moves away.

1. Round the weights of every linear and convolution layer of a copy to signed integers of 8 and of 4 bits: per output
   channel, symmetric, the scale such that the largest weight is kept. Biases and all else stay as they are.
2. ``int8/forget_test``, ``int4/forget_test``: accuracy on the forgotten classes' test rows (on ``forget`` rows if there
   are none). Ideal: that of retrained models; above their band, what was forgotten is back.
3. ``int8/retain_test``, ``int4/retain_test``: accuracy on kept rows. It informs: what is left at that many bits.

All numbers are from 0 to 1. Sources: forgetting that quantisation undoes, https://arxiv.org/abs/2410.16454 and
https://arxiv.org/abs/2605.02196 (language models); rounding: Krishnamoorthi, https://arxiv.org/abs/1806.08342.

What it does not catch: an output that is held down by its bias (`head_mask`), since biases are not rounded.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le, MinLen
from jaxtyping import Float
from torch import Tensor, nn

from expunge.audits._recovery import after_change
from expunge.case import Case
from expunge.finding import Finding
from expunge.network import copy_of
from expunge.settings import settings
from expunge.training import Count

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Bits = Annotated[int, Ge(2), Le(16)]


@settings
class Quantization:
    """Accuracy on forgotten and kept rows with weights rounded to few bits."""

    level: ClassVar[int | None] = 3

    bits: Annotated[tuple[Bits, ...], MinLen(1)] = (8, 4)
    """Bits of a rounded weight, its sign included."""
    rows: Count = 2000
    """The most rows of each part that accuracy is measured on."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return two findings for every number of bits."""
        findings = []
        for bits in self.bits:

            def change(model: nn.Module, bits: int = bits) -> Iterator[nn.Module]:
                yield quantized(model, bits)

            findings += after_change(
                case,
                self,
                f"quantization/int{bits}",
                change,
                level=self.level,
                words=f"when its weights are rounded to {bits} bits",
                rows=self.rows,
            )
        return findings


@torch.no_grad()
def quantized(model: nn.Module, bits: int) -> nn.Module:
    """Return a copy with the weights of all linear and convolution layers rounded; the model is left as it was."""
    copied = copy_of(model)
    for layer in copied.modules():
        if isinstance(layer, LAYERS):
            layer.weight.copy_(quantize(layer.weight, bits))
    return copied


def quantize(weight: Float[Tensor, "outputs ..."], bits: int) -> Float[Tensor, "outputs ..."]:
    """Return a weight tensor rounded to signed integers times one scale for each output channel (the first dimension).

    The integers are from ``-(2 ** (bits - 1) - 1)`` to ``2 ** (bits - 1) - 1``, halves going to the even one; the
    scale of a channel is its largest absolute weight divided by the largest integer. A channel of zeros stays.
    """
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().flatten(1).amax(dim=1) / largest
    scale = scale.where(scale > 0, 1.0).view(-1, *[1] * (weight.ndim - 1))
    rounded: Tensor = (weight / scale).round().clamp(-largest, largest) * scale
    return rounded
