"""klom: is every single row answered as a population of retrained models answers it?

KLoM, the divergence of margins, of Georgiev et al., "Attribute-to-Delete", https://arxiv.org/abs/2410.23232.

1. Take each row's margin under every unlearned and every retrained model: the logit of its label minus the logsumexp of
   the other logits, cut off at plus and minus `clip`.
2. Count the margins of both populations in `bins` bins of equal width over the joint range of that row. The last bin is
   closed: the largest margin belongs to it.
3. Take the Kullback-Leibler divergence of both histograms, in nats, with `epsilon` added to every share so that an
   empty bin costs much but not infinitely much. 0 is the ideal; the most is about -log(epsilon), 11.5 with the default.
4. The number is the 95th percentile over the rows of a part, so that a few rows that are still remembered count.

``retrained`` is the number of one half of the retrained models against the other: what remains when there is nothing to
find. It shrinks as the populations grow, and so both are compared in equal numbers.

Differences from the authors' code: its ``np.digitize`` puts the largest margin into a bin beyond the last, so that it
is lost. There the divergence is KL(unlearned || retrained), the default of `direction` here.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from expunge.audits._populations import compared, margins_once
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.settings import settings
from expunge.training import Count

PARTS: tuple[Part, ...] = ("forget", "forget_test", "retain", "retain_test")
Direction = Literal["unlearned||retrained", "retrained||unlearned"]


@settings
class Klom:
    """Divergence of the margins of unlearned models from those of retrained models, row by row."""

    level: ClassVar[int | None] = 4

    direction: Direction = "unlearned||retrained"
    """Which distribution the divergence is taken over: KL(P||Q) is the mean of log(P/Q) over P."""
    bins: Count = 20
    """Bins over the joint range of a row's margins."""
    clip: Annotated[float, Gt(0)] = 100.0
    """Margins beyond this, up or down, count as this."""
    epsilon: Annotated[float, Gt(0)] = 1e-5
    """Added to the share of every bin."""
    min_models: Annotated[int, Gt(1)] = 16
    """Unlearned models needed, and half the retrained ones; the authors use 100."""
    splits: Annotated[int, Gt(1)] = 16
    """How often halves and mixtures are drawn, for floor and band."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return the 95th percentile of the divergence over each part."""
        return [self._part(part, case) for part in PARTS]

    def _part(self, part: Part, case: Case) -> Finding:
        margins = margins_once(part)

        def compare(models: Sequence[Evidence], retrained: Sequence[Evidence]) -> float:
            pair = margins(models), margins(retrained)
            first, second = pair if self.direction == "unlearned||retrained" else pair[::-1]
            divergences = klom(first, second, bins=self.bins, clip=self.clip, epsilon=self.epsilon)
            return float(divergences.quantile(0.95))

        return compared(
            case,
            f"klom/{part}",
            compare,
            part=part,
            models=self.min_models,
            splits=self.splits,
            level=4,
            meaning="How far the answers of many unlearned models to single rows are spread otherwise than those of "
            "many retrained models, for all but the worst twentieth of the rows.",
            better="lower",
            limits=(0.0, float("inf")),
        )


def klom(
    first: Float[Tensor, "first rows"],
    second: Float[Tensor, "second rows"],
    *,
    bins: int = 20,
    clip: float = 100.0,
    epsilon: float = 1e-5,
) -> Float[Tensor, " rows"]:
    """Return the divergence KL(first || second) of each row's histograms of margins, in nats."""
    first, second = first.clip(-clip, clip), second.clip(-clip, clip)
    together = torch.cat([first, second])
    lowest, highest = together.amin(dim=0), together.amax(dim=0)
    width = (highest - lowest).clip(min=torch.finfo(together.dtype).tiny) / bins

    def shares(values: Float[Tensor, "models rows"]) -> Float[Tensor, "bins rows"]:
        index = ((values - lowest) / width).floor().clip(0, bins - 1).long()
        counts = torch.zeros(bins, values.shape[1], dtype=values.dtype).scatter_add(0, index, torch.ones_like(values))
        smoothed = counts / len(values) + epsilon
        return smoothed / smoothed.sum(dim=0)

    p, q = shares(first), shares(second)
    return (p * (p / q).log()).sum(dim=0)
