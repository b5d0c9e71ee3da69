"""resnet20: the CIFAR network of He et al., "Deep Residual Learning", https://arxiv.org/abs/1512.03385, section 4.2.

The shortcut is the paper's option A: no weights, every second pixel, new channels filled with zeros.
"""

from typing import Any

from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from expunge.networks._classifier import Classifier, convolution, default_cfg

default_cfgs = generate_default_cfgs({"resnet20": default_cfg()})


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride=stride)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, inputs: Float[Tensor, "rows c h w"]) -> Float[Tensor, "rows c2 h2 w2"]:
        shortcut = inputs[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return functional.relu(self.norm(self.second(self.first(inputs))) + shortcut)


def _make(*, num_classes: int = 10, in_chans: int = 3, width: int = 16) -> Classifier:
    widths = [width] * 3 + [2 * width] * 3 + [4 * width] * 3
    strides = [1, 1, 1, 2, 1, 1, 2, 1, 1]
    blocks = [
        _Block(before, after, stride)
        for before, after, stride in zip([width, *widths[:-1]], widths, strides, strict=True)
    ]
    trunk = nn.Sequential(convolution(in_chans, width), *blocks)
    return Classifier(trunk, num_features=4 * width, num_classes=num_classes, in_chans=in_chans)


@register_model  # type: ignore[untyped-decorator]
def resnet20(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Return a ResNet-20 for small images; `width` is the number of channels of the first stage (default 16)."""
    model: nn.Module = build_model_with_cfg(_make, "resnet20", pretrained, **arguments)
    return model
