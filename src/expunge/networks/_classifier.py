"""Classifier: a trunk, global average pooling and one linear head, with the interface that timm's models have."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class Classifier(nn.Module):
    """A trunk and a linear head.

    Args:
        trunk: Maps inputs to (rows, num_features) or (rows, num_features, height, width).
        num_features: Width of what the head reads.
        num_classes: Outputs.
        in_chans: Channels of the inputs.
    """

    def __init__(self, trunk: nn.Module, *, num_features: int, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = num_features
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.trunk = trunk
        self.head = nn.Linear(num_features, num_classes)

    def forward_features(self, inputs: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """Return the trunk's output."""
        features: Tensor = self.trunk(inputs)
        return features

    def forward_head(self, features: Float[Tensor, "rows ..."], pre_logits: bool = False) -> Float[Tensor, "rows out"]:
        """Return logits, or what the head reads if `pre_logits`."""
        pooled = features if features.ndim == 2 else features.mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, inputs: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows classes"]:
        """Return logits."""
        return self.forward_head(self.forward_features(inputs))

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes)


def convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return convolution (same padding, no bias), batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def default_cfg(*, fixed_input_size: bool = False) -> dict[str, Any]:
    """Return what timm wants to know of a network that has no published weights."""
    return {
        "input_size": (3, 32, 32),
        "num_classes": 10,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "classifier": "head",
        "fixed_input_size": fixed_input_size,
    }
