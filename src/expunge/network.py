"""Network: how to build one by name, build it again with fresh weights, and find its head."""

import copy
from collections.abc import Callable
from dataclasses import field
from typing import Any

import timm
import torch
from timm.models import get_model_args, resolve_model_input_args
from torch import nn

import expunge.networks  # noqa: F401  registers our networks with timm
from expunge.data import Data
from expunge.errors import ModelError, SettingsError, did_you_mean
from expunge.settings import settings


@settings
class Network:
    """A network by its name in timm, where ours are registered too."""

    name: str = "small_cnn"
    """A name that ``timm.create_model`` knows."""
    args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of that network, such as width."""

    def build(self, data: Data) -> nn.Module:
        """Return a new network for the data's shape and classes, with weights from torch's global generator.

        Raises:
            SettingsError: timm knows no such network, or it does not take these arguments or this input shape.
        """
        if not timm.is_model(self.name):
            raise SettingsError(
                f"expected a network that timm has, got {self.name!r}{did_you_mean(self.name, known())}"
            )
        try:
            args = resolve_model_input_args(
                self.name, {"input_size": as_image(data.input_size)}, num_classes=len(data.label_names), **self.args
            )
            model: nn.Module = timm.create_model(**args)
            if len(data.input_size) == 1:
                copy_of(model).eval()(torch.zeros(1, *data.input_size))  # many networks take images alone
        except (AssertionError, TypeError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"expected arguments that {self.name!r} takes for inputs {data.input_size}, got {self.args}: {error}"
            ) from error
        return model


def known() -> list[str]:
    """Return the names of all networks."""
    return list(timm.list_models())


def as_image(input_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an input as timm wants it: a flat row is an image one pixel high."""
    return (1, 1, *input_size) if len(input_size) == 1 else input_size


def architecture(model: nn.Module) -> str | None:
    """Return the name in timm of a network that timm's factory made; None for any other."""
    cfg = getattr(model, "pretrained_cfg", None)
    name = cfg.get("architecture") if isinstance(cfg, dict) else None
    return name if isinstance(name, str) and timm.is_model(name) else None


def rebuild(model: nn.Module) -> Callable[[], nn.Module]:
    """Return a function that makes a network of the same architecture with fresh random weights.

    A network of timm's factory is made by it again. Any other is copied, and each of its modules is asked to
    ``reset_parameters``. Weights that the model marks as frozen (``requires_grad=False``) keep their values: no row
    was ever used to train them.

    Raises (by the function):
        ModelError: A module has trainable weights of its own and no ``reset_parameters``.
    """

    def fresh() -> nn.Module:
        name = architecture(model)
        if name is not None:
            new: nn.Module = timm.create_model(name, **get_model_args(model))
        else:
            new = copy_of(model)
            _reset(new)
        trained = dict(model.named_parameters())
        with torch.no_grad():
            for name, weight in new.named_parameters():
                weight.requires_grad_(trained[name].requires_grad)
                if not weight.requires_grad:
                    weight.copy_(trained[name])
        return new

    return fresh


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
        ModelError: There is none.
    """
    heads = [
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == num_classes
    ]
    if not heads:
        raise ModelError(f"expected a linear layer with {num_classes} outputs, got none in {type(model).__name__}")
    return heads[-1]
