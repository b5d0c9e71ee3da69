"""projected_gradient: make what is forgotten unlikely, by steps at right angles to what the retained rows use.

Hoang, Rana, Gupta and Venkatesh, "Learn to Unlearn for Deep Neural Networks: Minimizing Unlearning Interference with
Gradient Projection", WACV 2024, https://arxiv.org/abs/2312.04095 (projected-gradient unlearning, PGU);
code https://github.com/hnanhtuan/projected_gradient_unlearning.

1. Gram matrix. Of every linear layer and convolution, sum ``x xᵀ`` over its inputs (patches, for a convolution) from
   the retained rows.
2. Core subspace. Of its eigenvectors, take the fewest of the highest eigenvalues whose square roots sum up to a
   `share` of those of all; eigenvalues below 0, and below what rounding leaves of 0, count as 0.
3. Unlearning loss. Of the forgotten rows, with p the probabilities and y a row's own label, descend
   ``-log(1 - p_y + offset) - entropy * H(p)``.
4. Each layer's gradient loses its part in the core subspace, so that the layer gives retained inputs what it gave them.
   Biases and normalisations stay.

Reads: retain and forget. With `keep` the Gram matrices stay with the new model, and its next request takes those of the
rows that it forgets away from them: then forget alone is read.

A request of single rows goes the same way. So does one request after the other, each from the model that the one before
has left.

Differences from the code: it sums up over all training rows once, in the original network, and takes the forgotten rows
away at every request, as they are in that network. Here the first request sums up over what it retains, which is the
difference; a later one takes its rows away as they are in the network that it starts from, which answers them as the
original did as far as the core subspace held them. Without `keep` every request sums up anew. The code's rates fall
from 0.1 to 0.01 without momentum; here SGD has momentum 0.9, which goes ten times as far, so that the rate is a tenth
and falls linearly to zero. For single rows the code stops once the validation rows fare better than the forgotten ones;
validation rows are not read here, so that all epochs are gone through, and fewer may be better. In place of each
gradient, the change of the weight is projected, as in `null_space`. Patches have a convolution's own stride and border.
The weights that PyTorch's ``nn.MultiheadAttention`` keeps for itself are in no layer, and stay; a network with layers
that are neither linear nor convolutions, such as transposed ones, or that share a weight is refused. The share, of 0.9
for an All-CNN, is 0.95 in the code for a small VGG. The paper itself was not to be had beyond its abstract.

Reproduction: not tried, since neither CIFAR-10 nor the authors' trained networks were at hand.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le, Lt
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part
from expunge.errors import RequestError
from expunge.methods._subspaces import check_layers, input_grams, spectrum
from expunge.methods.null_space import bind, released
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.synthesis import NORMS
from expunge.training import Count, NotNegative, Positive, Training, fit

GRAM = "gram/"
"""What the names of kept Gram matrices begin with."""


@settings
class ProjectedGradient:
    """Make the forgotten rows' classes unlikely, at right angles to the retained rows' core subspace (PGU)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    share: Annotated[float, Gt(0), Le(1)] = 0.9
    """Share of the singular values of the retained inputs that the core subspace holds."""
    offset: Annotated[float, Gt(0), Lt(1)] = 0.05
    """What keeps the loss finite at a probability of 1."""
    entropy: NotNegative = 0.2
    """Weight of the entropy, in nats, of what is said of forgotten rows."""
    epochs: Count = 100
    """Passes over the forgotten rows."""
    batch_size: Count = 100
    """Rows per step, over all processes."""
    lr: Positive = 0.01
    """Learning rate of SGD with momentum 0.9, which falls linearly to zero."""
    keep: bool = False
    """Whether to keep the Gram matrices for the next request, and to use those that an earlier one has kept. Each takes
    eight bytes times the square of what a layer's kernel covers: 0.7 GB in all for a ResNet-18."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that answers the retained rows as before, as far as the core subspace holds them.

        Streams: ``projection/order`` and ``projection/dropout``.

        Raises:
            ModelError: There is no layer that could be trained, or not all can be so; see
                `expunge.methods._subspaces.check_layers`.
            RequestError: What an earlier request has kept is not of these training rows.
            DivergedError: The rate is too high for this model.
        """
        check_layers(model)
        grams = self.retained_grams(model, access, runtime)
        if self.keep:
            access.kept["rows"] = torch.tensor(len(access["retain"]))
            access.kept |= {GRAM + name: values for name, values in grams.items()}
        cores = {name: [core(group, self.share) for group in values] for name, values in grams.items()}
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=0.0,
            schedule="linear",
        )
        bound = bind(model, cores)
        asleep = [module for module in bound.modules() if isinstance(module, NORMS)]
        fit(bound, access["forget"], runtime, training, stage="projection", loss=self.unlearning, asleep=asleep)
        return released(model, bound)

    def retained_grams(
        self, model: nn.Module, access: Access, runtime: Runtime
    ) -> dict[str, Float[Tensor, "groups width width"]]:
        """Return the matrices of step 1 by layer: kept ones without what is to be forgotten, or new ones."""
        kept = kept_grams(access.statistics, len(access["retain"]) + len(access["forget"])) if self.keep else {}
        part: Part = "forget" if kept else "retain"
        found = input_grams(model, access[part], runtime, stage=f"inputs of {part}")
        if not kept:
            return {name: gram.values for name, gram in found.items()}
        if {name: gram.values.shape for name, gram in found.items()} != {name: kept[name].shape for name in kept}:
            raise RequestError(
                f"expected Gram matrices of the layers of this network, got {sorted(kept)}: set keep=false"
            )
        return {name: kept[name].to(runtime.device) - gram.values for name, gram in found.items()}

    def unlearning(
        self, logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], inputs: Shaped[Tensor, "rows ..."]
    ) -> Tensor:
        """Return the loss of step 3, as a mean over the rows."""
        logs = logits.log_softmax(dim=1)
        own = logs.gather(1, labels[:, None])[:, 0].exp()
        spread = -(logs.exp() * logs).sum(dim=1)
        return (-(1 - own + self.offset).log() - self.entropy * spread).mean()


def kept_grams(statistics: Mapping[str, Tensor], rows: int) -> dict[str, Float[Tensor, "groups width width"]]:
    """Return the Gram matrices that an earlier request has kept, by layer; none if it kept none.

    Args:
        statistics: What was kept.
        rows: Of how many it should be: all that this request retains or forgets.

    Raises:
        RequestError: It is of another number.
    """
    found = {name.removeprefix(GRAM): values for name, values in statistics.items() if name.startswith(GRAM)}
    of = statistics.get("rows", torch.zeros(0))
    if found and of.reshape(-1).tolist() != [rows]:
        raise RequestError(
            f"expected the {of.tolist()} training rows that the kept Gram matrices are of, got {rows}: give the data "
            "of the earlier request, or set keep=false to sum up anew"
        )
    return found


def core(values: Float[Tensor, "width width"], share: float) -> Float[Tensor, "width kept"]:
    """Return an orthonormal basis of the core subspace of step 2.

    Args:
        values: A Gram matrix, of products in single precision.
        share: From 0 to 1; at 1, all directions but those that nothing but rounding has put something into.
    """
    energies, directions = spectrum(values)
    rounding = len(values) * torch.finfo(torch.float32).eps
    lengths = torch.where(energies > rounding * energies[0], energies.sqrt(), 0)
    before = lengths.cumsum(0) - lengths
    return directions[:, (lengths > 0) & (before < share * lengths.sum())]
