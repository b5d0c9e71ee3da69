"""query: do the answers alone set the forgotten rows apart from kept ones that get the same answer?

An attacker holds rows of the forgotten classes, without labels, and may ask the model. A model that never saw a class
is unsure of its rows in a way of its own; one that was made to forget may be far surer, or even more unsure.

1. Of every test row, take the softmax over the retained classes, its logarithms sorted from high to low: how the answer
   is spread, and not on which classes.
2. Fit a logistic regression, classes balanced, that tells ``forget_test`` from ``retain_test`` rows; in five folds,
   so that every row is scored by a fit that did not see it.
3. ``auc``: how often a forgotten row has a higher score than a kept row of the same predicted class, over all such
   pairs. From 0 to 1; 0.5 is a coin. Ideal: that of retrained models, which is well above 0.5.

Not known where no retained class is predicted for both kinds of rows. Streams: ``query/folds`` and, beyond `rows` rows,
``query/rows``. In the spirit of the membership recall attack, https://arxiv.org/abs/2506.19486, which distils a student
from the answers; here a logistic regression takes its place.

What it does not catch: `head_mask` and any other hidden output, as the answers over retained classes are the original's
own. It counts for no level: where the original's answers over retained classes are as unsure as those of retrained
models, doing nothing passes.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from expunge.case import Case, Evidence
from expunge.finding import Finding
from expunge.settings import settings
from expunge.training import Count


@settings
class Query:
    """How well the spread of the answers tells forgotten rows from kept ones with the same answer."""

    level: ClassVar[int | None] = None

    rows: Count = 2000
    """The most rows of each kind that the attacker asks about."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return one finding."""
        classes = [int(index) for index in case.split.request.classes]
        kept = [index for index in range(len(case.split.label_names)) if index not in classes]
        missing = None if classes else "a request of single rows has no unseen rows to tell apart"
        missing = missing or case.missing("forget_test") or case.missing("retain_test")
        missing = missing or ("one class is retained: all answers are the same" if len(kept) < 2 else None)
        seed = int(torch.randint(2**31, (), generator=case.runtime.generator("query/folds")))

        def value(evidence: Evidence) -> float | None:
            if missing:
                return None
            logits = [
                some(evidence.logits[part][:, kept], self.rows, case.runtime.generator("query/rows"))
                for part in ("forget_test", "retain_test")
            ]
            return separation(logits[0], logits[1], seed)

        return [
            case.measure(
                "query/auc",
                value,
                level=self.level,
                meaning="How well an attacker, going by how the model's answers are spread, tells rows to forget from "
                "kept rows that get the same answer; 0.5 is not at all, 1 is perfectly.",
                note=missing,
                limits=(0.0, 1.0),
            )
        ]


def some(
    logits: Float[Tensor, "rows classes"], count: int, generator: torch.Generator
) -> Float[Tensor, "some classes"]:
    """Return at most `count` rows, drawn at random if there are more."""
    return logits if len(logits) <= count else logits[torch.randperm(len(logits), generator=generator)[:count]]


def separation(
    forgotten: Float[Tensor, "forgotten classes"], kept: Float[Tensor, "kept classes"], seed: int
) -> float | None:
    """Return the area under the ROC curve over pairs of rows with the same predicted class; None without any.

    None as well with fewer than two rows of a kind, which leave nothing to fit on.
    """
    if min(len(forgotten), len(kept)) < 2:
        return None
    logits = torch.cat([forgotten, kept])
    kinds = torch.arange(len(logits)) < len(forgotten)
    order = torch.from_numpy(np.lexsort((*logits.numpy().T, kinds.numpy())).copy())
    logits, kinds = logits[order], kinds[order]
    folds = StratifiedKFold(min(5, len(forgotten), len(kept)), shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    scores = cross_val_predict(model, spread(logits).numpy(), kinds.numpy(), cv=folds, method="decision_function")
    return paired_auc(torch.as_tensor(scores), kinds, logits.argmax(dim=1))


def spread(logits: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
    """Return the logarithms of each row's softmax distribution from high to low, none below -100."""
    return logits.double().log_softmax(dim=1).sort(dim=1, descending=True).values.clamp(min=-100)


def paired_auc(
    scores: Float[Tensor, " rows"], positive: Bool[Tensor, " rows"], groups: Int64[Tensor, " rows"]
) -> float | None:
    """Return the share of pairs, a positive and a negative of one group, that are in order; a tie is half a pair."""
    above = pairs = 0.0
    for group in sorted(set(groups.tolist())):
        ours, theirs = scores[(groups == group) & positive], scores[(groups == group) & ~positive]
        ranked = theirs.sort().values
        below = torch.searchsorted(ranked, ours, side="left") + torch.searchsorted(ranked, ours, side="right")
        above += float(below.sum()) / 2
        pairs += len(ours) * len(theirs)
    return above / pairs if pairs else None
