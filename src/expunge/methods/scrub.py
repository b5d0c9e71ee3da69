"""scrub: move away from the original's answers to what is to be forgotten, then back to them on all else, in turns.

Kurmanji, Triantafillou, Hayes and Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023,
https://arxiv.org/abs/2302.09880; code https://github.com/meghdadk/SCRUB.

1. The original is the teacher; the student starts as a copy of it.
2. Max step. One pass over the forgotten rows that makes the Kullback-Leibler divergence of the student's softened
   outputs from the teacher's large. Only the first `max_steps` rounds have it.
3. Min step. One pass over the retained rows that minimises ``alpha`` times the divergence from the teacher plus
   ``gamma`` times the cross-entropy. Every round has it, so that the last ones mend what the max steps broke.

Reads: retain and forget.

Differences from the code: it goes on with one optimiser, which here starts anew with every pass; SGD has Nesterov
momentum. As in the code, the divergence counts by the square of the temperature, which the paper's equations lack.
Defaults are those of the code's experiments in membership inference, batch sizes those of its large-scale notebook; its
notebooks differ from one another (3 to 10 rounds, SGD or Adam, ``alpha`` from 0.001 to 0.5).

A student that equals its teacher has no slope to leave it by. Dropout and batch normalisation, which behave otherwise
in training, give it one; a network with neither is moved by the first max step through weight decay alone, and is
driven off only from the second on.

Not here: SCRUB+R, which rewinds to the round whose error on the forgotten rows is nearest to that on held-out rows of
the same kind. Such rows are those that audits judge by, and of single rows there are none.

Reproduction: not tried at the size of its authors, which takes a GPU. On digits, with its own settings, it forgets next
to nothing, for want of steps: the tables of ``docs/methods.md``.
"""

from typing import Annotated, ClassVar

from annotated_types import Ge
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part
from expunge.methods._distillation import Teacher, divergence, teacher_of
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Loss, NotNegative, Positive, Training, fit

DECAY = 0.1
"""What the learning rate falls to after the rounds that have it whole."""


@settings
class Scrub:
    """Disobey the original on the forgotten rows, obey it on the others (SCRUB)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    epochs: Count = 5
    """Rounds: passes over the retained rows."""
    max_steps: Count = 3
    """The first so many rounds begin with a pass over the forgotten rows; the code's ``msteps``."""
    alpha: NotNegative = 0.5
    """Weight of the divergence from the teacher in a min step."""
    gamma: NotNegative = 1.0
    """Weight of the cross-entropy in a min step."""
    temperature: Positive = 4.0
    """What all logits are divided by before the softmax in a divergence."""
    forget_batch_size: Count = 32
    """Rows per step of a max step."""
    batch_size: Count = 128
    """Rows per step of a min step."""
    lr: Positive = 5e-4
    """Learning rate of SGD with momentum 0.9."""
    whole_lr_epochs: Annotated[int, Ge(0)] = 3
    """Rounds after which the learning rate is a tenth."""
    weight_decay: NotNegative = 5e-4
    """SGD's weight decay."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that no longer answers to the forgotten rows as the original does.

        Raises:
            DivergedError: The divergence has left every bound, at lower rates too.
        """
        forgetting, teacher = copy_of(model), teacher_of(model, runtime)
        away, back = self.away(teacher), self.back(teacher)
        for number in range(1, self.epochs + 1):
            if number <= self.max_steps:
                training = self._training(number, self.forget_batch_size)
                fit(forgetting, access["forget"], runtime, training, stage=f"max {number}", loss=away)
            training = self._training(number, self.batch_size)
            fit(forgetting, access["retain"], runtime, training, stage=f"min {number}", loss=back)
        return forgetting

    def away(self, teacher: Teacher) -> Loss:
        """Return the loss of a max step."""

        def loss(
            logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
        ) -> Tensor:
            return -self._divergence(logits, teacher(inputs))

        return loss

    def back(self, teacher: Teacher) -> Loss:
        """Return the loss of a min step."""

        def loss(
            logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
        ) -> Tensor:
            error = functional.cross_entropy(logits, labels)
            return self.gamma * error + self.alpha * self._divergence(logits, teacher(inputs))

        return loss

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.temperature**2 * divergence(student, teacher, temperature=self.temperature).mean()

    def _training(self, number: int, batch_size: int) -> Training:
        """Return how to take the passes of a round, counted from 1."""
        lr = self.lr if number <= self.whole_lr_epochs else DECAY * self.lr
        return Training(
            epochs=1,
            batch_size=batch_size,
            optimizer="sgd",
            lr=lr,
            weight_decay=self.weight_decay,
            schedule="constant",
        )
