"""svd: take from every layer's inputs the directions that the forgotten rows have and the retained ones have not.

Kodge, Saha and Roy, "Deep Unlearning: Fast and Efficient Gradient-free Class Forgetting", TMLR 2024,
https://arxiv.org/abs/2312.00761; code https://github.com/sangamesh-kodge/class_forgetting.

1. Spaces. For every layer, take the singular vectors U and values s of its inputs (patches, for a convolution): once
   over a few retained rows, once over as many forgotten ones.
2. Importance. Give each vector the weight ``alpha e / ((alpha - 1) e + 1)``, e being its share of the energy, the sum
   of all s². So ``P = U diag(weight) Uᵀ`` is near a projection where alpha is large; `alpha_r` is for the retained
   rows, `alpha_f` for the forgotten ones.
3. What tells them apart. Take ``P_dis = P_f - P_f P_r``: the forgotten space without what it shares with the retained.
4. Projection. Multiply every layer's weights W to ``W (I - P_dis)ᵀ``, which is ``W - (W - W P_r) P_f``. Biases and
   normalisations stay.
5. Search. Of all pairs of `alpha_r` and `alpha_f`, keep the one whose network has the highest ``retained accuracy *
   (1 - forgotten accuracy)`` on the rows of step 1.

Reads: retain and forget.

Differences from the code: it scores the search on the test set, and keeps the original if no pair does better; here
the search sees nothing but the training rows that the spaces come from, and one of the pairs is always taken. All
positions of those rows count. The code cuts a window three kernels wide and high out of the inputs of a convolution
that are wider, at one random place for all images, puts the convolution's border of zeros around it as if the image
ended there, and draws 10,000 of its patches. It takes apart the attention of its own ViT; here the weights that
PyTorch's ``nn.MultiheadAttention`` keeps for itself are in no layer, and stay. A network with layers that are neither
linear nor convolutions, such as transposed ones, or that share a weight is refused. Single rows are not in the paper:
their space is found as a class's is.

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from itertools import product
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Len
from jaxtyping import Float
from torch import Tensor, nn

from expunge.access import Access
from expunge.data import Part, subset
from expunge.errors import ModelError
from expunge.methods._subspaces import Gram, check_layers, find_layers, input_grams, matrix_of, set_matrix, spectrum
from expunge.network import copy_of
from expunge.rows import Rows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, predict

Alphas = Annotated[tuple[Annotated[float, Ge(1)], ...], Len(1)]
Spectrum = tuple[Float[Tensor, "groups width"], Float[Tensor, "groups width width"]]
"""Energies and directions of a layer's inputs."""


@settings
class Svd:
    """Project out of every layer what sets the forgotten rows' inputs apart (Kodge et al.)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain", "forget"})

    alpha_r: Alphas = (10.0, 30.0, 100.0, 300.0, 1000.0)
    """How sharply retained directions are told from noise; all are tried. The code's grid; its choice is 100."""
    alpha_f: Alphas = (1.0, 3.0, 10.0, 30.0, 100.0)
    """How sharply forgotten directions are told from noise; all are tried. The code's grid; its choice is 3."""
    rows: Count = 900
    """Rows of each kind that the spaces and the search see, as many of each class."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return the best of the projected copies. Streams: ``svd/retain``, ``svd/forget``.

        Raises:
            ModelError: There is no layer to project, or not all can be; see `expunge.methods._subspaces.check_layers`.
        """
        check_layers(model)
        retain = evenly(access["retain"], self.rows, runtime.generator("svd/retain"))
        forget = evenly(access["forget"], self.rows, runtime.generator("svd/forget"))
        retained = spectra(input_grams(model, retain, runtime, stage="retain space"))
        forgotten = spectra(input_grams(model, forget, runtime, stage="forget space"))
        if not retained:
            raise ModelError(f"expected linear layers or convolutions, got none in {type(model).__name__}")
        pairs = list(product(self.alpha_r, self.alpha_f))
        best, highest = model, -1.0
        with runtime.stage("search", len(pairs)) as advance:
            for alpha_r, alpha_f in pairs:
                candidate = project(model, retained, forgotten, alpha_r, alpha_f)
                score = accuracy(candidate, retain, runtime) * (1 - accuracy(candidate, forget, runtime))
                if score > highest:
                    best, highest = candidate, score
                advance(1)
        return best


def evenly(rows: Rows, count: int, generator: torch.Generator) -> Rows:
    """Return about so many rows, as many of each class that there is."""
    return subset(rows, max(1, count // len(set(rows.labels.tolist()))), generator)


def spectra(grams: dict[str, Gram]) -> dict[str, Spectrum]:
    """Return the energies and directions of every layer's inputs."""
    return {name: spectrum(gram.values) for name, gram in grams.items()}


def project(
    model: nn.Module, retained: dict[str, Spectrum], forgotten: dict[str, Spectrum], alpha_r: float, alpha_f: float
) -> nn.Module:
    """Return a copy of a model with steps 2 to 4 done to every layer whose spaces are given."""
    projected = copy_of(model)
    for name, layer in find_layers(projected).items():
        if name in retained:
            matrix = matrix_of(layer).detach().to(retained[name][1])
            apart = matrix - through(matrix, retained[name], alpha_r)
            set_matrix(layer, matrix - through(apart, forgotten[name], alpha_f))
    return projected


def through(
    matrix: Float[Tensor, "groups outputs width"], space: Spectrum, alpha: float
) -> Float[Tensor, "groups outputs width"]:
    """Return a matrix times P of step 2, which is never held; of inputs that are all zero, P is zero."""
    energies, directions = space
    shares = energies / energies.sum(-1, keepdim=True).clamp_min(torch.finfo(energies.dtype).tiny)
    weights = alpha * shares / ((alpha - 1) * shares + 1)
    return matrix @ directions * weights[..., None, :] @ directions.mT


def accuracy(model: nn.Module, rows: Rows, runtime: Runtime) -> float:
    """Return the share of rows that a model gets right."""
    logits, labels = predict(model, rows, runtime)
    return (logits.argmax(1) == labels).double().mean().item()
