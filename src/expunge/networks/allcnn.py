"""allcnn: All-CNN-C of Springenberg et al., "Striving for Simplicity", https://arxiv.org/abs/1412.6806.

Differences: batch normalisation after every convolution, no dropout, and same padding throughout so that small
images fit. The last 1x1 convolution followed by global average pooling is written as pooling followed by a linear
head, which is the same function.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from expunge.networks._classifier import Classifier, convolution, default_cfg

default_cfgs = generate_default_cfgs({"allcnn": default_cfg()})


def _make(*, num_classes: int = 10, in_chans: int = 3, width: int = 96) -> Classifier:
    trunk = nn.Sequential(
        convolution(in_chans, width),
        convolution(width, width),
        convolution(width, width, stride=2),
        convolution(width, 2 * width),
        convolution(2 * width, 2 * width),
        convolution(2 * width, 2 * width, stride=2),
        convolution(2 * width, 2 * width),
        convolution(2 * width, 2 * width, kernel=1),
    )
    return Classifier(trunk, num_features=2 * width, num_classes=num_classes, in_chans=in_chans)


@register_model  # type: ignore[untyped-decorator]
def allcnn(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Return an All-CNN-C; `width` is the number of channels of the first layers (default 96)."""
    model: nn.Module = build_model_with_cfg(_make, "allcnn", pretrained, **arguments)
    return model
