"""Network: how to build one by name, build it again with fresh weights, and find its head."""

import copy
from collections.abc import Callable
from dataclasses import field
from typing import Any

import torch
from torch import Tensor, nn

from expunge.blueprint import Blueprint, blueprint_of, plan
from expunge.checkpoint import read_config
from expunge.data import Data
from expunge.errors import ModelError, SettingsError, expecting
from expunge.model_files import find_folder
from expunge.precision import in_precisions, precisions_of
from expunge.settings import settings

FITTED = frozenset({"num_classes", "in_chans", "img_size", "num_labels", "num_channels", "image_size"})
"""Arguments that follow the data, whatever a saved network had."""


@settings
class Network:
    """A network by its name; see `expunge.blueprint`. It starts from random weights."""

    name: str = "small_cnn"
    """A name of timm; ``torchvision:NAME``; ``transformers:KIND``; ``package.module:builder`` of your own; or a saved
    model whose network to take, ``local-dir:PATH``, ``hf-hub:ID`` or ``transformers:PATH-or-ID``."""
    args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of that network, such as width."""

    def build(self, data: Data) -> nn.Module:
        """Return a new network for the data's shape and classes, with weights from torch's global generator.

        Raises:
            SettingsError: Nothing has that name, or it does not take these arguments or this input shape.
            ModelError: It is to be that of a saved model which cannot be read.
        """
        wanted = f"expected arguments that {self.name!r} takes for inputs {data.input_size}, not {self.args}"
        with expecting(wanted, SettingsError):
            blueprint = self._blueprint(data)
            model = blueprint.build()
            if blueprint.kind != "timm" or len(data.input_size) == 1:  # many networks of timm take images alone
                _check_takes(model, data)
        return model

    def _blueprint(self, data: Data) -> Blueprint:
        name, args = self.name, self.args
        source, _, rest = name.partition(":")
        if source in ("hf-hub", "local-dir") or (source == "transformers" and not rest.isidentifier()):
            saved = read_config(find_folder(name)).blueprint
            name, args = saved.name, {key: saved.args[key] for key in saved.args if key not in FITTED} | args
            if saved.kind == "builder":
                raise SettingsError(f"expected the name of the code itself, got {self.name}: give {saved.name}")
        return plan(name, args, data.input_size, len(data.label_names))


@torch.no_grad()
def _check_takes(model: nn.Module, data: Data) -> None:
    """Refuse a network that gives no logits for the data.

    Raises:
        RuntimeError, TypeError, ValueError: It does not take such inputs, or gives something else.
    """
    logits = model.eval()(torch.zeros(2, *data.input_size))
    model.train()
    wanted = (2, len(data.label_names))
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
        came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"expected logits {wanted} for two inputs, got {came}")


def rebuild(model: nn.Module) -> Callable[[], nn.Module]:
    """Return a function that makes a network of the same architecture with fresh random weights.

    A network whose `Blueprint` is known is built from it again. Any other is copied, and each of its modules is asked
    to ``reset_parameters``. Either way its tensors have the model's precision. Weights that the model marks as frozen
    (``requires_grad=False``) keep their values, since no row was ever used to train them; so do the buffers, such as
    running statistics, of modules that have weights of their own and all of them frozen.

    Raises (by the function):
        ModelError: A module has trainable weights of its own and no ``reset_parameters``.
    """

    def fresh() -> nn.Module:
        blueprint = blueprint_of(model)
        if blueprint is not None:
            new = in_precisions(blueprint.build(), precisions_of(model))
        else:
            new = copy_of(model)
            _reset(new)
        trained, kept = dict(model.named_parameters()), _frozen_buffers(model)
        with torch.no_grad():
            for name, weight in new.named_parameters():
                weight.requires_grad_(trained[name].requires_grad)
                if not weight.requires_grad:
                    weight.copy_(trained[name])
            for name, buffer in new.named_buffers():
                if name in kept:
                    buffer.copy_(kept[name])
        return new

    return fresh


def _frozen_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers, by name, of the modules that have weights of their own and all of them frozen."""
    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        weights = list(module.parameters(recurse=False))
        if weights and not any(weight.requires_grad for weight in weights):
            found |= dict(module.named_buffers(prefix=name, recurse=False))
    return found


