"""accuracy: how often is the model right, on what it should keep and on what it should forget?

Top-1 accuracy on all four parts, and of the retained class that fares worst, which a mean hides. From 0 to 1; the
ideal is the accuracy of retrained models. It counts for level 0 alone: hiding one output of the network is enough to
pass it. Source: forget, retain and test accuracy as in Golatkar et al., https://arxiv.org/abs/1911.04933.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings

MEANINGS: dict[Part, str] = {
    "retain": "Share of the training rows to keep that the model still gets right.",
    "forget": "Share of the training rows to forget that the model still gets right.",
    "retain_test": "Share of unseen rows of the classes to keep that the model gets right.",
    "forget_test": "Share of unseen rows of the classes to forget that the model still gets right.",
}


@settings
class Accuracy:
    """Top-1 accuracy on every part, and of the worst retained class."""

    level: ClassVar[int | None] = 0

    def __call__(self, case: Case) -> list[Finding]:
        """Return one finding per part and one for the worst retained class; a part without rows only informs."""
        return [*(self._on(part, case) for part in MEANINGS), self._worst(case)]

    def _on(self, part: Part, case: Case) -> Finding:
        missing = case.missing(part)
        return case.measure(
            f"accuracy/{part}",
            lambda evidence: None if missing else accuracy(evidence.logits[part], evidence.labels[part]),
            level=None if missing else self.level,
            meaning=MEANINGS[part],
            higher="memory" if part.startswith("forget") else "kept",
            note=missing,
            series=case.series(
                [case.split.label_names[index] for index in per_class(*_test(case.original))],
                "accuracy of each class on test rows",
                lambda evidence: list(per_class(*_test(evidence)).values()),
            )
            if part == "retain_test"
            else None,
            limits=(0.0, 1.0),
            step=case.row(part),
        )

    def _worst(self, case: Case) -> Finding:
        missing = case.missing("retain_test")
        worst, _ = (0, 0.0) if missing else worst_class(case.unlearned)
        rows = int((case.unlearned.labels["retain_test"] == worst).sum())
        return case.measure(
            "accuracy/worst_retained_class",
            lambda evidence: None if missing else worst_class(evidence)[1],
            level=None if missing else self.level,
            meaning="Accuracy on unseen rows of the kept class that the model is worst at.",
            higher="kept",
            note=missing or f"the unlearned model's is {case.split.label_names[worst]!r}",
            limits=(0.0, 1.0),
            step=1 / max(1, rows),
        )


def accuracy(logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"]) -> float:
    """Return the share of rows whose highest logit is that of their label, from 0 to 1."""
    return float((logits.argmax(dim=1) == labels).double().mean())


def per_class(logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"]) -> dict[int, float]:
    """Return the accuracy on the rows of each class that has any, by class index in ascending order."""
    return {index: accuracy(logits[labels == index], labels[labels == index]) for index in sorted(set(labels.tolist()))}


def worst_class(evidence: Evidence) -> tuple[int, float]:
    """Return the retained class with the lowest test accuracy, and that accuracy; of equals the first."""
    accuracies = per_class(evidence.logits["retain_test"], evidence.labels["retain_test"])
    return min(accuracies.items(), key=lambda item: item[1])


def _test(evidence: Evidence) -> tuple[Float[Tensor, "rows classes"], Int64[Tensor, " rows"]]:
    """Return logits and labels of all test rows."""
    parts: tuple[Part, Part] = ("retain_test", "forget_test")
    return torch.cat([evidence.logits[part] for part in parts]), torch.cat([evidence.labels[part] for part in parts])
