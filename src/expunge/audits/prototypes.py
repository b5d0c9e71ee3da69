"""prototypes: does a handful of examples bring the forgotten class back, without any training?

The prototypical relearning attack of Ha et al., "Unlearning's Blind Spots", https://arxiv.org/abs/2506.01318:

1. Take k ``forget`` rows of each forgotten class, and the mean p of what the head reads of them: the prototype.
2. Put it in the place of the class's row in the head: 2 p as weights and -|p|^2 as bias, which ranks rows by their
   squared distance to p.
3. ``recall/k``: the share of ``forget_test`` rows that the model now gives their class.
4. ``balanced/k``: the mean of that recall and the accuracy on ``retain_test`` with the new row in place. A row that
   every input goes to has full recall and brings nothing back; it shows here.

For every k the mean over several draws, the same rows for every model; from 0 to 1. The ideal is the number of
retrained models, whose features also gather a class that they never saw. ``balanced`` counts for the level with ten
rows, or else with the greatest k below, or the least of all; the others inform.

Stream: ``prototypes/rows``. Rows are drawn from an order by the original's features, so that theirs is of no matter.

Differences from the authors' code: the old row is replaced whole, where theirs mixes half of it in, which a very low
bias survives; rows are drawn from ``forget``, not from the test set; accuracy on retained rows is part of the score.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import MinLen
from jaxtyping import Float, Int64
from torch import Tensor

from expunge.audits.accuracy import accuracy
from expunge.case import Case, Evidence
from expunge.finding import Finding
from expunge.network import find_head
from expunge.outputs import reopened
from expunge.settings import settings
from expunge.taps import HEAD
from expunge.training import Count

Draw = Mapping[int, Int64[Tensor, " k"]]
"""By forgotten class, the indices of the rows drawn."""
Head = tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]
JUDGED = 10


@settings
class Prototypes:
    """Recall of the forgotten classes, and accuracy beside it, once their head rows are means of a few features."""

    level: ClassVar[int | None] = 2

    k: Annotated[tuple[Count, ...], MinLen(1)] = (1, 5, 10, 50)
    """How many rows of each forgotten class make a prototype; all of a class that has fewer."""
    draws: Count = 10
    """How often rows are drawn for each k."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return two findings per k; nothing is known without features or rows to forget in both parts."""
        missing = case.unseen("retain_test", "forget", "forget_test")
        scores: dict[Evidence, list[tuple[float, float]]] = {}
        if not missing:
            draws = [[_draw(case, k, number) for number in range(self.draws)] for k in self.k]
            scores = case.each(self, lambda evidence: [_mean_scores(evidence, each) for each in draws])
        judged = max((k for k in self.k if k <= JUDGED), default=min(self.k))
        return [
            *(self._finding(case, "balanced", index, scores, missing, counts=k == judged) for index, k in self._each()),
            *(self._finding(case, "recall", index, scores, missing, counts=False) for index, k in self._each()),
        ]

    def _each(self) -> list[tuple[int, int]]:
        return list(enumerate(self.k))

    def _finding(
        self,
        case: Case,
        name: str,
        index: int,
        scores: Mapping[Evidence, Sequence[tuple[float, float]]],
        missing: str | None,
        *,
        counts: bool,
    ) -> Finding:
        column = 1 if name == "balanced" else 0
        k = self.k[index]
        rows = f"{k} of their training rows" if k > 1 else "one of their training rows"
        return case.measure(
            f"prototypes/{name}/{k}",
            lambda evidence: None if missing else scores[evidence][index][column],
            level=self.level if counts and not missing else None,
            meaning=f"Accuracy on unseen rows, half of it on classes to keep and half on those to forget, after the "
            f"latter's rows in the last layer are rebuilt from {rows}."
            if name == "balanced"
            else f"Share of unseen rows of the classes to forget that the model names after their rows in the last "
            f"layer are rebuilt from {rows}.",
            higher="memory",
            note=missing,
            series=case.series(
                [str(each) for each in self.k],
                "accuracy by the number of rows that the last layer is rebuilt from",
                lambda evidence: [score[column] for score in scores[evidence]],
            )
            if counts and not missing
            else None,
            limits=(0.0, 1.0),
            step=case.row("forget_test") / (1 + column),
        )


def rebuilt(head: Head, features: Float[Tensor, "rows width"], draw: Draw) -> Head:
    """Return weights and biases of a head whose forgotten rows are prototypes."""
    weights, biases = head[0].clone(), head[1].clone()
    for index, rows in draw.items():
        prototype = features[rows].mean(dim=0)
        weights[index], biases[index] = 2 * prototype, -prototype.square().sum()
    return weights, biases


def _mean_scores(evidence: Evidence, draws: Sequence[Draw]) -> tuple[float, float]:
    """Return recall and balanced accuracy, averaged over draws."""
    features = {part: values.double() for part, values in evidence.features[HEAD].items()}
    layer = find_head(reopened(evidence.model), evidence.logits["retain"].shape[1])
    weights = layer.weight.detach().double().cpu()
    biases = torch.zeros_like(weights[:, 0])
    if layer.bias is not None:
        biases = layer.bias.detach().double().cpu()
    scores = []
    for draw in draws:
        new, shift = rebuilt((weights, biases), features["forget"], draw)
        recall, kept = (
            accuracy(features[part] @ new.T + shift, evidence.feature_labels[part])
            for part in ("forget_test", "retain_test")
        )
        scores.append((recall, (recall + kept) / 2))
    return fmean(recall for recall, _ in scores), fmean(balanced for _, balanced in scores)


def _draw(case: Case, k: int, number: int) -> Draw:
    """Return the rows of one draw; a smaller k draws some of the rows of a greater one."""
    labels = case.original.feature_labels["forget"]
    keys = case.original.features[HEAD]["forget"]
    generator = case.runtime.generator(f"prototypes/rows/{number}")
    drawn = {}
    for index in sorted(set(labels.tolist())):
        own = np.flatnonzero(labels.numpy() == index)
        ordered = own[np.lexsort(keys.numpy()[own].T)]
        drawn[index] = torch.from_numpy(ordered[torch.randperm(len(ordered), generator=generator).numpy()[:k]])
    return drawn
