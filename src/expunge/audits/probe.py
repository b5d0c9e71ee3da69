"""probe: can a fresh linear layer on the frozen features still name the forgotten classes?

Hiding an output leaves the features as they were, and whoever fits a new head to them has the class back. At several
depths of every model (see `Evidence.features`), on training rows of all classes, the forgotten ones included:

1. ``forget_test``: a linear probe is fitted, by ridge regression on one-hot labels with an intercept, features
   standardised, the penalty `ridge` times the mean diagonal of their Gram matrix; the share of ``forget_test`` rows
   that it gives their class. The knowledge retention score of ESC, https://github.com/KU-VGI/ESC, and
   Alain and Bengio, https://arxiv.org/abs/1610.01644.
2. ``nearest_centre``: the share of ``forget_test`` rows that lie nearest to the mean of their own class.
3. ``retain_test``: accuracy of the linear probe on retained rows, for information.

All from 0 to 1. The ideal is the number of retrained models, and mostly far from 0: features that were learned from
other classes also serve a new one. What the head reads counts for the level; earlier depths inform.

Differences from ESC: closed form, not gradient descent, so that no learning rate decides.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from expunge.audits.accuracy import accuracy
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings
from expunge.taps import HEAD
from expunge.training import Positive

Predict = Callable[[Float[Tensor, "rows width"]], Float[Tensor, "rows classes"]]


@settings
class Probe:
    """Linear probe and nearest class centre on the features of every depth."""

    level: ClassVar[int | None] = 2

    ridge: Positive = 1e-3
    """Penalty of the linear probe, as a multiple of the mean diagonal of the features' Gram matrix."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return three findings per depth; only what the head reads counts, and only with rows in forget_test."""
        depths = case.depths or (HEAD,)
        probes = (
            {}
            if case.unseen()
            else case.each(
                (self, "ridge", depths), lambda evidence: {depth: self._fit(evidence, depth) for depth in depths}
            )
        )
        centres = (
            {}
            if case.unseen()
            else case.each(
                (self, "centres", depths), lambda evidence: {depth: _centres(evidence, depth) for depth in depths}
            )
        )
        return [
            *(
                self._recall(
                    case,
                    "forget_test",
                    depth,
                    probes,
                    f"Share of unseen rows of the classes to forget that a new linear layer {_place(depth)} can name.",
                )
                for depth in depths
            ),
            *(
                self._recall(
                    case,
                    "nearest_centre",
                    depth,
                    centres,
                    f"Share of unseen rows of the classes to forget that lie nearest to their own class's mean "
                    f"{_place(depth)}.",
                )
                for depth in depths
            ),
            *(
                self._recall(
                    case,
                    "retain_test",
                    depth,
                    probes,
                    f"Share of unseen rows of the classes to keep that a new linear layer {_place(depth)} can name.",
                )
                for depth in depths
            ),
        ]

    def _fit(self, evidence: Evidence, depth: str) -> Predict:
        features, labels = training_features(evidence, depth)
        targets = functional.one_hot(labels, evidence.logits["retain"].shape[1])
        return ridge(features, targets, self.ridge)

    def _recall(
        self, case: Case, name: str, depth: str, fitted: dict[Evidence, dict[str, Predict]], meaning: str
    ) -> Finding:
        part: Part = "retain_test" if name == "retain_test" else "forget_test"
        missing = case.unseen(part)

        def value(evidence: Evidence) -> float | None:
            if missing:
                return None
            return accuracy(fitted[evidence][depth](evidence.features[depth][part]), evidence.feature_labels[part])

        return case.measure(
            f"probe/{name}/{depth}",
            value,
            level=self.level if depth == HEAD and part == "forget_test" and not missing else None,
            meaning=meaning,
            higher="kept" if part == "retain_test" else "memory",
            note=missing,
            limits=(0.0, 1.0),
            step=case.row(part),
        )


def training_features(evidence: Evidence, depth: str) -> tuple[Float[Tensor, "rows width"], Int64[Tensor, " rows"]]:
    """Return features and labels of the training rows, retained ones first."""
    parts: tuple[Part, Part] = ("retain", "forget")
    features = torch.cat([evidence.features[depth][part] for part in parts])
    return features, torch.cat([evidence.feature_labels[part] for part in parts])


def ridge(features: Float[Tensor, "rows width"], targets: Int64[Tensor, "rows classes"], strength: float) -> Predict:
    """Return the ridge regression of targets on standardised features, in double precision.

    The penalty is `strength` times the mean diagonal of the standardised features' Gram matrix; the intercept has none.
    """
    values, goals = features.double(), targets.double()
    mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
    scale = scale.where(scale > 0, 1.0)
    values = (values - mean) / scale
    gram = values.T @ values
    penalty = strength * float(gram.diagonal().mean()) or 1.0
    factor = torch.linalg.cholesky(gram + penalty * torch.eye(len(gram), dtype=gram.dtype))
    weights = torch.cholesky_solve(values.T @ (goals - goals.mean(dim=0)), factor)
    return lambda rows: (rows.double() - mean) / scale @ weights + goals.mean(dim=0)


def nearest_centre(features: Float[Tensor, "rows width"], labels: Int64[Tensor, " rows"], classes: int) -> Predict:
    """Return minus the distance to the mean of each class; a class without rows is infinitely far."""
    values = features.double()
    centres = torch.stack(
        [
            values[labels == index].mean(dim=0) if (labels == index).any() else values.new_full(values.shape[1:], 1e300)
            for index in range(classes)
        ]
    )
    return lambda rows: -torch.cdist(rows.double(), centres, compute_mode="donot_use_mm_for_euclid_dist")


def _centres(evidence: Evidence, depth: str) -> Predict:
    return nearest_centre(*training_features(evidence, depth), evidence.logits["retain"].shape[1])


def _place(depth: str) -> str:
    return "on what the head reads" if depth == HEAD else f"on the features after {depth}"
