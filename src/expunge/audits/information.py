"""information: how much do the inner features still tell about whether a row was to be forgotten?

At each depth (see `Evidence.features`), the mutual information of the features and the binary label "belongs to the
forgotten classes", in nats: the entropy of the label less the cross-entropy of a predictor. From Jeon et al.,
"An Information Theoretic Evaluation Metric For Strong Unlearning", https://arxiv.org/abs/2405.17878.

1. A predictor is fitted on the training rows, and measured on test rows. With ``estimator="probe"`` it is a logistic
   regression on standardised features; with ``"infonce"`` it is the paper's InfoNCE critic, a small network that
   scores features against a vector for each label. At most the label's entropy; below 0 where the predictor is worse
   than the label's share.
2. ``total``: the sum over depths. Ideal: that of retrained models. It counts for the level.
3. ``index``, the information difference index: the sum over depths of the information less that of retrained models,
   as a share of the same for the original: 0 for a retrained model, 1 for the original, below 0 for one that knows
   even less. Of a retrained model: against the other ones (see `Case.beside_retrained`). It informs: where the
   original knows hardly more than retrained models, it divides by almost nothing, and has no number if by nothing.

Streams, of the critic: ``information/critic``.

Differences from the paper: test rows, since training rows of a retrained model are not unseen alike; pooled features
and a small critic at every depth in the place of the network's own later layers, trained anew; a batch is all rows, so
that the estimate is exact for the critic; differences are signed, where the paper cuts off what is below 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive

Logits = Callable[[Float[Tensor, "rows width"]], Float[Tensor, " rows"]]
PARTS: tuple[Part, ...] = ("retain", "forget", "retain_test", "forget_test")

SMALLEST = 1e-6
"""Nats that the index does not divide by less than."""


@settings
class Information:
    """Information of the features about what was to be forgotten, in all and against retrained models."""

    level: ClassVar[int | None] = 2

    estimator: Literal["probe", "infonce"] = "probe"
    """A logistic regression, or the paper's InfoNCE critic, which takes longer."""
    strength: Positive = 1.0
    """Penalty of the logistic regression: half the squared weights times this, against the sum of the rows' losses."""
    critic_width: Count = 64
    """Width of the critic."""
    critic_steps: Count = 200
    """Steps of AdamW on all rows that train the critic, with a weight decay of 1: few rows are learned by heart."""
    critic_lr: Positive = 0.005
    """Its learning rate."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return total and index; without features or test rows to forget nothing is known."""
        missing = case.unseen(*PARTS)
        known = {} if missing else case.each((self, case.depths), lambda evidence: self._at_every_depth(evidence, case))

        def excess(evidence: Evidence, others: Sequence[Evidence]) -> float:
            return sum(known[evidence]) - fmean(sum(known[other]) for other in others)

        def index(evidence: Evidence, others: Sequence[Evidence]) -> float:
            return excess(evidence, others) / excess(case.original, others)

        leaving_one_out = [[one for one in case.retrained if one is not left_out] for left_out in case.retrained]
        no_more = bool(known) and any(
            abs(excess(case.original, others)) < SMALLEST for others in leaving_one_out if others
        )
        return [
            case.measure(
                "information/total",
                lambda evidence: None if missing else sum(known[evidence]),
                level=None if missing else self.level,
                meaning="How much the model's features, over all depths, tell about whether an unseen row is of a "
                "class that was to be forgotten, in nats.",
                higher="memory",
                note=missing,
                series=None
                if missing
                else case.series(case.depths, "information in the features, in nats, by depth", known.__getitem__),
            ),
            case.measure(
                "information/index",
                (lambda evidence: None) if missing or no_more else case.beside_retrained(index),
                level=None,
                meaning="Share of what the original's features know of the forgotten classes, beyond what models know "
                "that never learned them, that is left; 0 is nothing, 1 is all.",
                note=missing or ("the original knows no more than a retrained model" if no_more else None),
            ),
        ]

    def _at_every_depth(self, evidence: Evidence, case: Case) -> list[float]:
        return [self._at(evidence.features[depth], case.runtime) for depth in case.depths]

    def _at(self, features: Mapping[Part, Float[Tensor, "rows width"]], runtime: Runtime) -> float:
        training = torch.cat([features["retain"], features["forget"]]).double()
        mean, scale = training.mean(dim=0), training.std(dim=0, correction=0)
        scale = scale.where(scale > 0, 1.0)
        values = (training - mean) / scale
        forgotten = torch.arange(len(values)) >= len(features["retain"])
        if self.estimator == "probe":
            predictor = logistic(values, forgotten, self.strength)
        else:
            predictor = critic(
                values, forgotten, runtime, width=self.critic_width, steps=self.critic_steps, lr=self.critic_lr
            )
        test = torch.cat([features["retain_test"], features["forget_test"]]).double()
        truth = torch.arange(len(test)) >= len(features["retain_test"])
        return information(predictor((test - mean) / scale), truth)


def information(logits: Float[Tensor, " rows"], truth: Bool[Tensor, " rows"]) -> float:
    """Return the entropy of a binary label less the cross-entropy of a predictor's log-odds of it, in nats."""
    share = float(truth.double().mean())
    entropy = -sum(part * math.log(part) for part in (share, 1 - share) if part > 0)
    return entropy - float(functional.binary_cross_entropy_with_logits(logits.double(), truth.double()))


def logistic(values: Float[Tensor, "rows width"], truth: Bool[Tensor, " rows"], strength: float) -> Logits:
    """Return the log-odds that an L2-penalised logistic regression gives."""
    model = LogisticRegression(C=1 / strength, tol=1e-6, max_iter=1000)
    model.fit(values.numpy(), truth.numpy())
    weights, bias = torch.from_numpy(model.coef_[0]), float(model.intercept_[0])
    return lambda rows: rows @ weights + bias


def critic(
    values: Float[Tensor, "rows width"],
    truth: Bool[Tensor, " rows"],
    runtime: Runtime,
    *,
    width: int,
    steps: int,
    lr: float,
) -> Logits:
    """Return the log-odds that an InfoNCE critic gives.

    The critic scores a row against a label by the product of an embedding of the row and a vector of the label. InfoNCE
    tells a row's own label among those of all rows: its loss is the score's logarithm of the mean exponential over
    all rows' labels, less the score of the row's own.
    """
    inputs, share = values.float(), truth.float().mean()
    priors = torch.stack([1 - share, share]).log()
    with runtime.seeded("information/critic"), torch.enable_grad():
        embed = nn.Sequential(nn.Linear(values.shape[1], width), nn.ReLU(), nn.Linear(width, width))
        vectors = nn.Parameter(torch.randn(2, width) / math.sqrt(width))
        optimizer = torch.optim.AdamW([*embed.parameters(), vectors], lr, weight_decay=1.0)
        for _ in range(steps):
            scores = embed(inputs) @ vectors.T
            own = scores.gather(1, truth.long()[:, None]).squeeze(1)
            loss = ((scores + priors).logsumexp(dim=1) - own).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def log_odds(rows: Tensor) -> Tensor:
        scores = embed(rows.float()) @ vectors.T + priors
        odds: Tensor = scores[:, 1] - scores[:, 0]
        return odds

    return log_odds
