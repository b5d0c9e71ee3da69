"""relearning: is the class gone, or does it come back when training goes on?

Every model is trained on, from a copy, with the same rows in the same order, and its accuracy on the forgotten
classes' test rows (on ``forget`` rows if there are none) is measured before the first step and after every few. First
on all training rows including the forgotten ones:

1. ``steps``: steps until the accuracy is at least `recovered` times the original's; 0 and up, not known if it is not
   reached. Golatkar et al., https://arxiv.org/abs/1911.04933, and the UNSIR paper, https://arxiv.org/abs/2111.08947.
   It informs: a step is a coarse unit.
2. ``anamnesis_index``: steps divided by those of retrained models; 0 and up, ideal 1, below 1 memory is left, above 1
   the model was damaged. Chundawat et al., https://arxiv.org/abs/2201.05629. Of a retrained model: against the other
   ones (see `Case.beside_retrained`). It counts if every model gets there in time.
3. ``area``: mean accuracy over all measurements, from 0 to 1, defined for every model. Ideal: that of retrained
   models; above their band memory is left, below it the model was damaged, or made to resist.

Then on retained rows alone, which no retrained model learns a forgotten class from:

4. ``area/retain_only``: mean accuracy as above. What was forgotten may come back although no row of it is shown, since
   all classes share the weights. Siddiqui et al., "From Dormant to Deleted", https://arxiv.org/abs/2505.22310.

An output that is hidden deep enough resists all of this for as long as it has to climb, as `head_mask` does: it falls
below the band of ``area``, or not, by the depth. `few_shot` opens the output first.

Streams: ``relearning/order``, ``relearning/dropout``, ``relearning/rows`` and ``relearning/training_rows``. As with any
training, another order of the training rows gives other numbers.

Differences from the authors' code of the anamnesis index: at most `rows` rows are measured, chosen once for all
models; retrained models give a band.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, ClassVar

from annotated_types import Gt, Le
from torch import nn

from expunge.audits._recovery import choose, forgotten_part
from expunge.audits.accuracy import accuracy
from expunge.case import Case, Evidence
from expunge.finding import Finding
from expunge.network import copy_of
from expunge.outputs import reopened
from expunge.rows import JoinedRows, Rows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, Training, adam, fit, predict

Curve = list[float]
SHOWN = 100
"""The most points of a curve that go into a result."""


@settings
class Relearning:
    """How fast the forgotten classes come back in training, against retrained models."""

    level: ClassVar[int | None] = 3

    max_epochs: Count = 10
    """Passes over all training rows."""
    retain_epochs: Count = 5
    """Passes over the retained rows alone."""
    training_rows: Count = 20_000
    """The most rows that are trained on, retained and forgotten alike, drawn at random."""
    batch_size: Count = 256
    """Rows per step."""
    lr: Positive = 1e-3
    """Adam's learning rate."""
    recovered: Annotated[float, Gt(0), Le(1)] = 0.95
    """Share of the original's accuracy at which the classes count as relearned."""
    every: Count = 2
    """Steps between two measurements."""
    rows: Count = 1000
    """The most rows that accuracy is measured on."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return steps, anamnesis index and area, and the area on retained rows alone."""
        kept = choose(case.split["retain"], self.training_rows, case.runtime, "relearning/training_rows")
        everything = JoinedRows(case.split["retain"], case.split["forget"])
        mixed = choose(everything, self.training_rows, case.runtime, "relearning/training_rows")
        curves = self._curves(case, "all", mixed, self.max_epochs)
        alone = self._curves(case, "retain_only", kept, self.retain_epochs)
        target = self.recovered * curves[case.original][0]
        steps = {
            evidence: None if (reached := steps_until(curve, target)) is None else reached * self.every
            for evidence, curve in curves.items()
        }
        last = (len(curves[case.original]) - 1) * self.every
        return [
            case.measure(
                "relearning/steps",
                steps.__getitem__,
                level=None,
                meaning="Training steps until the model knows what it had to forget almost as well as the original.",
                note=_late(case, steps, last),
            ),
            self._index(case, steps, last),
            self._area(
                case,
                "relearning/area",
                curves,
                "How much the model knows of what it had to forget, on average while it learns it again; more than a "
                "model that never knew it means that memory is left.",
            ),
            self._area(
                case,
                "relearning/area/retain_only",
                alone,
                "How much the model knows of what it had to forget, on average while it is trained on kept rows alone; "
                "more than a model that never knew it means that it comes back by itself.",
            ),
        ]

    def _curves(self, case: Case, name: str, rows: Rows, epochs: int) -> Mapping[Evidence, Curve]:
        training = adam(epochs=epochs, batch_size=self.batch_size, lr=self.lr)
        watched = choose(case.split[forgotten_part(case)], self.rows, case.runtime, "relearning/rows")
        return case.each(
            (self, name),
            lambda evidence: relearn(
                reopened(evidence.model), rows, watched, case.runtime, training, stage="relearning", every=self.every
            ),
        )

    def _area(self, case: Case, name: str, curves: Mapping[Evidence, Curve], meaning: str) -> Finding:
        part, points = forgotten_part(case), len(curves[case.original])
        shown = slice(None, None, -(-points // SHOWN))
        return case.measure(
            name,
            lambda evidence: fmean(curves[evidence]),
            level=self.level,
            meaning=meaning,
            higher="memory",
            note=f"measured on {part}" if part == "forget" else None,
            limits=(0.0, 1.0),
            step=1 / max(1, min(len(case.split[part]), self.rows)) / points,
            series=case.series(
                [str(point * self.every) for point in range(points)[shown]],
                f"accuracy on {part} over steps of training",
                lambda evidence: curves[evidence][shown],
            ),
        )

    def _index(self, case: Case, steps: Mapping[Evidence, float | None], last: int) -> Finding:
        defined = all(steps[evidence] for evidence in case.retrained)
        counts = defined and steps[case.unlearned] is not None

        def ratio(evidence: Evidence, others: Sequence[Evidence]) -> float:
            return (steps[evidence] or 0) / fmean(steps[other] or 0 for other in others)

        beside = case.beside_retrained(ratio)
        return case.measure(
            "relearning/anamnesis_index",
            lambda evidence: beside(evidence) if defined and steps[evidence] is not None else None,
            level=self.level if counts else None,
            meaning="Training steps to relearn what was forgotten, as a multiple of what a model needs that never knew "
            "it; below 1 means that memory is left.",
            higher="oblivion",
            note=_late(case, steps, last) if defined else "a retrained model knows it at once or does not learn it",
            paired=True,
            limits=(0.0, math.inf),
        )


def relearn(
    model: nn.Module, rows: Rows, watched: Rows, runtime: Runtime, training: Training, *, stage: str, every: int = 1
) -> Curve:
    """Return a copy's accuracy on the watched rows before training and after every few steps of it.

    The model is left as it was. All weights of the copy are trained, also those that the model marks as frozen:
    whoever holds the model can.
    """
    copied = copy_of(model).requires_grad_().to(runtime.device)
    curve = [accuracy(*predict(copied, watched, runtime))]
    step = 0

    def watch() -> None:
        nonlocal step
        step += 1
        if step % every == 0:
            curve.append(accuracy(*predict(copied, watched, runtime)))

    fit(copied, rows, runtime, training, stage=stage, after_step=watch)
    return curve


def steps_until(curve: Sequence[float], target: float) -> float | None:
    """Return the first step with at least the target; None if there is none."""
    return next((float(step) for step, value in enumerate(curve) if value >= target), None)


def _late(case: Case, steps: Mapping[Evidence, float | None], last: int) -> str | None:
    late = ["the unlearned model"] if steps[case.unlearned] is None else []
    number = sum(steps[evidence] is None for evidence in case.retrained)
    late += [f"{number} of the retrained models"] if number else []
    return f"{' and '.join(late)} took more than {last} steps" if late else None
