"""masked_small_gradients: draw anew the kernel weights that tell kept from forgotten least, and train the rest slowly.

The second solution of the NeurIPS 2023 Machine Unlearning Challenge, https://unlearning-challenge.github.io, which
Cadet, Borovykh, Malekzadeh, Ahmadi-Abhari and Haddadi name Masked Small Gradients (MSG) and find among the two best of
18 methods: "Deep Unlearn: Benchmarking Machine Unlearning for Image Classification", https://arxiv.org/abs/2410.01276.
Read in their code, https://github.com/xcadet/deepunlearn (``kgltop2.py``), not in the solution's own notebook: all of
this, defaults too, is second-hand.

1. Contrast. Take the gradient of the cross-entropy of retained rows, as many as there are forgotten ones, drawn at
   random, less that of the forgotten rows.
2. Draw anew. In the kernel of every convolution, give the share of weights whose contrast is smallest new random values
   (He's normal, by fan-out).
3. Train on the retained rows with SGD, the gradients of all other kernel weights multiplied by `pace`, while the rate
   rises and falls. Biases, batch normalisation and the head train as always.

Reads: retain and forget.

Differences from the code: gradients are means over rows in evaluation mode, where it sums those of batches of 64; the
rate follows PyTorch's one cycle, where it rises linearly over the first half of the passes and falls over the second;
SGD has Nesterov momentum, and one cycle moves its momentum between 0.85 and 0.95. Convolutions of one and three
dimensions count too. A network without convolutions is refused; of a vision transformer only the patches are drawn
anew.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Le, Lt
from jaxtyping import Bool
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.errors import ModelError
from expunge.methods._gradients import mean_gradient
from expunge.methods._paced import paced
from expunge.network import copy_of
from expunge.rows import TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, Training, fit

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@settings
class MaskedSmallGradients:
    """New kernel weights where kept and forgotten rows pull least, slow training of the others (MSG)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    share: Annotated[float, Gt(0), Lt(1)] = 0.3
    """Share of each kernel's weights that is drawn anew."""
    pace: Annotated[float, Gt(0), Le(1)] = 0.1
    """What the gradients of the kernels' other weights are multiplied by."""
    epochs: Count = 5
    """Passes over the retained rows."""
    batch_size: Count = 64
    """Rows per step."""
    lr: Positive = 0.001
    """Highest learning rate of SGD with momentum."""
    weight_decay: NotNegative = 5e-4
    """SGD's weight decay."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy, part of it new, trained on the retained rows.

        Raises:
            ModelError: There is no convolution that is not frozen.
        """
        forgetting, retain, forget = copy_of(model), access["retain"], access["forget"]
        names = kernels(forgetting)
        order = torch.randperm(len(retain), generator=runtime.generator("masked_small_gradients/retain")).numpy()
        drawn = TakenRows(retain, np.sort(order[: len(forget)]))
        kept, own = (
            mean_gradient(model, rows, runtime, stage="contrast", batch_size=self.batch_size)
            for rows in (drawn, forget)
        )
        paces = {}
        with runtime.seeded("masked_small_gradients/kernels"):
            for name in names:
                chosen = smallest(kept[name] - own[name], self.share)
                draw_anew(forgetting.get_parameter(name), chosen)
                paces[name] = torch.where(chosen, 1.0, self.pace)
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="one_cycle",
        )
        with paced(forgetting, paces, runtime) as student:
            fit(student, retain, runtime, training, stage="train")
        return forgetting


def kernels(model: nn.Module) -> list[str]:
    """Return the names of the kernels of all convolutions, without frozen ones.

    Raises:
        ModelError: There are none.
    """
    convolved = {module.weight for module in model.modules() if isinstance(module, CONVOLUTIONS)}
    names = [name for name, weight in model.named_parameters() if weight in convolved and weight.requires_grad]
    if not names:
        raise ModelError(
            f"expected a network with convolutions to train, got none in {type(model).__name__}: use another method, "
            "such as 'salun'"
        )
    return names


def smallest(values: Tensor, share: float) -> Bool[Tensor, "..."]:
    """Return which elements are of the smallest sizes, a share of all rounded."""
    chosen = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    chosen[values.flatten().abs().topk(round(share * values.numel()), largest=False).indices] = True
    return chosen.view_as(values)


@torch.no_grad()
def draw_anew(kernel: Tensor, chosen: Bool[Tensor, "..."]) -> None:
    """Give the chosen elements of a kernel new values in place, drawn on the CPU whatever the device."""
    fresh = torch.empty(kernel.shape)
    nn.init.kaiming_normal_(fresh, mode="fan_out", nonlinearity="relu")
    kernel.copy_(torch.where(chosen.to(kernel.device), fresh.to(kernel), kernel))
