"""Subspaces: the directions that the inputs of a network's layers lie in, from their Gram matrices.

Of a linear layer an input is what it is given at one position; of a convolution it is the patch under its kernel, in
the order of the kernel's weights. So the layer computes ``W x + b`` of every input, whatever its kind, and what its
weights do to inputs in some subspace is a matter of ``W`` alone. A grouped convolution has a space for each group.

Inputs are never kept: each batch adds ``x xᵀ`` to a matrix as wide as the layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from timm.layers import Linear as TimmLinear
from torch import Tensor, nn
from torch.nn import functional

from expunge.errors import ModelError
from expunge.memory import check_fits
from expunge.methods._importance import total
from expunge.network import check_own, check_unshared, copy_of
from expunge.rows import Rows
from expunge.runtime import Runtime, count_batches

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Layer = nn.Linear | Convolution
NO_MATRIX = nn.Embedding | nn.EmbeddingBag | nn.LayerNorm | nn.RMSNorm
"""What has a weight that multiplies no input as a matrix, however many dimensions it has."""
PLAIN = (nn.Linear.forward, TimmLinear.forward, nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)
"""What layers do that do nothing of their own; timm's casts weights where `torch.jit` has compiled it, nowhere else."""
NUMBERS = 2**25
"""The most elements of patches held at a time, an eighth of a gigabyte in single precision."""


@dataclass(frozen=True, kw_only=True)
class Gram:
    """What the inputs of one layer sum up to."""

    values: Float[Tensor, "groups width width"]
    """The sum of ``x xᵀ`` over rows and positions, in double precision; one group but for grouped convolutions."""
    count: int
    """Inputs that it is the sum of: rows times positions, over all calls of the layer."""


def find_layers(model: nn.Module) -> dict[str, Layer]:
    """Return the linear layers and convolutions of a network by their dotted names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Layer)}


def check_layers(model: nn.Module) -> None:
    """Refuse a network that is not edited as a whole by editing its linear layers and convolutions one by one.

    Frozen layers may be of any kind. Weights that no module calls its `weight`, such as the ones that PyTorch's
    ``nn.MultiheadAttention`` keeps for itself, are not looked at.

    Raises:
        ModelError: There is no such layer that is not frozen; a layer of another kind has a matrix of its own; a weight
            is computed from others; or two layers share one.
    """
    for name, module in model.named_modules():
        if any(weight.requires_grad and weight.ndim > 1 for weight in other_matrices(module)):
            raise ModelError(
                f"expected linear layers and convolutions, got a {type(module).__name__} ({name or 'the model'}), "
                "which would stay as it is: choose a method that looks into no layers"
            )
    free = {
        name: layer
        for name, layer in find_layers(model).items()
        if any(weight.requires_grad for key, weight in layer.named_parameters() if key != "bias")
    }
    if not free:
        got = "frozen ones alone" if find_layers(model) else "none"
        raise ModelError(
            f"expected linear layers or convolutions that can change, got {got} in {type(model).__name__}: choose a "
            "method that looks into no layers"
        )
    for name, layer in free.items():
        check_own(name, layer)
        check_unshared(model, layer.weight)


def other_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a module that is neither linear nor a convolution which multiply its inputs as matrices."""
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return list(own.values())
    return [] if "weight" not in own or isinstance(module, Layer | NO_MATRIX) else [own["weight"]]


