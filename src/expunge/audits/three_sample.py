"""three_sample: is it certain that the model's answers are nearer to a retrained model's than to the original's?

The relative test of Bounliphone et al., "A Test of Relative Similarity For Model Selection in Generative Models",
https://arxiv.org/abs/1511.04581; as a question to unlearning, https://arxiv.org/abs/2601.19755.

1. Take the softmax distributions over the rows to forget: of the model in question, a retrained model, the original.
2. The squared maximum mean discrepancy of two models compares their answers through a Gaussian kernel, whose width is
   the median distance between answers of different models.
3. The statistic is the discrepancy from the retrained model less that from the original. It is a mean over pairs of
   rows, a U-statistic, and so about normal; its variance follows from each row's share in it.
4. ``p_value`` is the probability of a statistic so small if the model were equally near to both: from 0 to 1, and low
   is good. A model passes with at most `significance`, or with what retrained models have. The original has about 1.

It is relative: a model that is nearer to retraining than to the original may still be far from both.

Differences from the paper: all models answer the same rows, so that their answers are not independent samples. The
variance is that of one U-statistic over rows with their three answers, not of a difference of independent ones; and
with several retrained models the discrepancy from them is the mean. At most `max_rows` rows are used, evenly spaced in
the order of the original's confidence, since time grows with the square.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import UNINFORMATIVE, Finding, finding
from expunge.settings import settings

Answers = Float[Tensor, "rows classes"]
PerRow = Float[Tensor, " rows"]
PART: Part = "forget"


@settings
class ThreeSample:
    """Relative test of the answers: nearer to retraining than to the original."""

    level: ClassVar[int | None] = 1

    significance: Annotated[float, Gt(0), Lt(1)] = 0.01
    """The largest p-value that counts as certain."""
    max_rows: Annotated[int, Ge(20)] = 1000
    """Rows compared, each with each."""
    min_rows: Annotated[int, Ge(10)] = 20
    """Rows that the normal approximation needs."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return the p-value."""
        labels = case.original.labels[PART]
        few = len(labels) < self.min_rows
        chosen = self._rows(case.original)
        original = answers(case.original, chosen)

        @functools.cache
        def of_pair(evidence: Evidence, other: Evidence) -> PerRow:
            return row_shares(answers(evidence, chosen), answers(other, chosen), original)

        def p_value(evidence: Evidence, others: Sequence[Evidence]) -> float:
            return p_value_of(torch.stack([of_pair(evidence, other) for other in others]).mean(dim=0))

        value = (lambda evidence: None) if few else case.beside_retrained(p_value)
        found = finding(
            "three_sample/p_value",
            original=value(case.original),
            unlearned=value(case.unlearned),
            retrained=[value(evidence) for evidence in case.retrained],
            level=None if few else self.level,
            meaning="How likely answers to the rows to forget as near to retrained models' would be, if the model were "
            "as near to the original.",
            note=f"only informs: {len(labels)} rows in {PART}, where {self.min_rows} are needed" if few else None,
            limits=(0.0, 1.0),
        )
        if found.band is None or found.unlearned is None:
            return [found]
        return [self._one_sided(found, found.unlearned, max(self.significance, found.band[1]))]

    def _one_sided(self, found: Finding, unlearned: float, highest: float) -> Finding:
        informative = found.original is not None and found.original > highest
        note = found.note if informative or found.informative is False else UNINFORMATIVE
        return replace(found, band=(0.0, highest), inside=unlearned <= highest, informative=informative, note=note)

    def _rows(self, original: Evidence) -> Tensor:
        labels = original.labels[PART][:, None]
        confidence = original.logits[PART].double().softmax(dim=1).gather(1, labels).squeeze(1)
        count = min(len(confidence), self.max_rows)
        if count == 0:
            return torch.zeros(0, dtype=torch.int64)
        return confidence.argsort(stable=True)[(2 * torch.arange(count) + 1) * len(confidence) // (2 * count)]


def answers(evidence: Evidence, rows: Tensor) -> Answers:
    """Return the softmax distributions of some rows to forget, in double precision."""
    return evidence.logits[PART][rows].double().softmax(dim=1)


def relative_test(model: Answers, retrained: Sequence[Answers], original: Answers) -> float:
    """Return the p-value of the model being as near to the original as to retrained models; low says nearer to these.

    One half if no row tells.
    """
    return p_value_of(torch.stack([row_shares(model, other, original) for other in retrained]).mean(dim=0))


def p_value_of(per_row: PerRow) -> float:
    """Return the p-value of a statistic from each row's share in it."""
    statistic = float(per_row.mean())
    deviation = 2 * float(per_row.std()) / math.sqrt(len(per_row))
    if deviation == 0:
        return 0.5 if statistic == 0 else float(statistic > 0)
    return float(stats.norm.cdf(statistic / deviation))


def row_shares(model: Answers, retrained: Answers, original: Answers) -> PerRow:
    """Return each row's mean share in MMD²(model, retrained) - MMD²(model, original) over its pairs with the others."""
    kernel = shares(model, retrained, original)
    return (kernel.sum(dim=1) - kernel.diagonal()) / (len(kernel) - 1)


def shares(model: Answers, retrained: Answers, original: Answers) -> Float[Tensor, "rows rows"]:
    """Return each pair of rows' share in MMD²(model, retrained) - MMD²(model, original); the model's own cancels."""
    width = float(torch.cat([torch.cdist(model, other).flatten() for other in (retrained, original)]).median())
    width = width or 1.0

    def kernel(first: Answers, second: Answers) -> Float[Tensor, "rows rows"]:
        return (-(torch.cdist(first, second) ** 2) / (2 * width**2)).exp()

    def beside(other: Answers) -> Float[Tensor, "rows rows"]:
        across = kernel(model, other)
        return kernel(other, other) - across - across.T

    return beside(retrained) - beside(original)
