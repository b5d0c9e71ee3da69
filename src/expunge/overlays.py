"""Overlays: where each network looks to name the true class of example images: Grad-CAM, by captum.

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization", ICCV 2017,
https://arxiv.org/abs/1610.02391. The layer is the network's last convolution whose output has more than one position.
Each overlay has the full range of its own, so that it tells where a network looks and not how sure it is.

Stream: ``views/examples``.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.case import Case
from expunge.data import Part
from expunge.forgetting import as_png
from expunge.network import copy_of
from expunge.result import Overlay

EXAMPLES = 4
"""The most images of either kind."""
SMALLEST, LARGEST = 96, 160
"""Pixels of an overlay's shorter and longer side, at least and at most."""
GLOW = (1.0, 0.45, 0.0)
"""Colour of where a network looks."""
STRENGTH = 0.65
"""Share of that colour where it looks most."""
Heat = Float[Tensor, "images height width"]
"""As large as overlays are, where images have rows and columns of their own."""


def overlays(case: Case, part: Part) -> tuple[tuple[Overlay, ...], str | None]:
    """Return overlays of rows of a part to forget and of retained test rows, or why there are none.

    Args:
        case: The original, the unlearned and the first retrained model are looked at.
        part: Where the examples to forget come from.
    """
    size = case.split.input_size
    if len(size) != 3 or size[0] not in (1, 3):
        return (), f"the rows are no images of one or three channels, but of shape {size}"
    if case.closed():
        return (), "a network has no output of a forgotten class"
    images, labels, forgotten = _examples(case, part)
    shown = [case.original, case.unlearned, *case.retrained[:1]]
    heats = []
    with case.runtime.stage("grad-cam", len(shown)) as advance:
        for evidence in shown:
            model = copy_of(evidence.model).to(case.runtime.device).eval().requires_grad_()
            layer = last_convolution(model, images[:1].to(case.runtime.device))
            if layer is None:
                return (), "a network has no convolution with more than one position"
            heats.append(grad_cam(model, layer, images.to(case.runtime.device), labels.to(case.runtime.device)))
            advance(1)
    plain = upright(images)
    drawn = [[as_png(one) for one in glowing(plain, heat)] for heat in heats]
    names = case.split.label_names
    return tuple(
        Overlay(
            label=names[int(labels[place])],
            forgotten=place < forgotten,
            image=as_png(plain[place]),
            original=drawn[0][place],
            unlearned=drawn[1][place],
            retrained=drawn[2][place] if len(drawn) > 2 else None,
        )
        for place in range(len(images))
    ), None


def grad_cam(
    model: nn.Module,
    layer: nn.Module,
    images: Float[Tensor, "images channels rows columns"],
    labels: Int64[Tensor, " images"],
) -> Heat:
    """Return what speaks for each image's label, from 0 to 1 where most does; nothing where nothing does.

    Args:
        model: In evaluation mode, with gradients; on the images' device.
        layer: Of the model, with channels first.
        images: As the model takes them.
        labels: Their classes.
    """
    from captum.attr import LayerGradCam

    weight = next(model.parameters())
    with warnings.catch_warnings():  # of backward hooks, which are taken off again
        warnings.simplefilter("ignore")
        maps = LayerGradCam(model, layer).attribute(images.to(weight.dtype), target=labels, relu_attributions=True)
    heat = functional.interpolate(maps.detach().float().cpu(), size=_side(images), mode="bilinear", align_corners=False)
    heat = heat[:, 0]
    highest = heat.amax(dim=(1, 2), keepdim=True)
    return torch.where(highest > 0, heat / highest.clamp_min(torch.finfo(heat.dtype).tiny), torch.zeros_like(heat))


def last_convolution(model: nn.Module, image: Float[Tensor, "1 channels rows columns"]) -> nn.Module | None:
    """Return the last convolution that is called whose output has more than one position; None if there is none."""
    called: list[nn.Module] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.ndim == 4 and output[0, 0].numel() > 1:
            called.append(module)

    handles = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        model(image.to(next(model.parameters()).dtype))
    for handle in handles:
        handle.remove()
    return called[-1] if called else None


def upright(images: Float[Tensor, "images channels rows columns"]) -> Float[Tensor, "images 3 height width"]:
    """Return images in three channels, each stretched over the full range of brightness, as large as overlays are."""
    low, high = (images.float().amin(dim=(1, 2, 3), keepdim=True), images.float().amax(dim=(1, 2, 3), keepdim=True))
    stretched = (images.float() - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    sized = functional.interpolate(stretched, size=_side(images), mode="nearest-exact")
    return sized.expand(-1, 3, -1, -1)


def glowing(images: Float[Tensor, "images 3 height width"], heat: Heat) -> Float[Tensor, "images 3 height width"]:
    """Return images with the heat laid over them."""
    share = STRENGTH * heat[:, None]
    return images * (1 - share) + images.new_tensor(GLOW)[None, :, None, None] * share


def _examples(case: Case, part: Part) -> tuple[Tensor, Tensor, int]:
    """Return images, their labels and how many of them, the first ones, are to be forgotten."""
    generator = case.runtime.generator("views/examples")
    found = []
    for each in (part, "retain_test"):
        rows = case.split[each]
        chosen = torch.randperm(len(rows), generator=generator)[:EXAMPLES].sort().values.numpy()
        found.append(rows.batch(chosen.astype(np.int64)))
    return torch.cat([images for images, _ in found]), torch.cat([labels for _, labels in found]), len(found[0][1])


def _side(images: Tensor) -> tuple[int, int]:
    """Return rows and columns of an overlay: a multiple of the image's where that is small, fewer where it is large."""
    rows, columns = images.shape[-2:]
    scale = max(1, -(-SMALLEST // min(rows, columns)))
    scale_down = min(1.0, LARGEST / max(rows, columns))
    return (rows * scale, columns * scale) if scale > 1 else (round(rows * scale_down), round(columns * scale_down))
