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
AT_ONCE = 1_000_000
"""Numbers in one tensor of intervals, about."""
Models = Float[Tensor, "rows _"]
"""The confidences of some models, in ascending order."""


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
    models = len(first) + len(second)
    size = max(1, AT_ONCE // (models * (models + 1)))
    chunks = torch.arange(first.shape[1]).chunk(math.ceil(first.shape[1] / size))
    return [epsilon for rows in chunks for epsilon in _epsilons(first[:, rows].T, second[:, rows].T).tolist()]


def _epsilons(one: Float[Tensor, "rows _"], other: Float[Tensor, "rows _"]) -> Float[Tensor, " rows"]:
    one, other = (values.sort(dim=1).values.contiguous() for values in (one, other))
    ranges = torch.stack([values.amax(dim=1) - values.amin(dim=1) for values in (one, other)])
    peaky = ranges.amin(dim=0) < PEAKY * ranges.amax(dim=0)
    values = torch.cat([one, other], dim=1).sort(dim=1).values.contiguous()
    above, within = ([rule(models, values) for models in (one, other)] for rule in (_above, _within))
    low = (one.median(dim=1).values <= other.median(dim=1).values)[:, None]
    narrow = (ranges[0] <= ranges[1])[:, None]
    fpr = torch.cat([above[0].where(low, above[1]), within[1].where(narrow, within[0])], dim=1)
    fnr = 1 - torch.cat([above[1].where(low, above[0]), within[0].where(narrow, within[1])], dim=1)
    apart = ((fpr == 0) & (fnr == 0)).any(dim=1)
    known = (fpr > 0) & (fnr > 0)
    bounds = torch.stack([(1 - DELTA - a).clip(min=0).log() - b.log() for a, b in ((fpr, fnr), (fnr, fpr))])
    best = bounds.amax(dim=0).where(known, 0.0).amax(dim=1).clip(0.0, CAP)
    return best.where(~(apart | peaky), CAP)


def _above(models: Models, values: Float[Tensor, "rows t"]) -> Float[Tensor, "rows t"]:
    """Return the share of models at each of the ascending values of a row, or above."""
    return 1 - torch.searchsorted(models, values).double() / models.shape[1]


def _within(models: Models, values: Float[Tensor, "rows t"]) -> Float[Tensor, "rows i"]:
    """Return the share of models in each interval between two values of a row."""
    left, right = torch.triu_indices(values.shape[1], values.shape[1])
    upto, before = (torch.searchsorted(models, values, right=closed) for closed in (True, False))
    return (upto[:, right] - before[:, left]).double() / models.shape[1]
