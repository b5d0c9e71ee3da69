"""similarity: are the inner features of forgotten rows still the original's, or those of retrained models?

Linear centred kernel alignment (CKA) between two models' features of the same rows, at several depths (see
`Evidence.features`). Kornblith et al., https://arxiv.org/abs/1905.00414, with the unbiased estimator of the
Hilbert-Schmidt independence criterion (debiased CKA), since few rows of wide features look alike by chance: Song et
al., "Feature Selection via Dependence Maximization", JMLR 2012, equation 5. At most 1, for features equal up to
rotation and scale; around 0 for unrelated ones; it may fall below 0.

1. ``original``: to the original, on ``forget_test``. 1 for a model that was left as it was.
2. ``retrained``: to retrained models, on ``forget_test``, averaged over them. Of a retrained model: to the other ones
   (see `Case.beside_retrained`), which is the ideal.
3. ``retain_test``: the same on retained rows, for information.

What the head reads counts for the level; earlier depths inform. CKA can be high for models that differ in what matters
(Davari et al., https://arxiv.org/abs/2210.16156): it is read beside `probe`.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from statistics import fmean
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings
from expunge.taps import HEAD

Pairs = Mapping[tuple[Evidence, Evidence], float]
FEWEST = 4
"""Rows that the unbiased estimator takes."""


@settings
class Similarity:
    """Debiased linear CKA to the original and to retrained models, at every depth."""

    level: ClassVar[int | None] = 2

    def __call__(self, case: Case) -> list[Finding]:
        """Return three findings per depth; only what the head reads counts, and only with rows in forget_test."""
        depths = case.depths or (HEAD,)
        return [
            *(self._to_original(case, depth) for depth in depths),
            *(self._to_retrained(case, depth, "forget_test") for depth in depths),
            *(self._to_retrained(case, depth, "retain_test") for depth in depths),
        ]

    def _to_original(self, case: Case, depth: str) -> Finding:
        missing = _missing(case, "forget_test")
        alike = {} if missing else similarities(case, depth, "forget_test")
        return case.measure(
            f"similarity/original/{depth}",
            lambda evidence: None if missing else alike[case.original, evidence],
            level=self.level if depth == HEAD and not missing else None,
            meaning=f"How much the model's features of rows to be forgotten, {_place(depth)}, are still the "
            "original's; 1 is wholly.",
            higher="memory",
            note=missing,
            limits=(-math.inf, 1.0),
        )

    def _to_retrained(self, case: Case, depth: str, part: Part) -> Finding:
        missing = _missing(case, part)
        alike = {} if missing else similarities(case, depth, part)

        def mean(evidence: Evidence, others: Sequence[Evidence]) -> float:
            return fmean(alike[evidence, other] for other in others)

        forgotten = part == "forget_test"
        return case.measure(
            f"similarity/{'retrained' if forgotten else part}/{depth}",
            (lambda evidence: None) if missing else case.beside_retrained(mean),
            level=self.level if depth == HEAD and forgotten and not missing else None,
            meaning=f"How much the model's features of rows to {'be forgotten' if forgotten else 'keep'}, "
            f"{_place(depth)}, are like those of models that never learned what is to be forgotten.",
            note=missing,
            paired=True,
            limits=(-math.inf, 1.0),
        )


def similarities(case: Case, depth: str, part: Part) -> Pairs:
    """Return the similarity of the features of every two models, in both orders."""
    features = {evidence: evidence.features[depth][part].double() for evidence in case.models}
    own = {evidence: independence(values, values) for evidence, values in features.items()}
    alike: dict[tuple[Evidence, Evidence], float] = {}
    for one, other in combinations_with_replacement(features, 2):
        shared = own[one] if one is other else independence(features[one], features[other])
        alike[one, other] = alike[other, one] = _ratio(shared, own[one], own[other])
    return alike


def cka(first: Float[Tensor, "rows width"], second: Float[Tensor, "rows width2"]) -> float:
    """Return the debiased linear CKA of two sets of features of the same rows; 0 if one of them does not vary."""
    first, second = first.double(), second.double()
    return _ratio(independence(first, second), independence(first, first), independence(second, second))


def independence(first: Float[Tensor, "rows width"], second: Float[Tensor, "rows width2"]) -> float:
    """Return the unbiased estimate of the Hilbert-Schmidt independence criterion with linear kernels.

    With kernels K and L whose diagonals are set to 0, over n rows: (tr KL + (1'K1)(1'L1) / ((n - 1)(n - 2))
    - 2 (1'KL1) / (n - 2)) / (n (n - 3)). No matrix of n by n is made.
    """
    rows = len(first)
    first, second = first - first.mean(dim=0), second - second.mean(dim=0)
    norms = first.square().sum(dim=1), second.square().sum(dim=1)
    trace = (first.T @ second).square().sum() - (norms[0] * norms[1]).sum()
    # features are centred, so that a row of K sums to minus its entry on the diagonal
    totals = norms[0].sum() * norms[1].sum() / ((rows - 1) * (rows - 2))
    mixed = 2 * (norms[0] * norms[1]).sum() / (rows - 2)
    return float((trace + totals - mixed) / (rows * (rows - 3)))


def _ratio(shared: float, first: float, second: float) -> float:
    return shared / math.sqrt(first * second) if first > 0 and second > 0 else 0.0


def _missing(case: Case, part: Part) -> str | None:
    rows = 0 if case.unseen(part) else len(case.original.feature_labels[part])
    few = f"{rows} rows in {part}, where {FEWEST} are needed" if rows < FEWEST else None
    return case.unseen(part) or few


def _place(depth: str) -> str:
    return "as the head reads them" if depth == HEAD else f"after {depth}"
