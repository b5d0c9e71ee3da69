"""gradient_ascent: climb the loss of what is to be forgotten and do nothing for the rest; a control more than a method.

Known as negative gradient: Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net: Selective Forgetting in
Deep Networks", CVPR 2020, https://arxiv.org/abs/1911.04933, who compare with it. Nothing holds on to the retained rows,
and nothing bounds the loss: how much else is lost is a question of where one stops, and no paper claims that it is
little.

1. Train on the forgotten rows with the sign of the cross-entropy turned, a few passes at a low learning rate.

Reads: forget.

Defaults: of Golatkar et al. no rate and no number of passes could be found, in their published code neither
(https://github.com/AdityaGolatkar/SelectiveForgetting has the step, and no call of it). These are of Jia et al., "Model
Sparsity Can Simplify Machine Unlearning", https://arxiv.org/abs/2304.04934, as the instructions and the default
arguments of https://github.com/OPTML-Group/Unlearn-Sparse give them for the 4,500 training rows of one class of
CIFAR-10: 5 passes at 1e-4 in batches of 256, momentum 0.9, weight decay 5e-4.

Differences from that code: momentum is Nesterov's.

Reproduction: not tried at the size of its authors, which takes a GPU. On digits, with its own settings, it forgets next
to nothing, for want of steps: the tables of ``docs/methods.md``.
"""

from typing import ClassVar

from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, Training, cross_entropy, fit


@settings
class GradientAscent:
    """Gradient ascent on the forgotten rows; keeps nothing of the rest on purpose."""

    reads: ClassVar[frozenset[Part]] = frozenset({"forget"})

    epochs: Count = 5
    """Passes over the forgotten rows."""
    batch_size: Count = 256
    """Rows per step."""
    lr: Positive = 1e-4
    """Learning rate of SGD with momentum 0.9."""
    weight_decay: NotNegative = 5e-4
    """SGD's weight decay."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that is worse at the forgotten rows.

        Raises:
            DivergedError: The loss has left every bound, at lower rates too.
        """
        forgetting = copy_of(model)
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="constant",
        )
        fit(forgetting, access["forget"], runtime, training, stage="ascent", loss=less_cross_entropy)
        return forgetting


def less_cross_entropy(
    logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
) -> Tensor:
    """Return the mean cross-entropy with its sign turned, in nats."""
    return -cross_entropy(logits, labels, inputs)
