"""prediction: where do the rows of the forgotten classes go, and is that where a retrained model sends them?

A retrained model does not answer at random when it meets a class that it never saw: a forgotten cat becomes a dog
more often than a ship. A model that spreads such rows evenly, or sends them all to one class, gives away that it was
made to forget, and what.

1. ``total_variation``: half the L1 distance between the model's mean softmax distribution over the part and that of
   retrained models. From 0 to 1. Source: the leak through neighbouring classes in
   Ebrahimpour-Boroojeny et al., https://arxiv.org/abs/2506.20893; the distance itself is textbook.
2. ``entropy``: mean entropy of the softmax distributions, in nats, from 0 to the logarithm of the number of classes.
   Source: Golatkar et al., https://arxiv.org/abs/1911.04933 (the Streisand effect).
3. ``alignment``: mean cosine between a row's logits, their mean taken off, and those that a retrained model gives that
   row, averaged over retrained models. From -1 to 1. An output that is merely hidden stands out: the other outputs
   were never raised in its place. On kept rows it informs. Cosine similarity of logits is textbook; as a test of
   forgetting it is ours. Outputs that one of both does not have are left out.
4. ``churn``: share of rows whose predicted class is not the one that a retrained model predicts, averaged over
   retrained models. From 0 to 1. Source: Milani Fard et al., "Launch and Iterate: Reducing Prediction Churn", 2016.

The ideal of each is the number of a retrained model. Total variation, alignment and churn of a retrained model are
measured against the other ones (see `Case.beside_retrained`).
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from expunge.audits._histogram import places, shares
from expunge.bootstrap import Values
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings

PLACES = 12
"""Places of the histogram of entropies, from 0 to that of an even guess."""


@settings
class Prediction:
    """Where forgotten rows go, how surely, and how often kept rows are answered otherwise than by retraining."""

    level: ClassVar[int | None] = 1

    def __call__(self, case: Case) -> list[Finding]:
        """Return total variation on both forgotten parts, entropy, alignment and churn.

        A part without rows only informs.
        """
        forgotten: Part = "forget" if case.missing("forget_test") else "forget_test"
        return [
            self._variation("forget_test", case),
            self._variation("forget", case),
            self._entropy("forget_test", case),
            self._alignment(forgotten, case),
            self._alignment("retain_test", case),
            self._churn("retain_test", case),
        ]

    def _variation(self, part: Part, case: Case) -> Finding:
        def distance(evidence: Evidence, others: Sequence[Evidence]) -> float:
            expected = torch.stack([mean_distribution(other.logits[part]) for other in others]).mean(dim=0)
            return total_variation(mean_distribution(evidence.logits[part]), expected)

        missing = case.missing(part)
        return case.measure(
            f"prediction/total_variation/{part}",
            (lambda evidence: None) if missing else case.beside_retrained(distance),
            level=None if missing else self.level,
            meaning="How far the model's answers to rows to be forgotten differ, as a whole, from those of models that "
            "never learned them.",
            note=missing,
            series=None
            if missing
            else case.series(
                case.split.label_names,
                f"mean probability of each class over {part}",
                lambda evidence: mean_distribution(evidence.logits[part]).tolist(),
            ),
            paired=True,
            limits=(0.0, 1.0),
        )

    def _entropy(self, part: Part, case: Case) -> Finding:
        missing = case.missing(part)
        edges = [math.log(len(case.split.label_names)) * step / PLACES for step in range(PLACES)]
        return case.measure(
            f"prediction/entropy/{part}",
            lambda evidence: None if missing else float(entropy(evidence.logits[part]).mean()),
            level=None if missing else self.level,
            meaning="How undecided the model is about rows to be forgotten; being far more or less undecided than a "
            "model that never learned them gives the forgetting away.",
            higher="oblivion",
            note=missing,
            series=None
            if missing
            else case.series(
                places(edges),
                f"share of {part} by entropy, in nats",
                lambda evidence: shares(entropy(evidence.logits[part]).numpy(), edges),
            ),
            limits=(0.0, math.log(len(case.split.label_names))),
            rows=lambda evidence: entropy(evidence.logits[part]).numpy(),
        )

    def _alignment(self, part: Part, case: Case) -> Finding:
        def mean(evidence: Evidence, others: Sequence[Evidence]) -> float:
            return sum(alignment(evidence.logits[part], other.logits[part]) for other in others) / len(others)

        missing, forgotten = case.missing(part), part != "retain_test"
        return case.measure(
            f"prediction/alignment/{part}",
            (lambda evidence: None) if missing else case.beside_retrained(mean),
            level=self.level if forgotten and not missing else None,
            meaning=f"How alike, row by row, all outputs for rows to {'be forgotten' if forgotten else 'keep'} are to "
            "those of models that never learned what is to be forgotten; 1 is the same up to scale.",
            note=missing,
            paired=True,
            limits=(-1.0, 1.0),
        )

    def _churn(self, part: Part, case: Case) -> Finding:
        def distance(evidence: Evidence, others: Sequence[Evidence]) -> float:
            return fmean(churn(evidence.logits[part], other.logits[part]) for other in others)

        def rates(evidence: Evidence) -> Values:
            answers = evidence.logits[part].argmax(dim=1)
            others = torch.stack([other.logits[part].argmax(dim=1) for other in case.retrained])
            shares: Values = (others != answers).double().mean(dim=0).numpy()
            return shares

        missing = case.missing(part)
        return case.measure(
            f"prediction/churn/{part}",
            (lambda evidence: None) if missing else case.beside_retrained(distance),
            level=None if missing else self.level,
            meaning="Share of unseen rows to keep that the model answers otherwise than models that never learned what "
            "is to be forgotten.",
            note=missing,
            paired=True,
            limits=(0.0, 1.0),
            step=case.row(part),
            rows=rates if len(case.retrained) > 1 else None,
        )


def mean_distribution(logits: Float[Tensor, "rows classes"]) -> Float[Tensor, " classes"]:
    """Return the mean of the rows' softmax distributions, in double precision."""
    return logits.double().softmax(dim=1).mean(dim=0)


def total_variation(first: Float[Tensor, " classes"], second: Float[Tensor, " classes"]) -> float:
    """Return the total variation distance of two distributions, half their L1 distance, from 0 to 1."""
    return float((first - second).abs().sum() / 2)


def entropy(logits: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """Return the entropy of each row's softmax distribution, in nats, in double precision."""
    logs = logits.double().log_softmax(dim=1)
    # an output that a model does not have is minus infinity, and adds nothing
    return -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(dim=1)


def alignment(first: Float[Tensor, "rows classes"], second: Float[Tensor, "rows classes"]) -> float:
    """Return the mean over rows of the cosine between two models' logits, each row's mean taken off, from -1 to 1.

    A constant added to all logits of a row changes no probability, and does not count. Nor does an output that one of
    the models does not have.
    """
    shared = (first.isfinite() & second.isfinite()).all(dim=0)
    given = first[:, shared].double(), second[:, shared].double()
    centred = [logits - logits.mean(dim=1, keepdim=True) for logits in given]
    return float(cosine_similarity(centred[0], centred[1], dim=1).mean())


def churn(first: Float[Tensor, "rows classes"], second: Float[Tensor, "rows classes"]) -> float:
    """Return the share of rows that two models predict different classes for, from 0 to 1."""
    return float((first.argmax(dim=1) != second.argmax(dim=1)).double().mean())
