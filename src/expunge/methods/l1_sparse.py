"""l1_sparse: train on what is retained while a penalty draws all weights to zero, less with every pass.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
https://arxiv.org/abs/2304.04934, its "sparsity-aware unlearning"; code https://github.com/OPTML-Group/Unlearn-Sparse.

1. Minimise the cross-entropy of the retained rows plus a factor times the sum of the sizes of all weights, with SGD.
2. The factor falls from `penalty` by equal steps, one per pass, to what would be zero after the last pass that has it;
   the last `plain_epochs` passes have none.

Reads: retain.

The default penalty is second-hand: the paper tunes it, and the code's page names none for this method. Its ``--alpha``
has a default of 0.2, "unlearn noise", which all its methods read that have an ``alpha``; as a penalty that moves every
weight by 0.002 a step, and by ten times that with momentum, which leaves no network. 0.0001 is what several of those
use who compare with it. Passes and rate are those of the code's page.

Differences from the code: weights that are frozen cost nothing, as they could not move; SGD has Nesterov momentum.
Where `plain_epochs` are all that there are, no pass has a penalty; there the code, but for ImageNet, keeps its
``alpha`` whole in every pass. It reads ``no_l1_epochs`` and has no option of that name. No weight becomes zero exactly,
since SGD steps over it: they come near.

Reproduction: not tried at the size of its authors, which takes a GPU. On digits, with its own settings, it forgets next
to nothing, for want of steps; on a part of CIFAR-10 the class goes: the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from expunge.access import Access
from expunge.data import Part
from expunge.network import copy_of
from expunge.runtime import Runtime, count_batches
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, Training, fit


@settings
class L1Sparse:
    """Training on the retained rows with a falling L1 penalty."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    penalty: NotNegative = 1e-4
    """Factor of the sum of the sizes of all weights in the first pass; the code's ``alpha``."""
    plain_epochs: Annotated[int, Ge(0)] = 0
    """Passes at the end without a penalty; the code's ``no_l1_epochs``."""
    epochs: Count = 10
    """Passes over the retained rows."""
    batch_size: Count = 256
    """Rows per step."""
    lr: Positive = 0.01
    """Learning rate of SGD with momentum 0.9."""
    weight_decay: NotNegative = 5e-4
    """SGD's weight decay."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy trained on the retained rows, with many weights near zero."""
        forgetting, retain = copy_of(model), access["retain"]
        per_epoch = count_batches(len(retain), self.batch_size)
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="constant",
        )

        def sizes(trained: nn.Module, done: int) -> Tensor:
            return self.factor(done // per_epoch) * sum_of_sizes(trained)

        fit(forgetting, retain, runtime, training, stage="train", penalty=sizes)
        return forgetting

    def factor(self, epoch: int) -> float:
        """Return the factor of the penalty in a pass, counted from 0."""
        with_penalty = self.epochs - self.plain_epochs
        return self.penalty * (1 - epoch / with_penalty) if epoch < with_penalty else 0.0


def sum_of_sizes(model: nn.Module) -> Tensor:
    """Return the sum of the absolute values of all weights that are not frozen and lie in this process."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    own = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
    return torch.stack([weight.abs().sum() for weight in own]).sum()
