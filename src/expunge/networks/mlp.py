"""mlp: two hidden layers without normalisation, for flat or tabular rows."""

import math
from collections.abc import Sequence
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from expunge.networks._classifier import Classifier, default_cfg

default_cfgs = generate_default_cfgs({"mlp": default_cfg(fixed_input_size=True)})


def _make(
    *, num_classes: int = 10, in_chans: int = 3, img_size: int | Sequence[int] = 32, width: int = 128
) -> Classifier:
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    trunk = nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_chans * math.prod(size), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
    )
    return Classifier(trunk, num_features=width, num_classes=num_classes, in_chans=in_chans)


@register_model  # type: ignore[untyped-decorator]
def mlp(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Return a multi-layer perceptron; `width` is the size of both hidden layers (default 128)."""
    model: nn.Module = build_model_with_cfg(_make, "mlp", pretrained, **arguments)
    return model
