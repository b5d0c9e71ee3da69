"""delete: learn the original's own answers to what is to be forgotten, with the answer that is right taken out.

Zhou, Zheng, Mo, Lu, Lin and Zheng, "Decoupled Distillation to Erase: A General Unlearning Method for Any Class-centric
Tasks", CVPR 2025, https://arxiv.org/abs/2503.23751 (DELETE); code https://github.com/shaaaaron/DELETE.

1. Target. For each forgotten row, take the frozen original's logits, put that of the row's own class to minus infinity
   and take the softmax: nothing for the class, and the rest shared out as the original saw it.
2. Distil. Minimise the Kullback-Leibler divergence of the model's softmax from this target, on the forgotten rows
   alone, with SGD.

Reads: forget.

Defaults are those of the code for ResNet-18 on CIFAR-10; for CIFAR-100 and for a ViT its rate is half of that.

Differences from the code: where several classes are forgotten, all of them are taken out of the target, so that none is
taught to rows of another; batch normalisation keeps its statistics, which the code lets move to those of the forgotten
rows for all data but one (`batch_norm = "moving"`); momentum is Nesterov's.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part
from expunge.methods._other_classes import among_others, forgotten_classes
from expunge.network import batch_norms, copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, Training, fit


@settings
class Delete:
    """Distil the original's answers to the forgotten rows without the right one (DELETE)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"forget"})

    epochs: Count = 20
    """Passes over the forgotten rows."""
    batch_size: Count = 128
    """Rows per step."""
    lr: Positive = 1e-4
    """Learning rate of SGD with momentum 0.9."""
    batch_norm: Literal["still", "moving"] = "still"
    """Whether batch normalisation keeps the statistics that it came with."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that answers to the forgotten rows as the original would without their class.

        Raises:
            DivergedError: The loss has left every bound, at lower rates too.
        """
        forgetting, forgotten = copy_of(model), forgotten_classes(access)
        teacher = runtime.place(copy_of(model).eval().requires_grad_(False))

        def loss(
            logits: Float[Tensor, "rows classes"],
            labels: Int64[Tensor, " rows"],
            inputs: Shaped[Tensor, "rows ..."],
        ) -> Tensor:
            with torch.no_grad():
                target = among_others(teacher(inputs), labels, forgotten).softmax(dim=1)
            return divergence(logits, target)

        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=0.0,
            schedule="constant",
        )
        asleep = batch_norms(forgetting) if self.batch_norm == "still" else ()
        fit(forgetting, access["forget"], runtime, training, stage="distillation", loss=loss, asleep=asleep)
        return forgetting


def divergence(logits: Float[Tensor, "rows classes"], target: Float[Tensor, "rows classes"]) -> Float[Tensor, ""]:
    """Return the mean over rows of KL(target || softmax of the logits), in nats; 0 where the two agree.

    Args:
        logits: Finite, of the model that learns.
        target: Distributions, which may be 0 for some classes.
    """
    return functional.kl_div(logits.log_softmax(dim=1), target, reduction="batchmean")
