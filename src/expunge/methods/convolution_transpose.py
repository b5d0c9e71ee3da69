"""convolution_transpose: turn every convolution kernel over its diagonal, then train on what is retained.

The fifth solution of the NeurIPS 2023 Machine Unlearning Challenge, https://unlearning-challenge.github.io, which
Cadet, Borovykh, Malekzadeh, Ahmadi-Abhari and Haddadi name Convolution Transpose (CT) and find among the two best of
18 methods: "Deep Unlearn: Benchmarking Machine Unlearning for Image Classification", https://arxiv.org/abs/2410.01276.
Read in their code, https://github.com/xcadet/deepunlearn (``kgltop5.py``), not in the solution's own notebook: all of
this, defaults too, is second-hand.

1. Transpose. Swap height and width of the kernel of every two-dimensional convolution.
2. Train a few passes on the retained rows with SGD.

Reads: retain.

Differences from the code: the rate falls linearly over the steps, where it follows a cosine over the passes; SGD has
Nesterov momentum. A kernel that is not square is left as it is, since it would no longer fit its layer. A network in
which nothing can be transposed (no convolution, or only kernels of one pixel) is refused.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import ClassVar

import torch
from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.errors import ModelError
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, Training, fit


@settings
class ConvolutionTranspose:
    """Transposed kernels, then training on the retained rows (CT)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    epochs: Count = 3
    """Passes over the retained rows."""
    batch_size: Count = 64
    """Rows per step."""
    lr: Positive = 0.001
    """Learning rate of SGD with momentum 0.9 at the start; it falls linearly to zero."""
    weight_decay: NotNegative = 5e-4
    """SGD's weight decay."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with transposed kernels, trained on the retained rows.

        Raises:
            ModelError: There is no kernel to transpose that is not frozen.
        """
        forgetting = copy_of(model)
        transpose_kernels(forgetting)
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="linear",
        )
        fit(forgetting, access["retain"], runtime, training, stage="train")
        return forgetting


@torch.no_grad()
def transpose_kernels(model: nn.Module) -> None:
    """Swap height and width of the square kernels of a model in place; frozen ones stay.

    Raises:
        ModelError: There are none of more than one pixel.
    """
    kernels = {
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad and square(module.kernel_size)
    }
    if not kernels:
        raise ModelError(
            "expected a network with two-dimensional convolutions to train, of square kernels larger than a pixel, got "
            f"none in {type(model).__name__}: use another method, such as 'salun'"
        )
    for kernel in kernels:
        kernel.copy_(kernel.transpose(2, 3).clone())


def square(size: tuple[int, ...]) -> bool:
    """Return whether a kernel has one height and width, and more than one pixel."""
    height, width = size
    return height == width > 1
