"""Outputs: a network without those of some classes, seen among all classes.

A head whose rows of the forgotten classes are dropped cannot name them, and does not show which they were. Beside
models that have all outputs, such a network gives the missing ones as minus infinity: a probability of zero, which no
constant, rounding or shaking of weights raises. Who holds it and wants a class back adds an output; that is `reopened`.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from expunge.blueprint import blueprint_of
from expunge.errors import ModelError, RequestError
from expunge.network import copy_of, find_head, with_head
from expunge.precision import in_precisions, precisions_of

DROPPED = "not known without an output for what was forgotten"
"""Note of a number that asks about the missing output itself."""


class AmongAll(nn.Module):
    """A network with an output for some classes, which gives logits of all, minus infinity where it has none."""

    def __init__(self, model: nn.Module, dropped: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.dropped = dropped
        self.num_classes = num_classes
        self.kept = _others(dropped, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (rows, all classes)."""
        logits: Tensor = self.model(inputs)
        kept = torch.tensor(self.kept, device=logits.device)
        return logits.new_full((len(logits), self.num_classes), -torch.inf).index_copy(1, kept, logits)


def drop_outputs(model: nn.Module, classes: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return a copy whose head has no rows for some classes; the other outputs are as they were.

    A network whose blueprint is known is built anew with fewer classes, so that its library agrees that it has them;
    of any other the head alone is replaced.

    Raises:
        RequestError: There are no classes to drop.
        ModelError: There is no linear head.
        SettingsError: The network cannot be built with fewer classes.
    """
    if not classes:
        raise RequestError("expected classes to drop the outputs of, got single rows to forget: keep the head")
    head, kept = find_head(model, num_classes), _others(classes, num_classes)
    name = next(name for name, module in model.named_modules() if module is head)
    blueprint = blueprint_of(model)
    if blueprint is None:
        new = copy_of(model)
        narrow = nn.Linear(head.in_features, len(kept), bias=head.bias is not None)
        new = with_head(new, find_head(new, num_classes), narrow)
    else:
        with torch.random.fork_rng(devices=[]):
            new = blueprint.with_classes(len(kept)).build()
    weights = model.state_dict()
    inside = f"{name}." if name else ""
    for key in (f"{inside}weight", f"{inside}bias"):
        if key in weights:
            weights[key] = weights[key][kept]
    in_precisions(new.to(head.weight.device), precisions_of(model))
    try:
        new.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"expected a network whose head alone depends on its classes, got: {error}") from error
    trainable = {key: weight.requires_grad for key, weight in model.named_parameters()}
    for key, weight in new.named_parameters():
        weight.requires_grad_(trainable[key])
    return new.train(model.training)


@torch.no_grad()
def count_outputs(model: nn.Module, inputs: Shaped[Tensor, "rows ..."]) -> int:
    """Return how many logits a model gives; it is left in the mode that it came in.

    Raises:
        ModelError: It has no weights, does not take the inputs, or gives no logits (rows, classes).
    """
    was_training, weight = model.training, next(model.parameters(), None)
    if weight is None:
        raise ModelError(f"expected a model with weights, got a {type(model).__name__} without any")
    try:
        logits = model.eval()(inputs.to(weight.device, weight.dtype))
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"expected a model that takes inputs {tuple(inputs.shape)}, got: {error}") from error
    finally:
        model.train(was_training)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ModelError(f"expected logits (rows, classes), got {getattr(logits, 'shape', type(logits).__name__)}")
    return int(logits.shape[1])


def reopened(model: nn.Module) -> nn.Module:
    """Return a network with an output for every class: of one without, a copy with the mean of the others' rows.

    It never names such a class before it is trained: the mean of some logits is not above the highest.
    """
    if not isinstance(model, AmongAll):
        return model
    new = copy_of(model.model)
    head = find_head(new, model.num_classes - len(model.dropped))
    whole = nn.Linear(head.in_features, model.num_classes, bias=head.bias is not None).to(head.weight)
    kept = _others(model.dropped, model.num_classes)
    with torch.no_grad():
        for key, values in head.named_parameters():
            rows = whole.get_parameter(key)
            rows.copy_(values.mean(dim=0))
            rows[kept] = values
    return with_head(new, head, whole.train(head.training))


def _others(classes: tuple[int, ...], num_classes: int) -> list[int]:
    return [index for index in range(num_classes) if index not in classes]
