"""head_mask: hide the forgotten classes' outputs and change nothing else. A control, not a method.

Forget accuracy falls to zero in no time, while every feature of the class stays where it was. An audit that lets
this pass audits nothing.

1. Set the head's weights of each forgotten class to zero and its bias far below any logit.

Reads: nothing. Source: known as head distillation or logit masking; discussed in "Are We Truly Forgetting?",
https://arxiv.org/abs/2503.06991, and in the information difference index, https://arxiv.org/abs/2405.17878.

Reproduction: no public number. It is a control.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Lt
from torch import nn

from expunge.access import Access
from expunge.data import Part
from expunge.errors import ModelError
from expunge.network import copy_of, editable_head
from expunge.runtime import Runtime
from expunge.settings import settings


@settings
class HeadMask:
    """Hide the forgotten outputs; the control that must never pass for unlearning."""

    reads: ClassVar[frozenset[Part]] = frozenset()

    logit: Annotated[float, Lt(0)] = -30.0
    """The constant output of a forgotten class, in nats: below any logit of a trained network."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with the outputs hidden.

        Raises:
            ModelError: The head has no bias, or cannot be edited; see `expunge.network.editable_head`.
        """
        masked = copy_of(model)
        classes = list(access.classes())
        with runtime.stage("mask", 1), torch.no_grad():
            head = editable_head(masked, access.num_classes, bias=True)
            if head.bias is None:
                raise ModelError("expected a head with a bias to hide outputs by, got one without")
            head.weight[classes] = 0.0
            head.bias[classes] = self.logit
        return masked
