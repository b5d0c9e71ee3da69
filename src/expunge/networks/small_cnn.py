"""small_cnn: three convolutions with batch normalisation; the network of the demo."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from expunge.networks._classifier import Classifier, convolution, default_cfg

default_cfgs = generate_default_cfgs({"small_cnn": default_cfg()})


def _make(*, num_classes: int = 10, in_chans: int = 3, width: int = 16) -> Classifier:
    trunk = nn.Sequential(
        convolution(in_chans, width),
        convolution(width, 2 * width, stride=2),
        convolution(2 * width, 4 * width, stride=2),
    )
    return Classifier(trunk, num_features=4 * width, num_classes=num_classes, in_chans=in_chans)


@register_model  # type: ignore[untyped-decorator]
def small_cnn(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Return a small_cnn; `width` is the number of channels of the first layer (default 16)."""
    model: nn.Module = build_model_with_cfg(_make, "small_cnn", pretrained, **arguments)
    return model
