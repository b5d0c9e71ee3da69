"""residual_feature_alignment: train adapters to add nothing to retained rows and to shift the features of the others.

Qin, Zhu, Wang and Zhou, "Machine Unlearning on Pre-trained Models by Residual Feature Alignment Using LoRA", IEEE TDSC
2026, https://arxiv.org/abs/2411.08443. No code was published.

1. Put a LoRA adapter into the layers. What a layer gives is then the feature of the original's weights and a residual,
   which the adapter adds. The residual is zero at first, and the original's weights never move.
2. On retained rows make the residuals small: mean over layers of their mean square, ``R``.
3. On forgotten rows make the features those that retained rows have on average: mean over layers of the mean square of
   the difference, ``S``. Minimise ``R + weight * S``, as means over the rows of each kind, with Adam.
4. Merge each adapter into the weight of its layer.

Reads: retain and forget.

A reconstruction: the abstract has the split into features and residuals, zero residuals on what is retained and shifted
ones on what is forgotten. What they are shifted to, which layers are adapted (here all that an adapter acts on, the
head among them), the distance, the number of rows of each kind in a step and all settings are ours, not known to be the
paper's. A residual of zero in every layer keeps every feature, so that no teacher is run beside the network. Batch
normalisation keeps its statistics, and nothing is dropped, so that the residual is all that changes a feature.

Needs peft: ``pip install 'expunge[lora]'``.

Reproduction: not tried. A reconstruction cannot reproduce. On small data it was measured beside all others: the tables
of ``docs/methods.md``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.errors import ModelError
from expunge.methods._adapters import ADAPTER, adapt, adaptable_layers, merged
from expunge.methods._importance import total
from expunge.methods.neggrad_plus import mean_of_both, repeated
from expunge.rows import JoinedRows, RelabelledRows, Rows
from expunge.runtime import Runtime, count_batches
from expunge.settings import settings
from expunge.training import Count, Positive, adam, fit

if TYPE_CHECKING:
    from peft import LoraModel


@settings
class ResidualFeatureAlignment:
    """Adapters that leave retained features alone and shift forgotten ones (Residual Feature Alignment, by LoRA)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    rank: Count = 8
    """Rank of the adapters; ours."""
    scale: Positive = 2.0
    """Factor of an adapter's update, LoRA's alpha over the rank; ours."""
    weight: Positive = 0.1
    """Weight of the forgotten rows' distance from the average; ours. At 1 retained features drift there too."""
    epochs: Count = 5
    """Passes over the retained rows; ours."""
    batch_size: Count = 32
    """Rows of each kind per step, on average; ours."""
    lr: Positive = 0.001
    """Adam's learning rate; ours."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy whose features of forgotten rows are shifted.

        Raises:
            ModelError: There is no layer that an adapter acts on.
        """
        return merged(self.align(model, access, runtime), model)

    def align(self, model: nn.Module, access: Access, runtime: Runtime) -> "LoraModel":
        """Return a copy with trained adapters in it; with these off it is the original.

        Streams: ``residual_feature_alignment/adapters`` and ``residual_feature_alignment/forget``.
        """
        layers, retain = adaptable_layers(model, access.input_size), access["retain"]
        if not layers:
            raise ModelError(f"expected layers that adapters act on, got none in {type(model).__name__}")
        stream = "residual_feature_alignment/adapters"
        adapted = adapt(model, layers, runtime, rank=self.rank, scale=self.scale, dropout=0.0, stream=stream)
        aligned = Alignment(adapted, mean_features(adapted, retain, runtime))
        forget = repeated(access["forget"], len(retain), runtime.generator("residual_feature_alignment/forget"))
        rows = JoinedRows(marked(retain, to_forget=False), marked(forget, to_forget=True))
        training = adam(epochs=self.epochs, batch_size=2 * self.batch_size, lr=self.lr)
        fit(aligned, rows, runtime, training, stage="align", loss=self.misalignment, asleep=adapted.modules())
        return adapted

    def misalignment(
        self, distances: Float[Tensor, "rows 2"], to_forget: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
    ) -> Tensor:
        """Return the loss of step 3, from what an `Alignment` gives and whether each row is to be forgotten."""
        residual, shift = distances.unbind(dim=1)
        return mean_of_both(residual, self.weight * shift, to_forget == 1)


