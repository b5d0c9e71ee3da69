"""mu_mis: make the logit of its own class as insensitive to what is to be forgotten as the others are.

Cheng, Huang, Zhou, He, Yang, Wu and Huang, "Remaining-data-free Machine Unlearning by Suppressing Sample Contribution",
ICLR 2026, https://arxiv.org/abs/2402.15109 (MU-Mis); code https://github.com/poppopbean0903/MU-Mis. What training has
made of a row shows, so the paper, in how much the logit of its class depends on its input, beyond how much others do.

1. Sensitivity. For each forgotten row, take the gradient with respect to the input of the logit of its own class, and
   of that of another class, drawn at random.
2. Suppress. Minimise, by SGD, the squared length of the first less that of the second.

Reads: forget.

The loss is the paper's. Neither its text on how to train nor its code could be read for this file: that the other class
is one, and drawn anew at every step, is second-hand, and optimiser, rate, batch size and number of passes are ours.
Nothing bounds the loss from below. At these settings, chosen on the digits, half of a class is left and the rest is
kept; at twice the rate the sensitivity to other classes grows without end, and all of them are lost.

Ours: the network is in evaluation mode, where an output depends on no other row; where several classes are forgotten,
the other class is one of the retained. The loss takes a second derivative: attention is computed step by step, since
PyTorch's fused kernels have none.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from expunge.access import Access
from expunge.data import Part
from expunge.errors import ModelError
from expunge.methods._other_classes import among_others, forgotten_classes
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, Training, fit


@settings
class MuMis:
    """Suppress what the forgotten rows contribute to the logit of their class (MU-Mis)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"forget"})

    epochs: Count = 10
    """Passes over the forgotten rows."""
    batch_size: Count = 64
    """Rows per step."""
    lr: Positive = 1e-4
    """Learning rate of SGD with momentum 0.9."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that the forgotten rows no longer move more than others. Stream: ``suppression/dropout``.

        Raises:
            DivergedError: The loss has left every bound, at lower rates too.
            ModelError: PyTorch has no second derivative of one of the network's layers, such as `Hardsigmoid`.
        """
        forgetting, forgotten = copy_of(model), forgotten_classes(access)
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=0.0,
            schedule="constant",
        )
        with differentiable(forgetting) as shown, sdpa_kernel(SDPBackend.MATH):

            def loss(
                logits: Float[Tensor, "rows classes"],
                labels: Int64[Tensor, " rows"],
                inputs: Shaped[Tensor, "rows ..."],
            ) -> Tensor:
                others = among_others(torch.rand_like(logits), labels, forgotten).argmax(dim=1)
                owed = sensitivity(logits, labels, shown[0]) - sensitivity(logits, others, shown[0])
                # no sensitivity depends on the last bias, and several processes wait for a gradient of every weight
                return owed.mean() + 0 * logits.sum()

            asleep = forgetting.modules()
            try:
                fit(forgetting, access["forget"], runtime, training, stage="suppression", loss=loss, asleep=asleep)
            except RuntimeError as error:
                if "is not implemented" not in str(error):
                    raise
                raise ModelError(
                    "expected a network that PyTorch differentiates twice, got one with a layer that it does not "
                    f"({error}): choose another method"
                ) from error
        return forgetting


@contextmanager
def differentiable(model: nn.Module) -> Iterator[list[Tensor]]:
    """Let outputs be differentiated with respect to inputs; what the model computes is left as it is.

    Yields:
        The inputs of the last pass, as the model was given them, in a list of one.
    """
    shown: list[Tensor] = []

    def show(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # not a leaf of the graph: PyTorch's counter of operations takes none at the border of a module
        shown[:] = [inputs[0].detach().requires_grad_().clone()]
        return (shown[0],)

    handle = model.register_forward_pre_hook(show)
    try:
        yield shown
    finally:
        handle.remove()


def sensitivity(
    logits: Float[Tensor, "rows classes"], classes: Int64[Tensor, " rows"], inputs: Float[Tensor, "rows ..."]
) -> Float[Tensor, " rows"]:
    """Return the squared length of the gradient of one logit per row with respect to its input; it is differentiable.

    Args:
        logits: Of the inputs, each row of its own alone.
        classes: Which logit of each row.
        inputs: What the logits were computed from.
    """
    chosen = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, [inputs], create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)
