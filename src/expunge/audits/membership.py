"""membership: can an outsider tell from the outputs that the forgotten rows were trained on?

Three published attacks, each on one score per row. Scores are the same for the whole population of rows, so these are
average-case attacks: passing them is necessary, not sufficient.

1. ``entropy/predicted_member``: a logistic regression, classes balanced, learns to tell ``retain`` from
   ``retain_test`` by entropy; the share of ``forget`` rows that it takes for training rows. Foster et al. (SSD),
   https://arxiv.org/abs/2308.07707. Ideal: that of retrained models.
2. ``loss/accuracy``: a logistic regression on cross-entropy, clipped to [-100, 100], tells as many ``forget`` rows as
   test rows of the same classes apart; its five-fold cross-validated accuracy. Kurmanji et al. (SCRUB),
   https://arxiv.org/abs/2302.09880. Ideal: about 0.5, a coin.
3. ``confidence/predicted_non_member``, also called MIA efficacy: a support vector machine (C = 3, Gaussian kernel)
   learns to tell as many ``retain`` rows as there are in ``retain_test`` from these by the probability of their label;
   the share of ``forget`` rows that it takes for rows that were *not* trained on. Fan et al. (SalUn),
   https://arxiv.org/abs/2310.12508. Ideal: that of retrained models, which is not 1.

For entropy and loss there are also, between ``forget`` rows and test rows of the same classes, ``auc``, the area under
the ROC curve a, as max(a, 1 - a), and ``tpr_at_1_fpr``, the true positive rate at a false positive rate of at most
1 %, the larger one of both directions: rows that look *less* like training rows than test rows do give the forgetting
away just as well. Confidence ranks rows as loss does, so its two would be those of loss. All numbers are from 0 to 1.

What counts: a number counts for its level only if each group of rows that it is computed from has at least `min_rows`
rows. With 100, a share has a standard error of up to 0.05, and one false positive is 1 %; with fewer, the number
informs and its note says so.

The test rows of the same classes are those in ``forget_test``; for a request of single rows, those in ``retain_test``.

Differences from the papers: a subset is evenly spaced in the sorted scores and not drawn at random, so that it is no
matter of luck or of the order of rows; folds cover every row once, where SCRUB draws five random tenths; the support
vector machine sees at most `max_fit_rows` rows of each kind.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC
from torch import Tensor

from expunge.audits import prediction
from expunge.audits._histogram import places, shares
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding, Series
from expunge.settings import settings
from expunge.training import Count

Scores = Float[np.ndarray, "_"]
"""One number per row, of as many rows as there are."""
LOSSES = (0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Edges of the histograms of losses, in nats: narrow where rows lie that were trained on."""
HISTOGRAMS = {
    "membership/loss/accuracy": (0, "training rows to forget"),
    "membership/loss/auc": (1, "unseen rows of the same classes"),
}
"""Which group of rows is drawn with which finding, so that the two stand side by side."""
Score = Callable[[Tensor, Tensor], Scores]


@settings
class Membership:
    """Three published membership attacks on the forgotten rows, two-sided."""

    level: ClassVar[int | None] = 1

    min_rows: Count = 100
    """Rows that each compared group must have for a number to count for the level."""
    max_fit_rows: Count = 2000
    """Rows of each kind that the support vector machine is fitted on; its time grows with the square."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return seven findings; those from too few rows only inform."""
        return [
            self._from_outside(
                case,
                "membership/entropy/predicted_member",
                entropy,
                lambda members, others, target: predicted_member(
                    LogisticRegression(class_weight="balanced"), members, others, target
                ),
                "Share of the rows to forget that an attacker, going by how undecided the model is, takes for rows "
                "that it was trained on.",
            ),
            *self._ranking(case, "entropy", entropy, "how undecided the model is"),
            self._same_classes(
                case,
                "membership/loss/accuracy",
                loss,
                lambda forgotten, unseen: cross_validated(forgotten, unseen, _fold_seed(case)),
                "How often an attacker, going by the model's error, rightly tells a row to forget from an unseen row "
                "of the same class; 0.5 is a coin.",
            ),
            *self._ranking(case, "loss", loss, "the model's error"),
            self._from_outside(
                case,
                "membership/confidence/predicted_non_member",
                confidence,
                self._efficacy,
                "Share of the rows to forget that an attacker, going by the model's confidence, takes for rows that it "
                "was not trained on.",
                "1 says that none looks trained on; a retrained model's share is the ideal, not 1",
            ),
        ]

    def _efficacy(self, members: Scores, others: Scores, target: Scores) -> float | None:
        count = min(len(members), len(others), self.max_fit_rows)
        # without a random_state it draws a seed from numpy's global generator, and does not use it
        machine = SVC(C=3, kernel="rbf", gamma="auto", random_state=0)
        member = predicted_member(machine, evenly(members, count), evenly(others, count), target)
        return None if member is None else 1 - member

    def _ranking(self, case: Case, name: str, score: Score, by: str) -> list[Finding]:
        return [
            self._same_classes(
                case,
                f"membership/{name}/auc",
                score,
                folded_auc,
                f"How well {by} ranks rows to forget apart from unseen rows of the same class; 0.5 is not at all, 1 is "
                "perfectly.",
            ),
            self._same_classes(
                case,
                f"membership/{name}/tpr_at_1_fpr",
                score,
                folded_tpr,
                f"Share of the rows to forget that {by} gives away when at most one unseen row in a hundred may be "
                "accused wrongly.",
            ),
        ]

    def _from_outside(
        self,
        case: Case,
        name: str,
        score: Score,
        attack: Callable[[Scores, Scores, Scores], float | None],
        meaning: str,
        note: str | None = None,
    ) -> Finding:
        """Return the finding of an attack that is fitted without the forgotten rows and then meets them."""
        parts: tuple[Part, Part, Part] = ("retain", "retain_test", "forget")

        def value(evidence: Evidence) -> float | None:
            members, others, target = (np.sort(score(evidence.logits[part], evidence.labels[part])) for part in parts)
            return attack(members, others, target)

        return self._measure(
            case, name, value, {part: len(case.original.labels[part]) for part in parts}, meaning, note
        )

    def _same_classes(
        self, case: Case, name: str, score: Score, attack: Callable[[Scores, Scores], float | None], meaning: str
    ) -> Finding:
        """Return the finding of an attack on forgotten rows and test rows of the same classes."""
        part: Part = "retain_test" if case.missing("forget_test") else "forget_test"
        same = torch.isin(case.original.labels[part], case.original.labels["forget"])

        def scores(evidence: Evidence) -> tuple[Scores, Scores]:
            forgotten = score(evidence.logits["forget"], evidence.labels["forget"])
            return np.sort(forgotten), np.sort(score(evidence.logits[part][same], evidence.labels[part][same]))

        rows = {"forget": len(case.original.labels["forget"]), f"the same classes in {part}": int(same.sum())}
        ranked = scores if attack is folded_auc and all(rows.values()) else None
        drawn = HISTOGRAMS.get(name) if all(rows.values()) else None
        series = drawn and case.series(
            places(LOSSES), f"share of {drawn[1]} by loss, in nats", lambda one: shares(scores(one)[drawn[0]], LOSSES)
        )
        return self._measure(
            case, name, lambda evidence: attack(*scores(evidence)), rows, meaning, ranked=ranked, series=series
        )

    def _measure(
        self,
        case: Case,
        name: str,
        value: Callable[[Evidence], float | None],
        rows: dict[str, int],
        meaning: str,
        note: str | None = None,
        ranked: Callable[[Evidence], tuple[Scores, Scores]] | None = None,
        series: Series | None = None,
    ) -> Finding:
        few = [f"{count or 'no'} rows in {where}" for where, count in rows.items() if count < self.min_rows]
        notes = [note] if note else []
        if few:
            notes.append(f"only informs: {' and '.join(few)}, where {self.min_rows} are needed to count")
        known = case.each((self, name), lambda evidence: value(evidence) if all(rows.values()) else None)
        if all(rows.values()) and None in known.values():
            notes.append("a model gives all rows one score, which no attack can be fitted on")
        level = None if few else self.level
        return case.measure(
            name,
            known.__getitem__,
            level=level,
            meaning=meaning,
            note="; ".join(notes) or None,
            limits=(0.0, 1.0),
            step=case.row("forget"),
            ranked=ranked,
            series=series,
        )


