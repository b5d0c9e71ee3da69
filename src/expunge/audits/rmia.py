"""rmia: does a model still treat the forgotten rows as rows that it was trained on?

RMIA of Zarifzadeh et al., "Low-Cost High-Power Membership Inference Attacks", https://arxiv.org/abs/2312.03562, in its
offline form, which needs only reference models that never saw the rows: the retrained ones, and few of them.

1. p(x | model) is the probability that a model gives a row's label. Of the references take the mean, p_out(x).
2. Over models trained with the row and without it the mean is taken to be p(x) = ((1 + a) p_out(x) + 1 - a) / 2: those
   trained with it are the surer the lower `a` is.
3. A row is compared with every row z of a population that no model has seen, here ``retain_test``: its score is the
   share of the z for which (p(x | model) / p(x)) / (p(z | model) / p(z)) is at least gamma.
4. ``predicted_member`` is the share of the rows to forget with a score above that of all but `false_positives` of the
   unseen rows, each of which is compared with the others. ``auc`` is how well scores tell rows to forget from unseen
   rows of the same classes, as max(a, 1 - a) for the area a. Both are from 0 to 1.

The ideal is the number of a retrained model, whose references are the other ones. It is an attack on one model, so it
counts for level 1: passing it says less than passing an attack with populations does.

Differences from the paper: thresholds come from the unseen rows themselves; `a` is not tuned on a second model.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float
from torch import Tensor

from expunge.audits.membership import folded_auc
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings
from expunge.training import Count

Confidence = Callable[[Evidence, Part], Float[Tensor, " rows"]]


@settings
class Rmia:
    """Relative membership inference with few reference models."""

    level: ClassVar[int | None] = 1

    a: Annotated[float, Ge(0), Le(1)] = 0.3
    """How unsure models trained with a row are taken to be, the paper's value for images: 1 is as those without."""
    gamma: Annotated[float, Gt(0)] = 2.0
    """How many times likelier than a row of the population a row must be; the paper's value."""
    false_positives: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Share of the unseen rows that may be accused."""
    min_rows: Count = 100
    """Rows that each compared group must have for a number to count for the level."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return the share of accused rows and the area; those from too few rows only inform."""
        same: Part = "retain_test" if case.missing("forget_test") else "forget_test"
        sure = functools.cache(confidence)
        alike = torch.isin(case.original.labels[same], case.original.labels["forget"])

        def accused(evidence: Evidence, others: Sequence[Evidence]) -> float:
            scores, unseen = (self._scores(sure, evidence, others, part) for part in ("forget", "retain_test"))
            allowed = int(self.false_positives * len(unseen))
            return float((scores > unseen.sort(descending=True).values[allowed]).double().mean())

        def area(evidence: Evidence, others: Sequence[Evidence]) -> float:
            scores, unseen = (self._scores(sure, evidence, others, part) for part in ("forget", same))
            return folded_auc(np.sort(scores.numpy()), np.sort(unseen[alike].numpy()))

        rows = {part: len(case.original.labels[part]) for part in ("forget", "retain_test")}
        return [
            self._measure(
                case,
                "rmia/predicted_member",
                accused,
                rows,
                "Share of the rows to forget that an attacker with retrained models of his own takes for rows that "
                "the model was trained on.",
            ),
            self._measure(
                case,
                "rmia/auc",
                area,
                rows | {f"the same classes in {same}": int(alike.sum())},
                "How well an attacker with retrained models of his own tells rows to forget from unseen rows of the "
                "same class; 0.5 is not at all.",
            ),
        ]

    def _scores(
        self, sure: Confidence, evidence: Evidence, others: Sequence[Evidence], part: Part
    ) -> Float[Tensor, " rows"]:
        """Return the scores of a part's rows."""
        own, population = (
            relative(sure(evidence, of), torch.stack([sure(other, of) for other in others]), self.a)
            for of in (part, "retain_test")
        )
        return scores(own, population, self.gamma, within=part == "retain_test")

    def _measure(
        self,
        case: Case,
        name: str,
        distance: Callable[[Evidence, Sequence[Evidence]], float],
        rows: dict[str, int],
        meaning: str,
    ) -> Finding:
        few = [f"{count or 'no'} rows in {where}" for where, count in rows.items() if count < self.min_rows]
        note = f"only informs: {' and '.join(few)}, where {self.min_rows} are needed to count" if few else None
        note = case.closed() or note
        known = all(count > 1 for count in rows.values()) and not case.closed()
        return case.measure(
            name,
            case.beside_retrained(distance) if known else lambda evidence: None,
            level=None if few or case.closed() else self.level,
            meaning=meaning,
            note=note,
            paired=True,
            limits=(0.0, 1.0),
            step=case.row("forget"),
        )


def confidence(evidence: Evidence, part: Part) -> Float[Tensor, " rows"]:
    """Return the probability of each row's label, in double precision."""
    probabilities = evidence.logits[part].double().softmax(dim=1)
    return probabilities.gather(1, evidence.labels[part][:, None]).squeeze(1)


def relative(own: Float[Tensor, " rows"], references: Float[Tensor, "models rows"], a: float) -> Float[Tensor, " rows"]:
    """Return p(x | model) / p(x), where p(x) comes from models that never saw the rows."""
    return own / (((1 + a) * references.mean(dim=0) + 1 - a) / 2)


def scores(
    own: Float[Tensor, " rows"], population: Float[Tensor, " population"], gamma: float, *, within: bool
) -> Float[Tensor, " rows"]:
    """Return the share of the population that each row is at least gamma times likelier than.

    It is of the whole population also where a row is not compared with itself: shares of n and of n - 1 would set apart
    rows that are likelier than equally many.

    Args:
        own: Relative probabilities of the rows.
        population: Those of the population.
        gamma: The factor.
        within: Whether the rows are the population itself; then none is compared with itself.
    """
    ordered = population.sort().values
    below = torch.searchsorted(ordered, own / gamma, right=True).double()
    return (below - int(within and gamma <= 1)) / len(population)