def _reset(model: nn.Module) -> None:
    for name, module in model.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif any(weight.requires_grad for weight in module.parameters(recurse=False)):
            raise ModelError(
                f"expected modules that can be re-initialised, got {type(module).__name__} ({name or 'the model'}) "
                "without reset_parameters(): give it one, or give a function that builds the network"
            )


def copy_of(model: nn.Module) -> nn.Module:
    """Return a deep copy without gradients; the model is left as it was."""
    copied = copy.deepcopy(model)
    copied.zero_grad(set_to_none=True)
    return copied


def find_head(model: nn.Module, num_classes: int) -> nn.Linear:
    """Return the last linear layer with one output per class.

    Raises:
        ModelError: There is none, or there are two beside one another, as in networks for distillation.
    """
    heads = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes
    ]
    if not heads:
        convolved = any(
            isinstance(module, nn.Conv2d) and module.out_channels == num_classes for module in model.modules()
        )
        hint = ", but a convolution: choose a network that ends in a linear layer" if convolved else ""
        raise ModelError(
            f"expected a linear layer with {num_classes} outputs, got none in {type(model).__name__}{hint}"
        )
    last, head = heads[-1]
    beside = [
        name
        for name, other in heads[:-1]
        if other.in_features == head.in_features != num_classes and name.count(".") == last.count(".")
    ]
    if beside:
        raise ModelError(
            f"expected one linear layer that gives the logits, got {beside[-1]} and {last} beside one another: choose "
            "a network with one head"
        )
    return head


def editable_head(model: nn.Module, num_classes: int, *, bias: bool = False) -> nn.Linear:
    """Return the head of a network that is to be edited in place.

    Args:
        model: The network.
        num_classes: Outputs of the head.
        bias: Whether its bias, if it has one, is edited too.

    Raises:
        ModelError: There is none, its weights are frozen or computed from others, or another layer has them too.
    """
    head = find_head(model, num_classes)
    name = next(name for name, module in model.named_modules() if module is head)
    check_own(name, head)
    for key, weight in head.named_parameters():
        if not weight.requires_grad and (bias or key == "weight"):
            raise ModelError(
                f"expected a head that can change, got a frozen {key} ({name or 'the model'}): unfreeze it"
            )
    check_unshared(model, head.weight)
    return head


def check_own(name: str, layer: nn.Module) -> None:
    """Refuse a layer whose weight is computed from others at every pass, as by ``torch.nn.utils.parametrize``.

    Raises:
        ModelError: It is: a change of the weight would be lost.
    """
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        raise ModelError(
            f"expected layers with weights of their own, got {name or 'a model'} whose weight is computed from others, "
            "as by a parametrisation: remove that first"
        )


def check_unshared(model: nn.Module, weight: Tensor) -> None:
    """Refuse a weight that several modules of a network have.

    Raises:
        ModelError: They do: whoever changes it for what one of them is given changes the others.
    """
    names = [
        f"{name}.{key}".lstrip(".")
        for name, module in model.named_modules()
        for key, own in module.named_parameters(recurse=False, remove_duplicate=False)
        if own is weight
    ]
    if len(names) > 1:
        raise ModelError(
            f"expected a weight of its own in every layer that is edited, got one shared by {' and '.join(names)}: "
            "choose a method that trains the whole network"
        )


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return a network's batch normalisations, whose statistics move with the rows that they are shown in training."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def with_head(model: nn.Module, head: nn.Linear, new: nn.Linear) -> nn.Module:
    """Put another head into a model in place and return it; a model that is nothing but its head becomes the new one.

    Args:
        model: The network.
        head: The head that it has.
        new: The one to put in its place.
    """
    name = next(name for name, module in model.named_modules() if module is head)
    if not name:
        return new
    model.set_submodule(name, new)
    return model


@torch.no_grad()
def reset_rows(head: nn.Linear, fresh: nn.Linear, classes: list[int]) -> None:
    """Give the rows of some classes the weights of another head; frozen weights stay."""
    new = dict(fresh.named_parameters())
    for name, own in head.named_parameters():
        if own.requires_grad:
            own[classes] = new[name][classes].to(own)
