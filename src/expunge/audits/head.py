"""head: does the last layer alone give away which class was removed?

The rows of the last linear layer, one per class, are compared with each other; no data is needed. Source: label
leakage from the classifier's rows, https://arxiv.org/abs/2604.07386.

1. ``norm``: the mean L2 norm of the forgotten classes' rows, as a multiple of that of the retained ones. 0 and up; 1
   for a class like any other.
2. ``bias``: the mean bias of the forgotten classes less that of the retained ones, in nats. Any sign; 0 for a class
   like any other.
3. ``cosine``: the same difference of the mean cosine similarity of a row to all other rows. From -2 to 2.
4. ``exposed``: for each of these, the share of retained classes that stand out less than a forgotten one, by distance
   from the retained classes' mean; the greatest of the three. From 0 to 1, where 1 picks out the forgotten classes.
   For information: it is 1 for most retrained models too.

The ideal is the number of retrained models, and not that of a class like any other: the row of a class that never came
up was only ever pushed away.
"""

import math
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from expunge.case import Case, Evidence
from expunge.errors import ModelError
from expunge.finding import Finding
from expunge.network import find_head
from expunge.settings import settings

Trait = Literal["norm", "bias", "cosine"]
TRAITS: tuple[Trait, ...] = get_args(Trait)
SMALLEST = 1e-12
"""Stands in for the mean norm of rows that are all 0."""
MEANINGS: dict[Trait, str] = {
    "norm": "Length of the forgotten classes' rows of the last layer, as a multiple of those of kept classes.",
    "bias": "How much higher the forgotten classes' biases in the last layer are than those of kept classes.",
    "cosine": "How much more the forgotten classes' rows of the last layer point where all others do than those of "
    "kept classes.",
}


@settings
class Head:
    """How the forgotten classes' rows of the last layer stand out."""

    level: ClassVar[int | None] = 2

    def __call__(self, case: Case) -> list[Finding]:
        """Return one finding per trait and one of how exposed the classes are; a request of rows has none."""
        forgotten = [int(index) for index in case.split.request.classes]
        classes = len(case.split.label_names)
        why = case.closed() if forgotten else "a request of single rows has no class that could stand out"
        found: dict[Evidence, dict[Trait, Tensor]] = {}
        for evidence in case.models:
            try:
                found[evidence] = traits(find_head(evidence.model, classes))
            except ModelError as error:
                why = why or f"no features: {error}"
        return [
            *(self._score(case, trait, found, forgotten, why) for trait in TRAITS),
            case.measure(
                "head/exposed",
                lambda evidence: None if why else exposed(found[evidence], forgotten),
                level=None,
                meaning="Share of kept classes that stand out less in the last layer than the forgotten ones; 1 means "
                "that the layer alone shows which classes were removed.",
                note=why,
                limits=(0.0, 1.0),
            ),
        ]

    def _score(
        self,
        case: Case,
        trait: Trait,
        found: dict[Evidence, dict[Trait, Float[Tensor, " classes"]]],
        forgotten: list[int],
        why: str | None,
    ) -> Finding:
        note = why
        if not note and any(trait not in traits for traits in found.values()):
            note = "a head has no bias"
        scores = {} if note else {one: score(trait, values[trait], forgotten) for one, values in found.items()}
        return case.measure(
            f"head/{trait}",
            lambda evidence: None if note else scores[evidence],
            level=None if note else self.level,
            meaning=MEANINGS[trait],
            note=note,
            series=None
            if note
            else case.series(
                case.split.label_names,
                f"{trait} of each class in the last layer",
                lambda one: found[one][trait].tolist(),
            ),
            limits=(0.0, math.inf) if trait == "norm" else (-math.inf, math.inf),
        )


def traits(head: nn.Linear) -> dict[Trait, Float[Tensor, " classes"]]:
    """Return each class's row norm, mean cosine similarity to the other rows, and bias if there is one."""
    weight = head.weight.detach().double().cpu()
    units = functional.normalize(weight, dim=1)
    cosines = units @ units.T
    found: dict[Trait, Tensor] = {
        "norm": weight.norm(dim=1),
        "cosine": (cosines.sum(dim=1) - cosines.diagonal()) / (len(weight) - 1),
    }
    if head.bias is not None:
        found["bias"] = head.bias.detach().double().cpu()
    return found


def score(trait: Trait, values: Float[Tensor, " classes"], forgotten: list[int]) -> float:
    """Return the forgotten classes' mean less that of the others; of norms, which have a scale, the ratio."""
    others = torch.ones(len(values), dtype=torch.bool)
    others[forgotten] = False
    own, rest = float(values[forgotten].mean()), float(values[others].mean())
    return own / max(rest, SMALLEST) if trait == "norm" else own - rest


def exposed(found: dict[Trait, Float[Tensor, " classes"]], forgotten: list[int]) -> float:
    """Return the share of kept classes that stand out less than a forgotten one, by the trait that shows it best."""
    others = [index for index in range(len(found["norm"])) if index not in forgotten]

    def share(values: Tensor) -> float:
        distance = (values - values[others].mean()).abs()
        return float((distance[forgotten][:, None] > distance[others][None]).double().mean())

    return max(share(values) for values in found.values())