def entropy(logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"]) -> Scores:
    """Return each row's entropy in nats."""
    values: Scores = prediction.entropy(logits).numpy()
    return values


def loss(logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"]) -> Scores:
    """Return each row's cross-entropy in nats, clipped to [-100, 100]."""
    values: Scores = (
        torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none").clip(-100, 100).numpy()
    )
    return values


def confidence(logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"]) -> Scores:
    """Return the probability of each row's own class."""
    values: Scores = logits.double().softmax(dim=1).gather(1, labels[:, None]).squeeze(1).numpy()
    return values


def evenly(scores: Scores, count: int) -> Scores:
    """Return `count` of the sorted scores, evenly spaced."""
    chosen: Scores = scores[(2 * np.arange(count) + 1) * len(scores) // (2 * count)]
    return chosen


def predicted_member(
    classifier: LogisticRegression | SVC, members: Scores, others: Scores, target: Scores
) -> float | None:
    """Return the share of `target` that a classifier, fitted on members and others, takes for members.

    None if all scores that it would be fitted on are equal.
    """
    inputs = np.concatenate([members, others])
    if np.ptp(inputs) == 0:
        return None
    classifier.fit(inputs[:, None], np.repeat([1, 0], [len(members), len(others)]))
    return float(np.mean(classifier.predict(target[:, None])))


def cross_validated(first: Scores, second: Scores, seed: int) -> float | None:
    """Return how accurately a logistic regression tells equally many of both kinds apart, in five folds.

    0.5 if all scores are equal; None with fewer than two of a kind.
    """
    count = min(len(first), len(second))
    if count < 2:
        return None
    inputs = np.concatenate([evenly(first, count), evenly(second, count)])
    if np.ptp(inputs) == 0:
        return 0.5
    folds = StratifiedKFold(min(5, count), shuffle=True, random_state=seed)
    kinds = np.repeat([1, 0], count)
    return float(np.mean(cross_val_score(LogisticRegression(), inputs[:, None], kinds, cv=folds, scoring="accuracy")))


def folded_auc(first: Scores, second: Scores) -> float:
    """Return max(a, 1 - a), where a is the area under the ROC curve of telling both kinds apart."""
    area = float(roc_auc_score(np.repeat([1, 0], [len(first), len(second)]), np.concatenate([first, second])))
    return max(area, 1 - area)


def folded_tpr(positives: Scores, negatives: Scores, rate: float = 0.01) -> float:
    """Return the share of positives beyond a threshold that at most `rate` of the negatives are beyond.

    The better one of both directions: beyond is above, or below.
    """
    kinds = np.repeat([1, 0], [len(positives), len(negatives)])
    scores = np.concatenate([positives, negatives])
    curves = [roc_curve(kinds, sign * scores, drop_intermediate=False) for sign in (1, -1)]
    return max(float(true[false <= rate].max()) for false, true, _ in curves)


def _fold_seed(case: Case) -> int:
    return int(torch.randint(2**31, (), generator=case.runtime.generator("membership/folds")))