class Alignment(nn.Module):
    """An adapted network that gives, in place of logits, how large its residuals are and how far its features are off.

    Args:
        adapted: The network.
        wanted: What the features of forgotten rows are to be, by call of a layer.
    """

    def __init__(self, adapted: "LoraModel", wanted: Sequence[Float[Tensor, "..."]]) -> None:
        super().__init__()
        self.adapted = adapted
        self.wanted = tuple(wanted)

    def forward(self, inputs: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows 2"]:
        """Return R and S of each row."""
        with watched(self.adapted) as seen:
            self.adapted(inputs)
        size = [mean_square(residual, len(inputs)) for residual in seen.residuals]
        off = [
            mean_square(feature - wanted, len(inputs))
            for feature, wanted in zip(seen.by_row(len(inputs)), self.wanted, strict=True)
        ]
        return torch.stack([torch.stack(size).mean(dim=0), torch.stack(off).mean(dim=0)], dim=1)


@dataclass(frozen=True)
class Seen:
    """What adapted layers gave in one pass, in the order of their calls."""

    residuals: list[Tensor] = field(default_factory=list)
    """What the adapters have added."""
    features: list[Tensor] = field(default_factory=list)
    """What came out, residuals included."""

    def by_row(self, rows: int) -> list[Float[Tensor, "rows size"]]:
        """Return the features of each row: windows and positions of a row follow each other in all libraries."""
        return [feature.float().reshape(rows, -1) for feature in self.features]


@contextmanager
def watched(adapted: "LoraModel") -> Iterator[Seen]:
    """Watch what the adapted layers of a network give in one pass."""
    seen, handles = Seen(), []
    for layer in adapted.modules():
        if isinstance(getattr(layer, "lora_B", None), nn.ModuleDict):
            up, scale = layer.lora_B[ADAPTER], layer.scaling[ADAPTER]

            def residual(_: nn.Module, __: Any, added: Tensor, scale: float = scale) -> None:
                seen.residuals.append(scale * added.float())

            def feature(_: nn.Module, __: Any, given: Tensor) -> None:
                seen.features.append(given)

            handles += [up.register_forward_hook(residual), layer.register_forward_hook(feature)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def mean_features(adapted: "LoraModel", rows: Rows, runtime: Runtime) -> list[Float[Tensor, " size"]]:
    """Return what each call of an adapted layer gives, as a mean over rows. Each row is read once.

    Args:
        adapted: Left as it is, in evaluation mode.
        rows: Rows.
        runtime: Where; the means are left on its device.
    """
    network, size = runtime.place(adapted.eval()), 256
    sums: list[Tensor] = []
    with runtime.stage("average", count_batches(len(rows), size)) as advance:
        for inputs, _, weight in runtime.batches(rows, size):
            given = inputs if len(inputs) else inputs.new_zeros(1, *inputs.shape[1:])
            with watched(adapted) as seen, runtime.cost.step("average", len(inputs)):
                network(given)
            # a process without a share of this batch has a weight of zero
            added = [feature.sum(dim=0) * (weight > 0) for feature in seen.by_row(len(given))]
            sums = [one + other for one, other in zip(sums, added, strict=True)] if sums else added
            advance(1)
    return [total(one, runtime) / len(rows) for one in sums]


def mean_square(values: Float[Tensor, "..."], rows: int) -> Float[Tensor, " rows"]:
    """Return the mean square of what belongs to each row."""
    return values.reshape(rows, -1).square().mean(dim=1)


def marked(rows: Rows, *, to_forget: bool) -> Rows:
    """Return rows labelled by whether they are to be forgotten."""
    return RelabelledRows(rows, np.full(len(rows), int(to_forget), dtype=np.int64))
