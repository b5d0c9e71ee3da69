"""neurips_score: the forgetting score of the NeurIPS 2023 machine unlearning challenge.

Triantafillou et al., "Are we making progress in unlearning?", https://arxiv.org/abs/2406.09073, after
https://github.com/google-deepmind/unlearning_evaluation.

1. Take each row's logit-scaled confidence under every unlearned and every retrained model.
2. An attacker who may choose any threshold, or any interval that the narrower population lies in, has a false positive
   rate and a false negative rate. From them follows the least epsilon of (epsilon, delta) unlearning that is not yet
   refuted: max(log(1 - delta - fpr) - log(fnr), log(1 - delta - fnr) - log(fpr)), with delta = 1e-5. Perfect separation
   gives 50, the most; a choice with a single zero rate says nothing. A population with a range below a hundredth of the
   other's gives 50 as well.
3. A row gets 1 point for an epsilon below 0.5, half a point below 1, a quarter below 1.5, up to log(models - 1) rounded
   up, and none beyond. ``forgetting`` is the mean, from 0 to 1.
4. ``final`` is that times the accuracy of unlearned over retrained models, on rows to keep and on unseen rows to keep.

The ideal is that of retrained models, which is below 1, since with few models chance alone separates them on some rows.
Scores of different numbers of models cannot be compared; the challenge had 512.

Differences from the reference code: its check that some choice is left compares a whole array with nothing and fails
with two or more; thresholds are the confidences themselves, all that make a difference, where it has a grid of
hundredths; every interval is tried, where it tries those about as wide as the narrower population.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from expunge.audits._populations import Compare, compared, margins
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings

DELTA, CAP, BUCKET, PEAKY = 1e-5, 50.0, 0.5, 0.01


@settings
class NeuripsScore:
    """The forgetting score of the 2023 challenge, and its product with utility."""

    level: ClassVar[int | None] = 4

    min_models: Annotated[int, Gt(2)] = 16
    """Unlearned models needed, and half the retrained ones; the challenge had 512 of each."""
    splits: Annotated[int, Gt(1)] = 8
    """How often halves and mixtures are drawn, for floor and band."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return forgetting and the final score."""
        meaning = "How little an attacker with many unlearned and many retrained models learns from each row to forget"
        return [
            self._score(case, "forgetting", forgetting, f"{meaning}; 1 is nothing.", 1.0),
            self._score(case, "final", final, f"{meaning}, times how much of the accuracy is kept.", math.inf),
        ]

    def _score(self, case: Case, name: str, score: Compare, meaning: str, most: float) -> Finding:
        return compared(
            case,
            f"neurips_score/{name}",
            score,
            part="forget",
            models=self.min_models,
            splits=self.splits,
            level=4,
            meaning=meaning,
            better="higher",
            limits=(0.0, most),
        )


def forgetting(unlearned: Sequence[Evidence], retrained: Sequence[Evidence]) -> float:
    """Return the mean points of the rows to forget."""
    found = epsilons(margins(unlearned, "forget"), margins(retrained, "forget"))
    return fmean(points(epsilon, min(len(unlearned), len(retrained))) for epsilon in found)


def final(unlearned: Sequence[Evidence], retrained: Sequence[Evidence]) -> float:
    """Return forgetting times the shares of accuracy kept; an accuracy without rows counts as kept."""
    parts: tuple[Part, ...] = ("retain", "retain_test")
    kept = [accuracy(unlearned, part) / accuracy(retrained, part) for part in parts if len(retrained[0].labels[part])]
    return forgetting(unlearned, retrained) * math.prod(kept)


def accuracy(models: Sequence[Evidence], part: Part) -> float:
    """Return the mean accuracy of models on a part."""
    return fmean(float((one.logits[part].argmax(1) == one.labels[part]).double().mean()) for one in models)


def points(epsilon: float, models: int) -> float:
    """Return the points of a row: halved for every half of epsilon, none beyond what so many models can show."""
    bucket = math.floor(epsilon / BUCKET)
    return 2.0**-bucket if (bucket + 1) * BUCKET <= math.ceil(math.log(models - 1)) else 0.0


def epsilons(first: Float[Tensor, "first rows"], second: Float[Tensor, "second rows"]) -> list[float]:
    """Return the epsilon of each row, from 0 to 50; which population is which does not matter."""
    return [_epsilon(one, other) for one, other in zip(first.T, second.T, strict=True)]


def _epsilon(one: Float[Tensor, " first"], other: Float[Tensor, " second"]) -> float:
    ranges = sorted((float(one.max() - one.min()), float(other.max() - other.min())))
    if ranges[0] < PEAKY * ranges[1]:
        return CAP
    narrow, wide = (one, other) if one.max() - one.min() <= other.max() - other.min() else (other, one)
    low, high = (one, other) if one.median() <= other.median() else (other, one)
    values = torch.unique(torch.cat([one, other]))
    rates = [_above(high, low, values), _within(narrow, wide, values)]
    fpr, fnr = (torch.cat([pair[index] for pair in rates]) for index in (0, 1))
    if ((fpr == 0) & (fnr == 0)).any():
        return CAP
    known = (fpr > 0) & (fnr > 0)
    fpr, fnr = fpr[known], fnr[known]
    if len(fpr) == 0:
        return 0.0
    bounds = torch.stack([(1 - DELTA - a).clip(min=0).log() - b.log() for a, b in ((fpr, fnr), (fnr, fpr))])
    return min(CAP, max(0.0, float(bounds.max())))


def _above(
    positives: Float[Tensor, " p"], negatives: Float[Tensor, " n"], values: Float[Tensor, " t"]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """Return false positive and false negative rates of taking for positive what is at a threshold or above."""
    fpr = (negatives[None] >= values[:, None]).double().mean(dim=1)
    fnr = (positives[None] < values[:, None]).double().mean(dim=1)
    return fpr, fnr


def _within(
    positives: Float[Tensor, " p"], negatives: Float[Tensor, " n"], values: Float[Tensor, " t"]
) -> tuple[Float[Tensor, " i"], Float[Tensor, " i"]]:
    """Return the rates of taking for positive what is in an interval, for all intervals between two values."""
    left, right = torch.triu_indices(len(values), len(values))

    def inside(members: Float[Tensor, " m"]) -> Float[Tensor, " i"]:
        ordered = members.sort().values
        upto = torch.searchsorted(ordered, values, right=True)
        before = torch.searchsorted(ordered, values, right=False)
        return (upto[right] - before[left]).double() / len(members)

    return inside(negatives), 1 - inside(positives)
