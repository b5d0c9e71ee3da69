"""head_bias: does one constant, added to the forgotten outputs, bring the class back?

Many methods lower the output of a class and leave in it which rows are the class's. Whoever holds the model adds a
constant to that output; nothing is trained.

1. A row's margin is its highest forgotten logit less its highest retained one. Adding a constant to the forgotten
   logits is the same as another threshold on the margin.
2. Choose the constant on half of the retained test rows: the largest one at which at most 1 % (or 5 %) of them are
   taken for a forgotten class.
3. ``recall_at_1_fpr`` and ``recall_at_5_fpr``: share of the other half of ``forget_test`` that is then given its own
   class. Both halves are swapped and the recalls averaged.

From 0 to 1. The ideal is that of retrained models; it need not be near zero, since a network that never saw a class is
unsure of it and so ranks its rows high. Above their band, memory is left in the output; below it, the output was
emptied, which no retrained model's is. Not known for a request of single rows.

Halves are every second row in the order of the original's logits, so that all models have the same ones and the order
of rows does not matter. Source: the head-bias shift as a critique of suppressed outputs, as in
https://arxiv.org/abs/2503.06991; the protocol is ours.

What it catches: logits that were lowered or weakened, by whatever amount. What it does not catch by its nature: an
output that holds nothing, such as the constant of `head_mask`. The margin is then that of the retained logits alone,
which finds the class only where they are lower on its rows than retraining makes them, as on the digits.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from expunge.case import Case, Evidence
from expunge.finding import Finding
from expunge.settings import settings

RATES = (0.01, 0.05)


@settings
class HeadBias:
    """Recall of the forgotten classes after one constant is added to their logits."""

    level: ClassVar[int | None] = 3

    def __call__(self, case: Case) -> list[Finding]:
        """Return recall at 1 % and at 5 % false positives."""
        classes = [int(index) for index in case.split.request.classes]
        missing = (
            "a request of single rows has no class to bring back"
            if not classes
            else case.closed() or case.missing("forget_test") or case.missing("retain_test")
        )
        halves = {part: halve(case.original.logits[part]) for part in ("retain_test", "forget_test")}

        def recall(evidence: Evidence, rate: float) -> float:
            kept = margins(evidence.logits["retain_test"], classes)
            forgotten = margins(evidence.logits["forget_test"], classes)
            own = evidence.logits["forget_test"][:, classes].argmax(dim=1)
            right = torch.tensor(classes)[own] == evidence.labels["forget_test"]
            return recall_at(kept, forgotten, right, halves["retain_test"], halves["forget_test"], rate)

        return [
            case.measure(
                f"head_bias/recall_at_{rate * 100:g}_fpr",
                lambda evidence, rate=rate: None if missing else recall(evidence, rate),  # type: ignore[misc]
                level=None if missing else self.level,
                meaning="Share of unseen rows to forget that the model gets right once a constant is added to the "
                f"forgotten outputs, at {rate:.0%} false alarms on kept rows.",
                higher="memory",
                note=missing,
                limits=(0.0, 1.0),
                step=case.row("forget_test"),
            )
            for rate in RATES
        ]


def margins(logits: Float[Tensor, "rows classes"], forgotten: list[int]) -> Float[Tensor, " rows"]:
    """Return each row's highest forgotten logit less its highest retained one."""
    hidden = torch.zeros(logits.shape[1], dtype=torch.bool)
    hidden[forgotten] = True
    return logits[:, hidden].amax(dim=1) - logits[:, ~hidden].amax(dim=1)


def halve(logits: Float[Tensor, "rows classes"]) -> Bool[Tensor, " rows"]:
    """Return which rows are in the first half: every second one when rows are sorted by their logits."""
    order = np.lexsort(logits.numpy().T)
    first = torch.zeros(len(logits), dtype=torch.bool)
    first[torch.from_numpy(order[::2].copy())] = True
    return first


def threshold(margins: Float[Tensor, " rows"], rate: float) -> float:
    """Return the lowest value that at most `rate` of the margins are above."""
    return float(margins.sort(descending=True).values[int(rate * len(margins))])


def recall_at(
    kept: Float[Tensor, " kept"],
    forgotten: Float[Tensor, " forgotten"],
    right: Bool[Tensor, " forgotten"],
    kept_half: Bool[Tensor, " kept"],
    forgotten_half: Bool[Tensor, " forgotten"],
    rate: float,
) -> float:
    """Return the share of forgotten rows above the threshold of the other half of the kept rows, and right."""
    recalled = torch.zeros_like(right)
    for half in (True, False):
        chosen = kept[kept_half == half]
        tested = forgotten_half != half
        if len(chosen):
            recalled |= tested & right & (forgotten > threshold(chosen, rate))
    return float(recalled.double().mean())
