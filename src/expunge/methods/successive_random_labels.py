"""successive_random_labels: train on with random wrong labels for what is to be forgotten, drawn anew for every pass.

Cadet, Borovykh, Malekzadeh, Ahmadi-Abhari and Haddadi, "Deep Unlearn: Benchmarking Machine Unlearning",
https://arxiv.org/abs/2410.01276, who name it after what the code of Fan et al., "SalUn", does on CIFAR-10,
https://arxiv.org/abs/2310.12508. A label that changes cannot be learned by heart.

1. Give every forgotten row a label that is not its own, drawn at random.
2. Train one pass on these and on the retained rows, with Adam.
3. Do both again, as often as there are passes.

Reads: retain and forget.

Differences from the code: forgotten and retained rows are mixed, where the code goes through the forgotten ones first;
the label drawn is never the true one, and where whole classes are forgotten it is a retained one, as in
`random_labels`, whose passes, rate and batch size it has, so that the two differ in this alone. Adam starts anew with
every pass.

Reproduction: not tried at the size of its authors, which takes a GPU. On digits, with its own settings, it forgets next
to nothing, for want of steps: the tables of ``docs/methods.md``.
"""

from typing import ClassVar

from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.methods.random_labels import other_labels
from expunge.network import copy_of
from expunge.rows import JoinedRows, RelabelledRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, adam, fit


@settings
class SuccessiveRandomLabels:
    """Random wrong labels for the forgotten rows, drawn anew for every pass; true ones for the rest."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    epochs: Count = 3
    """Passes over all rows, each with labels of its own."""
    batch_size: Count = 128
    """Rows per step."""
    lr: Positive = 1e-4
    """Adam's learning rate."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that was taught other labels."""
        forgetting = copy_of(model)
        training = adam(epochs=1, batch_size=self.batch_size, lr=self.lr)
        for epoch in range(self.epochs):
            labels = other_labels(access, runtime.generator(f"successive_random_labels/labels/{epoch}"))
            rows = JoinedRows(access["retain"], RelabelledRows(access["forget"], labels))
            fit(forgetting, rows, runtime, training, stage=f"relabelled {epoch + 1}")
        return forgetting
