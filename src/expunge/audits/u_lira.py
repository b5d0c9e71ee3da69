"""u_lira: can the best attacker tell, row by row, an unlearned model from a retrained one?

U-LiRA of Hayes et al., "Inexact Unlearning Needs More Careful Evaluations", https://arxiv.org/abs/2403.01218, and
Kurmanji et al. (SCRUB), https://arxiv.org/abs/2302.09880, after the likelihood ratio attack of Carlini et al.,
https://arxiv.org/abs/2112.03570.

1. Take each row's logit-scaled confidence, log p - log(1 - p) for the probability p of its label, under every model.
2. For each row fit a Gaussian to the unlearned models and one to the retrained models. A standard deviation is at least
   `min_deviation`, so that models that agree to the last bit do not make an attacker all too sure.
3. Score a model on a row by the logarithm of the ratio of both likelihoods. No model judges itself: for each pair of an
   unlearned and a retrained model both are left out of the fits.
4. ``auc`` is the share of pairs in which the unlearned model has the higher score, a tie counting half; ``accuracy``
   the share of models on the right side of a ratio of one. Both are means over rows, from 0 to 1; the ideal is 0.5.

It is asked for the rows to forget and, since these are not all that forgetting can give away, for the rows to keep.

Differences from the papers: leaving out pairs instead of training an extra population to attack, which keeps the
expectation at exactly 0.5 where there is nothing to find.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from expunge.audits._populations import compared, margins_once
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings

Confidences = Float[Tensor, "_ rows"]
"""One row per model."""
Pairs = Float[Tensor, "unlearned retrained rows"]
AT_ONCE = 50_000
"""Numbers in one tensor of pairs, as many as a processor's cache holds."""


@settings
class ULira:
    """Likelihood ratio attack on single rows, between unlearned and retrained models."""

    level: ClassVar[int | None] = 4

    min_deviation: Annotated[float, Gt(0)] = 0.01
    """Least standard deviation of a fitted Gaussian, in units of logit-scaled confidence."""
    min_models: Annotated[int, Gt(2)] = 8
    """Unlearned models needed, and half the retrained ones; the papers use 64 to 128."""
    splits: Annotated[int, Gt(1)] = 16
    """How often halves and mixtures are drawn, for floor and band."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return area and accuracy for rows to forget, and the area for rows to keep."""
        how_well = "How well the best attacker tells by the answers to single rows"
        return [
            self._attack(case, "auc", "forget", area, f"{how_well} to forget unlearned from retrained models."),
            self._attack(case, "accuracy", "forget", accuracy, f"{how_well} to forget which kind a model is."),
            self._attack(case, "auc", "retain", area, f"{how_well} to keep unlearned from retrained models."),
        ]

    def _attack(
        self,
        case: Case,
        name: str,
        part: Part,
        success: Callable[[Confidences, Confidences, float], float],
        meaning: str,
    ) -> Finding:
        margins = margins_once(part)

        def compare(models: Sequence[Evidence], retrained: Sequence[Evidence]) -> float:
            return success(margins(models), margins(retrained), self.min_deviation)

        return compared(
            case,
            f"u_lira/{name}/{part}",
            compare,
            part=part,
            models=self.min_models,
            splits=self.splits,
            level=4,
            meaning=f"{meaning} 0.5 is not at all.",
            better="lower",
            limits=(0.0, 1.0),
        )


def area(unlearned: Confidences, retrained: Confidences, min_deviation: float) -> float:
    """Return the area under the curve of leave-pair-out scores, averaged over rows."""

    def success(first: Pairs, second: Pairs) -> Pairs:
        return (1 + (first - second).sign()) / 2

    return _mean_over_rows(unlearned, retrained, min_deviation, success)


def accuracy(unlearned: Confidences, retrained: Confidences, min_deviation: float) -> float:
    """Return the share of left-out models that are told rightly; a score of zero counts half."""

    def success(first: Pairs, second: Pairs) -> Pairs:
        return (2 + first.sign() - second.sign()) / 4

    return _mean_over_rows(unlearned, retrained, min_deviation, success)


def _mean_over_rows(
    unlearned: Confidences, retrained: Confidences, min_deviation: float, success: Callable[[Pairs, Pairs], Pairs]
) -> float:
    """Return the mean of what a function makes of all pairs' scores, a few rows at a time to bound memory."""
    size = max(1, AT_ONCE // (len(unlearned) * len(retrained)))
    total = 0.0
    for rows in torch.arange(unlearned.shape[1]).chunk(math.ceil(unlearned.shape[1] / size)):
        first, second = pair_scores(unlearned[:, rows], retrained[:, rows], min_deviation)
        total += float(success(first, second).mean(dim=(0, 1)).sum())
    return total / unlearned.shape[1]


def pair_scores(unlearned: Confidences, retrained: Confidences, min_deviation: float) -> tuple[Pairs, Pairs]:
    """Return the log likelihood ratios of both models of each pair, fitted without the two of them."""
    mean_u, deviation_u = (values[:, None] for values in _without_each(unlearned, min_deviation))
    mean_r, deviation_r = (values[None] for values in _without_each(retrained, min_deviation))

    def ratio(values: Float[Tensor, "..."]) -> Pairs:
        return _surprise(values, mean_r, deviation_r) - _surprise(values, mean_u, deviation_u)

    return ratio(unlearned[:, None]), ratio(retrained[None])


def _without_each(values: Confidences, min_deviation: float) -> tuple[Confidences, Confidences]:
    """Return mean and standard deviation of the other models, for each model left out."""
    count, away = len(values), values - values.mean(dim=0)
    squares = (away**2).sum(dim=0) - away**2 * count / (count - 1)
    deviations = (squares.clip(min=0) / (count - 2)).sqrt().clip(min=min_deviation)
    return values - away * count / (count - 1), deviations


def _surprise(
    values: Float[Tensor, "..."], mean: Float[Tensor, "..."], deviation: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Return the negative logarithm of a Gaussian density, less a constant."""
    return ((values - mean) / deviation) ** 2 / 2 + deviation.log()
