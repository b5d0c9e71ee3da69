"""few_shot: how much of the class comes back from a handful of its rows, once its output is opened again?

A model that only hides an output resists relearning for as long as that output has to climb: at a logit of -1000 it
does so for ever, and looks forgotten. An attacker does not wait: the row of the head costs nothing to replace.

1. In a copy of every model, set the head's row and bias of each forgotten class to the mean of the retained ones. From
   here on how deep a logit was hidden does not matter; only what lies below the head does.
2. Train for a few steps on retained rows together with `k` rows of each forgotten class, repeated so that a forgotten
   class has as large a share as any other.
3. ``area/{k}_shots``: mean accuracy on ``forget_test``, measured before the first step and after every few.
   From 0 to 1. Ideal: that of retrained models; above their band memory is left in the features, below it the model was
   damaged, or made to resist. One number of rows counts, `counted`, as all of them tell much the same.

Not known for a request of single rows. Streams: ``few_shot/retain``, ``few_shot/shots``, ``few_shot/order``,
``few_shot/dropout`` and ``few_shot/rows``, all the same for every model; as with any training, another order of rows
gives other numbers. Sources: relearning from few rows as in "Unlearning or Obfuscating?",
https://arxiv.org/abs/2406.13356; replacing the row of the head as in the prototypical relearning attack on class
unlearning, which puts in the mean feature where the mean row stands here. The joining of both is ours.
"""

from statistics import fmean
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import MinLen
from torch import nn

from expunge.audits._recovery import choose
from expunge.audits.relearning import Curve, relearn
from expunge.case import Case, Evidence
from expunge.data import subset
from expunge.errors import ModelError
from expunge.finding import Finding
from expunge.network import copy_of, find_head
from expunge.outputs import reopened
from expunge.rows import JoinedRows, Rows, TakenRows
from expunge.settings import settings
from expunge.training import Count, Positive, adam

MEANING = (
    "How much the model knows of the forgotten classes, on average while it learns them again from {} of each with "
    "their outputs opened; more than a model that never knew them means that its features remember."
)


@settings
class FewShot:
    """How fast forgotten classes come back from few rows with a fresh head row, against retrained models."""

    level: ClassVar[int | None] = 3

    shots: Annotated[tuple[Count, ...], MinLen(1)] = (1, 5, 10, 50)
    """Rows of each forgotten class that the attacker holds; all of them where there are fewer."""
    counted: Count = 10
    """The number of rows whose area counts for the level; the others inform."""
    steps: Count = 60
    """Training steps."""
    batch_size: Count = 32
    """Rows per step."""
    lr: Positive = 5e-4
    """Adam's learning rate; a gentle one shows best what is already there."""
    every: Count = 6
    """Steps between two measurements."""
    rows: Count = 1000
    """The most rows that accuracy is measured on."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return one area for every number of rows."""
        return [self._area(case, shots) for shots in self.shots]

    def _area(self, case: Case, shots: int) -> Finding:
        missing = self._missing(case)
        name = f"few_shot/area/{shots}_shots"
        meaning = MEANING.format(f"{shots} rows" if shots > 1 else "one row")
        if missing:
            return case.measure(name, lambda evidence: None, level=None, meaning=meaning, note=missing)
        classes = [int(index) for index in case.split.request.classes]
        watched = choose(case.split["forget_test"], self.rows, case.runtime, "few_shot/rows")
        rows = self._mixed(case, shots)
        training = adam(epochs=1, batch_size=self.batch_size, lr=self.lr)

        def curve(evidence: Evidence) -> Curve:
            return relearn(
                opened(reopened(evidence.model), classes, len(case.split.label_names)),
                rows,
                watched,
                case.runtime,
                training,
                stage="few_shot",
                every=self.every,
            )

        curves = case.each((self, shots), curve)
        points = [number * self.every for number in range(len(curves[case.original]))]
        told = "1 row" if shots == 1 else f"{shots} rows"
        return case.measure(
            name,
            lambda evidence: fmean(curves[evidence]),
            level=self.level if shots == self.counted else None,
            meaning=meaning,
            higher="memory",
            limits=(0.0, 1.0),
            step=1 / len(watched) / len(points),
            series=case.series(
                [str(point) for point in points],
                f"accuracy on forget_test over steps with {told} of each forgotten class",
                lambda evidence: curves[evidence],
            ),
        )

    def _missing(self, case: Case) -> str | None:
        if case.split.request.rows:
            return "a request of single rows has no class to relearn"
        if case.missing("forget_test"):
            return case.missing("forget_test")
        try:
            for evidence in case.models:
                find_head(reopened(evidence.model), len(case.split.label_names))
        except ModelError as error:
            return f"no output to open: {error}"
        return None

    def _mixed(self, case: Case, shots: int) -> Rows:
        """Return the rows of all steps: every class, kept or forgotten, has about the same share."""
        forgotten = subset(case.split["forget"], shots, case.runtime.generator("few_shot/shots"))
        retain = case.split["retain"]
        order = torch.randperm(len(retain), generator=case.runtime.generator("few_shot/retain")).numpy()
        total = self.steps * self.batch_size
        count = round(total * len(case.split.request.classes) / len(case.split.label_names))
        kept = order[np.arange(total - count) % len(order)]
        return JoinedRows(TakenRows(retain, kept), TakenRows(forgotten, np.arange(count) % len(forgotten)))


@torch.no_grad()
def opened(model: nn.Module, forgotten: list[int], num_classes: int) -> nn.Module:
    """Return a copy with the head's rows of the forgotten classes set to the mean of the others' rows.

    Raises:
        ModelError: There is no linear head.
    """
    copied = copy_of(model)
    head = find_head(copied, num_classes)
    kept = [index for index in range(num_classes) if index not in forgotten]
    head.weight[forgotten] = head.weight[kept].mean(dim=0)
    if head.bias is not None:
        head.bias[forgotten] = head.bias[kept].mean()
    return copied
