"""interclass_confusion: exchange the labels of some training rows of two classes; do they stay confused?

Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine Unlearning", 2022,
https://arxiv.org/abs/2201.06640 (the interclass confusion test).

1. Draw a share of the training rows of both classes. A row of the first gets the label of the second, and the other
   way round.
2. ``memorised``: share of these rows that the model still gives the exchanged label, from 0 to 1.
3. ``generalised``: share of test rows of the two classes that it takes for the other one, from 0 to 1. This is what the
   exchange did to rows that nobody can name in a request.

Differences from the paper: shares where it counts rows, so that sets of other sizes compare; and the ideal is what
retrained models do, which confuse some rows too, where the paper's is none.
"""

from typing import Annotated

import numpy as np
from annotated_types import Gt, Le, Lt

from expunge.case import Case
from expunge.corruption import Corrupted, draw_share, measure_share, memorised, with_train
from expunge.data import Data
from expunge.errors import DataError
from expunge.finding import Finding
from expunge.request import find_class
from expunge.rows import RelabelledRows, TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings


@settings
class InterclassConfusion:
    """Two classes whose labels are exchanged on some training rows."""

    classes: tuple[int | str, int | str] = (3, 8)
    """The two classes, each an index or a name; classes that look alike are the harder test."""
    share: Annotated[float, Gt(0), Lt(1)] = 0.4
    """Share of the training rows of each of them whose label is exchanged."""
    known: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the manipulated rows that the method is told of."""

    def corrupt(self, data: Data, runtime: Runtime) -> Corrupted:
        """Return the data with labels exchanged; the streams are ``interclass_confusion/rows`` and ``/known``.

        Raises:
            RequestError: A class is unknown.
            DataError: Both are one class, or one has no training rows.
        """
        first, second = self._pair(data.label_names)
        generator = runtime.generator("interclass_confusion/rows")
        labels = data.train.labels
        of_class = [np.flatnonzero(labels == index).astype(np.int64) for index in (first, second)]
        rows = np.sort(np.concatenate([draw_share(members, self.share, generator) for members in of_class]))
        changed = labels.copy()
        changed[rows] = first + second - labels[rows]
        return with_train(
            data,
            RelabelledRows(data.train, changed),
            rows,
            known=draw_share(rows, self.known, runtime.generator("interclass_confusion/known")),
        )

    def score(self, case: Case, corrupted: Corrupted) -> list[Finding]:
        """Return how many of the rows, and of test rows, are taken for the other class."""
        first, second = self._pair(corrupted.data.label_names)
        test = corrupted.data.test
        pair = TakenRows(test, np.flatnonzero(np.isin(test.labels, (first, second))).astype(np.int64))
        return [
            memorised(case, corrupted, "interclass_confusion"),
            measure_share(
                case,
                "interclass_confusion/generalised",
                pair,
                first + second - pair.labels,
                meaning="Share of unseen rows of the two classes that the model takes for the other one.",
                higher="memory",
            ),
        ]

    def _pair(self, label_names: tuple[str, ...]) -> tuple[int, int]:
        first, second = (find_class(item, label_names) for item in self.classes)
        if first == second:
            raise DataError(f"expected two classes to confuse, got {label_names[first]!r} twice")
        return first, second
