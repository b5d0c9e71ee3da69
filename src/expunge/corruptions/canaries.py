"""canaries: give some training rows a random wrong label, which only memory can give back.

Nothing but having seen the row tells which wrong label it was given, so that every canary a model still names is a row
that it remembers. Carlini et al., "The Secret Sharer", USENIX Security 2019, https://arxiv.org/abs/1802.08232 (canaries
that are planted to measure memory); random labels as what memory alone can fit: Zhang et al., 2017,
https://arxiv.org/abs/1611.03530.

1. Draw `count` training rows. Each gets a label drawn evenly from those that are not its own.
2. ``memorised``: share of them that the model still gives the wrong label, from 0 to 1.
3. ``recovered``: share of them that it gives the true label, as a model does that never saw them, from 0 to 1.
"""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le

from expunge.case import Case
from expunge.corruption import Corrupted, draw, draw_share, measure_share, memorised, with_train
from expunge.data import Data
from expunge.errors import DataError
from expunge.finding import Finding
from expunge.rows import RelabelledRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count


@settings
class Canaries:
    """Training rows with a random wrong label."""

    count: Count = 50
    """How many rows."""
    known: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the manipulated rows that the method is told of."""

    def corrupt(self, data: Data, runtime: Runtime) -> Corrupted:
        """Return the data with wrong labels; the streams are ``canaries/rows``, ``/labels`` and ``/known``.

        Raises:
            DataError: There are fewer rows or classes than needed.
        """
        classes, total = len(data.label_names), len(data.train)
        if self.count >= total:
            raise DataError(f"expected more than {self.count} training rows to hide {self.count} in, got {total}")
        if classes < 2:
            raise DataError(f"expected two classes or more to mislabel rows, got {classes}")
        rows = draw(np.arange(total, dtype=np.int64), self.count, runtime.generator("canaries/rows"))
        steps = torch.randint(1, classes, (self.count,), generator=runtime.generator("canaries/labels")).numpy()
        changed = data.train.labels.copy()
        changed[rows] = (changed[rows] + steps) % classes
        return with_train(
            data,
            RelabelledRows(data.train, changed),
            rows,
            known=draw_share(rows, self.known, runtime.generator("canaries/known")),
        )

    def score(self, case: Case, corrupted: Corrupted) -> list[Finding]:
        """Return how many canaries get the wrong label, and how many the true one."""
        return [
            memorised(case, corrupted, "canaries"),
            measure_share(
                case,
                "canaries/recovered",
                corrupted.manipulated,
                corrupted.truth,
                meaning="Share of the mislabelled training rows that the model gives their true label.",
            ),
        ]
