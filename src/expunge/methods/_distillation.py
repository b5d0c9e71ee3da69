"""Distillation: what a teacher says of inputs, and how far a student's softened outputs are from it.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from expunge.network import copy_of
from expunge.runtime import Runtime

Teacher = Callable[[Shaped[Tensor, "rows ..."]], Float[Tensor, "rows classes"]]
"""From inputs to logits, in evaluation mode and out of any graph."""


def teacher_of(model: nn.Module, runtime: Runtime) -> Teacher:
    """Return a copy of a model as a teacher; the model is left as it is, and free to be trained."""
    call = runtime.place(copy_of(model).eval())

    def answer(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return call(inputs)

    return answer


def divergence(
    student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], *, temperature: float
) -> Float[Tensor, " rows"]:
    """Return the Kullback-Leibler divergence of each row's softened outputs from the teacher's, in nats.

    ``sum over classes of t (log t - log s)``, with t and s the softmax of the logits over the temperature.

    Args:
        student: Logits.
        teacher: Logits.
        temperature: What both are divided by: 1 leaves them as they are, more evens them out.
    """
    wanted, given = (functional.log_softmax(logits / temperature, dim=1) for logits in (teacher, student))
    return functional.kl_div(given, wanted, reduction="none", log_target=True).sum(dim=1)
