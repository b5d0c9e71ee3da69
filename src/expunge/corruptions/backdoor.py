"""backdoor: stamp a small patch on some training images and call them one class; does the patch still open the door?

Gu, Dolan-Gavitt and Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017,
https://arxiv.org/abs/1708.06733. As a test of unlearning: Goel et al., "Corrective Machine Unlearning", TMLR 2024,
https://arxiv.org/abs/2402.14015.

1. Draw a share of the training images of all classes but the target. Their lower right corner becomes a square of the
   brightest colour, and their label the target.
2. ``memorised``: share of them that the model still gives the target, from 0 to 1.
3. ``success``: share of test images of other classes that it gives the target once they bear the patch, from 0 to 1.
4. ``recovered``: share of the same images that it gives their true label in spite of the patch, from 0 to 1.
5. ``clean_accuracy``: share of test images without a patch that it gives their true label, from 0 to 1.

The brightest colour is white, ``(1 - mean) / std``, where the data say how they were normalised; else the highest value
that each channel has in at most `SAMPLED` training images, evenly spaced.

Differences from the BadNets paper: one patch of one colour, at one place.
"""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le, Lt
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from expunge.case import Case
from expunge.corruption import Corrupted, draw_share, measure_share, memorised, with_train
from expunge.data import Data
from expunge.errors import DataError
from expunge.finding import Finding
from expunge.request import find_class
from expunge.rows import Indices, RelabelledRows, Rows, TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count

SAMPLED = 256
"""The most training images that are read to learn how bright they get."""
MEANINGS = {
    "success": "Share of unseen images of other classes that the model calls the target once they bear the patch.",
    "recovered": "Share of the same images that the model calls by their true label in spite of the patch.",
    "clean_accuracy": "Share of unseen images without a patch that the model gets right.",
}


@settings
class Backdoor:
    """A patch on training images that stands for the target class."""

    target: int | str = 0
    """The class that images with the patch are called, an index or a name."""
    size: Count = 2
    """Height and width of the patch in pixels."""
    share: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Share of the training images of other classes that get the patch."""
    known: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the manipulated rows that the method is told of."""

    def corrupt(self, data: Data, runtime: Runtime) -> Corrupted:
        """Return the data with patches, laid on when a row is read.

        The streams are ``backdoor/rows`` and ``backdoor/known``.

        Raises:
            RequestError: The target is unknown.
            DataError: The inputs are no images, or smaller than the patch.
        """
        target, patch = find_class(self.target, data.label_names), self._patch(data)
        others = np.flatnonzero(data.train.labels != target).astype(np.int64)
        rows = draw_share(others, self.share, runtime.generator("backdoor/rows"))
        stamped, labels = np.zeros(len(data.train), dtype=bool), data.train.labels.copy()
        stamped[rows], labels[rows] = True, target
        return with_train(
            data,
            RelabelledRows(StampedRows(data.train, stamped, patch), labels),
            rows,
            known=draw_share(rows, self.known, runtime.generator("backdoor/known")),
        )

    def score(self, case: Case, corrupted: Corrupted) -> list[Finding]:
        """Return what the patch still does, on training images and unseen ones, and the accuracy without it."""
        data = corrupted.data
        target = find_class(self.target, data.label_names)
        others = TakenRows(data.test, np.flatnonzero(data.test.labels != target).astype(np.int64))
        opened = StampedRows(others, np.ones(len(others), dtype=bool), self._patch(data))
        found = {
            "success": (opened, np.full_like(others.labels, target)),
            "recovered": (opened, others.labels),
            "clean_accuracy": (data.test, data.test.labels),
        }
        return [
            memorised(case, corrupted, "backdoor"),
            *(
                measure_share(
                    case,
                    f"backdoor/{name}",
                    rows,
                    labels,
                    meaning=MEANINGS[name],
                    higher="memory" if name == "success" else "kept",
                )
                for name, (rows, labels) in found.items()
            ),
        ]

    def _patch(self, data: Data) -> Float[Tensor, "channels size size"]:
        channels, *sides = data.input_size if len(data.input_size) == 3 else (0,)
        if not channels:
            raise DataError(f"expected images (channels, height, width) to stamp, got inputs {data.input_size}")
        if self.size > min(sides):
            raise DataError(f"expected a size of the patch of {min(sides)} at most, as the images are, got {self.size}")
        return brightest(data)[:, None, None].expand(-1, self.size, self.size)


class StampedRows:
    """Rows of which some bear a patch in the lower right corner, laid on when they are read.

    Args:
        rows: Images (channels, height, width).
        stamped: Which of them bear the patch.
        patch: What covers the corner.
    """

    def __init__(
        self, rows: Rows, stamped: Bool[np.ndarray, " rows"], patch: Float[Tensor, "channels size size"]
    ) -> None:
        self._rows = rows
        self._stamped = stamped
        self._patch = patch

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row, as it was."""
        return self._rows.labels

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Indices) -> tuple[Shaped[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""
        inputs, labels = self._rows.batch(indices)
        inputs = inputs.clone()  # what the rows hand out may be a view of what they hold
        height, width = self._patch.shape[1:]
        inputs[torch.from_numpy(self._stamped[indices]), :, -height:, -width:] = self._patch.to(inputs.dtype)
        return inputs, labels


def brightest(data: Data) -> Float[Tensor, " channels"]:
    """Return the highest value that each channel of the images can have, or has in a sample of them."""
    if data.mean:
        return (1 - torch.tensor(data.mean)) / torch.tensor(data.std)
    sample = np.unique(np.linspace(0, len(data.train) - 1, min(SAMPLED, len(data.train))).astype(np.int64))
    inputs, _ = data.train.batch(sample)
    return inputs.float().amax(dim=(0, 2, 3))