def matrix_of(layer: Layer) -> Float[Tensor, "groups outputs width"]:
    """Return a view of a layer's weights as the matrix that it multiplies its inputs by."""
    groups = layer.groups if isinstance(layer, Convolution) else 1
    return layer.weight.reshape(groups, layer.weight.shape[0] // groups, -1)


@torch.no_grad()
def set_matrix(layer: Layer, matrix: Float[Tensor, "groups outputs width"]) -> None:
    """Let a layer multiply its inputs by a matrix; frozen weights stay."""
    if layer.weight.requires_grad:
        layer.weight.copy_(matrix.reshape(layer.weight.shape))


@torch.no_grad()
def multiply_inputs(layer: Layer, matrices: Float[Tensor, "groups width width"]) -> None:
    """Let a layer compute in place ``W M x + b``, so that it sees of every input what a matrix leaves of it.

    Frozen weights stay. The product is taken in double precision.

    Args:
        layer: The layer.
        matrices: M, one for each group.
    """
    set_matrix(layer, matrix_of(layer).double() @ matrices.to(layer.weight.device, torch.float64))


@torch.no_grad()
def input_grams(
    model: nn.Module,
    rows: Rows,
    runtime: Runtime,
    *,
    stage: str,
    only: str | None = None,
    bias: bool = False,
    batch_size: int = 256,
) -> dict[str, Gram]:
    """Return the Gram matrix of the inputs of every layer, from one pass in evaluation mode.

    Args:
        model: Left as it is.
        rows: Each is read once.
        runtime: Where; the matrices are left on its device.
        stage: Name for progress and cost.
        only: Dotted name of the one layer that is wanted; None for all.
        bias: Whether each input gets a last element of 1, which a layer's bias multiplies.
        batch_size: Rows per pass, over all processes.

    Returns:
        By the layer's dotted name, of the layers that were called.

    Raises:
        ModelError: A layer computes something else of its inputs than its kind says.
        DataError: The matrices do not fit into memory.
    """
    network = copy_of(model).eval()
    layers = {name: layer for name, layer in find_layers(network).items() if only in (None, name)}
    matrices = {name: matrix_of(layer) for name, layer in layers.items()}
    widths = {name: (matrix.shape[0], matrix.shape[2] + bias) for name, matrix in matrices.items()}
    needed = sum(8 * groups * width**2 for groups, width in widths.values())
    check_fits(needed, f"the Gram matrices of {len(layers)} layers", "choose a method that needs none")
    sums = {
        name: torch.zeros(groups, width, width, dtype=torch.float64, device=runtime.device)
        for name, (groups, width) in widths.items()
    }
    counts = dict.fromkeys(layers, 0)

    def add(name: str, inputs: Float[Tensor, "groups inputs width"]) -> None:
        if bias:
            inputs = functional.pad(inputs, (0, 1), value=1.0)
        sums[name] += inputs.mT @ inputs
        counts[name] += inputs.shape[1]

    call = runtime.place(network)
    with watched(layers, add), runtime.stage(stage, count_batches(len(rows), batch_size)) as advance:
        for inputs, _, _ in runtime.batches(rows, batch_size):
            if len(inputs):
                with runtime.cost.step((stage, "gram"), len(inputs)):
                    call(inputs)
            advance(1)
    found = {name: Gram(values=total(sums[name], runtime), count=int(runtime.total(counts[name]))) for name in layers}
    return {name: gram for name, gram in found.items() if gram.count}


@contextmanager
def watched(
    layers: dict[str, Layer], take: Callable[[str, Float[Tensor, "groups inputs width"]], None]
) -> Iterator[None]:
    """Hand the inputs of every call of some layers to a function, a part of the batch at a time, outside autocast.

    Raises (by the layer's call):
        ModelError: The layer computes something else of its inputs than its kind says.
    """

    def after(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(layer: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
            assert isinstance(layer, Layer)  # noqa: S101
            if type(layer).forward not in PLAIN:
                raise ModelError(
                    f"expected plain linear layers and convolutions, got a {type(layer).__name__} ({name}), which does "
                    "something of its own to inputs or weights: choose a method that looks into no layers"
                )
            positions = output.numel() // (len(output) * layer.weight.shape[0])
            rows = max(1, NUMBERS // (positions * matrix_of(layer)[:, 0].numel()))
            with torch.autocast(output.device.type, enabled=False):
                for part in given[0].float().split(rows):
                    take(name, inputs_of(layer, part))

        return hook

    handles = [layer.register_forward_hook(after(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def inputs_of(layer: Layer, given: Float[Tensor, "rows ..."]) -> Float[Tensor, "groups inputs width"]:
    """Return what a layer multiplies its weights with: positions of a batch, or patches, row after row."""
    if isinstance(layer, nn.Linear):
        return given.reshape(1, -1, given.shape[-1])
    images = padded(layer, given)
    patches = images.reshape(len(images), layer.groups, -1, *images.shape[2:])
    axes = len(layer.kernel_size)
    for axis, (size, stride, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        patches = patches.unfold(3 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    # from rows, groups, channels, positions, elements to groups, rows, positions, channels, elements
    return patches.movedim(2, 2 + axes).transpose(0, 1).flatten(2 + axes).flatten(1, 1 + axes)


def padded(layer: Convolution, images: Float[Tensor, "rows channels ..."]) -> Tensor:
    """Return images with the border that a convolution gives them."""
    if layer.padding == "valid":
        return images
    border = []
    for axis in reversed(range(len(layer.kernel_size))):  # from the last axis to the first
        over = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        border += [over // 2, over - over // 2] if layer.padding == "same" else [int(layer.padding[axis])] * 2
    return functional.pad(images, border, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)


def spectrum(
    values: Float[Tensor, "*groups width width"],
) -> tuple[Float[Tensor, "*groups width"], Float[Tensor, "*groups width width"]]:
    """Return the eigenvalues of Gram matrices, the highest first and none below 0, and the directions in columns."""
    try:
        energies, directions = torch.linalg.eigh(values)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        # rows of zeros, as dead channels make them, can be too many for PyTorch's LAPACK; NumPy's takes them
        found = np.linalg.eigh(values.cpu().numpy())
        energies, directions = (torch.from_numpy(one).to(values.device) for one in found)
    return energies.flip(-1).clamp(min=0), directions.flip(-1)


def basis(
    values: Float[Tensor, "width width"], share: float, held: Float[Tensor, "width held"] | None = None
) -> Float[Tensor, "width kept"]:
    """Return the fewest orthonormal directions that hold a share of the energy of a Gram matrix, the strongest first.

    Args:
        values: A Gram matrix, of one group.
        share: From 0 to 1, of the sum of all eigenvalues; a matrix of zeros has no direction.
        held: Orthonormal directions that are kept whatever they hold, before those that are added to them.
    """
    old = values[:, :0] if held is None else held
    rest = torch.eye(len(values), dtype=values.dtype, device=values.device) - old @ old.mT
    energies, directions = spectrum(rest @ values @ rest)
    before = (values.trace() - energies.sum()).clamp(min=0)
    reached = before + torch.cat([energies.new_zeros(1), energies.cumsum(0)])
    added = min(int((reached < share * values.trace()).sum()), len(values) - old.shape[1])
    # orthogonalised, since rounding leaves something of the old directions in the new ones
    kept: Tensor = torch.linalg.qr(torch.cat([old, directions[:, :added]], dim=1))[0]
    return kept
