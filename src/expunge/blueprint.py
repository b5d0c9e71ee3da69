"""Blueprints: what a network is built from, whatever library it is of, so that it can be built again.

=========================  =========================================  ==============================
name                       network                                    built by
=========================  =========================================  ==============================
``resnet18``               of timm, and our own                       ``timm.create_model``
``torchvision:resnet18``   a classifier of torchvision                ``torchvision.models.get_model``
``transformers:vit``       an image classifier of Hugging Face        its class, from a configuration
``package.module:build``   of the user: any callable that makes one   calling it
=========================  =========================================  ==============================
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import timm
import torchvision
from timm.models import get_model_args, resolve_model_input_args
from torch import nn

import expunge.networks  # noqa: F401  registers our networks with timm
from expunge import hugging_face
from expunge.errors import SettingsError, did_you_mean

Kind = Literal["timm", "torchvision", "transformers", "builder"]
STAMP = "_expunge_blueprint"
"""Attribute of networks whose library does not remember how they were built."""


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A name and all the arguments that it is built with, as plain values."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What builds it."""
        return kind_of(self.name)

    def build(self) -> nn.Module:
        """Return a network with fresh weights from torch's global generator.

        Raises:
            SettingsError: Nothing has that name.
            AssertionError, KeyError, RuntimeError, TypeError, ValueError: It does not take these arguments.
        """
        short = self.name.partition(":")[2]
        check_name(self.name)
        match self.kind:
            case "timm":
                timm_model: nn.Module = timm.create_model(self.name, **self.args)
                return timm_model
            case "transformers":
                return hugging_face.make(short, self.args)
            case "torchvision":
                model = torchvision.models.get_model(short, weights=None, **self.args)
            case "builder":
                model = find_builder(self.name)(**self.args)
        if not isinstance(model, nn.Module):
            raise SettingsError(f"expected {self.name} to return a network, got {type(model).__name__}")
        model = hugging_face.Logits(model) if hugging_face.is_pretrained(model) else model
        setattr(model, STAMP, self)
        return model

    def with_classes(self, count: int) -> "Blueprint":
        """Return the blueprint of the same network with so many outputs.

        Raises:
            SettingsError: It is of a builder that takes no ``num_classes``.
        """
        if self.kind == "transformers":
            return Blueprint(name=self.name, args={**self.args, "num_labels": count})
        if self.kind == "builder" and "num_classes" not in self.args:
            raise SettingsError(f"expected a builder that takes num_classes, to build {count} outputs, got {self.name}")
        return Blueprint(name=self.name, args={**self.args, "num_classes": count})

    def key(self) -> dict[str, Any]:
        """Return what decides the network, as plain values; of a builder also its code."""
        told = {"name": self.name, "args": dict(self.args)}
        if self.kind != "builder":
            return told
        module = inspect.getmodule(find_builder(self.name))
        code = inspect.getsource(module) if module else ""
        return told | {"code": hashlib.sha256(code.encode()).hexdigest()}


def kind_of(name: str) -> Kind:
    """Return what builds the network of a name."""
    source, colon, _ = name.partition(":")
    match source:
        case "torchvision" | "transformers":
            return source
        case _:
            return "builder" if colon else "timm"


def plan(name: str, args: Mapping[str, Any], input_size: tuple[int, ...], num_classes: int) -> Blueprint:
    """Return the blueprint of a network for inputs and classes; what `args` say comes first.

    Raises:
        SettingsError: Nothing has that name, or the network cannot be fitted so.
    """
    check_name(name)
    match kind_of(name):
        case "timm":
            fitted = resolve_model_input_args(
                name, {"input_size": as_image(input_size)}, num_classes=num_classes, **args
            )
            return Blueprint(name=fitted.pop("model_name"), args=fitted)
        case "torchvision":
            return Blueprint(name=name, args={"num_classes": num_classes, **args})
        case "transformers":
            short = name.partition(":")[2]
            return Blueprint(name=name, args=hugging_face.plan(short, args, input_size, num_classes))
        case "builder":
            told = {"num_classes": num_classes, "input_size": list(input_size)}
            takes = inspect.signature(find_builder(name)).parameters
            return Blueprint(name=name, args={key: told[key] for key in told if key in takes} | dict(args))


def as_image(input_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an input as timm wants it: a flat row is an image one pixel high."""
    return (1, 1, *input_size) if len(input_size) == 1 else input_size


def blueprint_of(model: nn.Module) -> Blueprint | None:
    """Return what a network is built from; None if it was built elsewhere, by code that we do not know."""
    stamped = getattr(model, STAMP, None)
    if isinstance(stamped, Blueprint):
        return stamped
    inner = hugging_face.bare(model)
    if hugging_face.is_pretrained(inner):
        kind = hugging_face.kind_of(inner)
        return Blueprint(name=f"transformers:{kind}", args=hugging_face.args_of(inner.config)) if kind else None
    cfg = getattr(model, "pretrained_cfg", None)
    name = cfg.get("architecture") if isinstance(cfg, dict) else None
    if isinstance(name, str) and timm.is_model(name):
        return Blueprint(name=name, args=get_model_args(model))
    return None


def find_builder(name: str) -> Callable[..., Any]:
    """Return the callable that ``package.module:name`` names, also from the working folder.

    The name must be the user's, from the command line, a settings file or Python: importing a module runs it.

    Raises:
        SettingsError: There is no such module, or nothing in it that can be called.
    """
    path, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # it stays, so that processes that train side by side find the module too
    try:
        found = getattr(importlib.import_module(path), attribute)
    except (ImportError, ValueError) as error:
        raise SettingsError(f"expected a module {path!r} that can be imported, got: {error}") from error
    except AttributeError as error:
        raise SettingsError(f"expected {attribute!r} in {path!r}, got none") from error
    if not callable(found):
        raise SettingsError(f"expected {name} to be a function that builds a network, got {type(found).__name__}")
    builder: Callable[..., Any] = found
    return builder


def known() -> list[str]:
    """Return the names of all networks of timm, and of our own."""
    return list(timm.list_models())


def check_name(name: str) -> None:
    """Refuse a name that its library does not have; nothing is imported for a builder's.

    Raises:
        SettingsError: With the nearest known one.
    """
    _, _, short = name.partition(":")
    match kind_of(name):
        case "timm":
            if not timm.is_model(name):
                raise SettingsError(f"expected a network that timm has, got {name!r}{did_you_mean(name, known())}")
        case "torchvision":
            names = list(torchvision.models.list_models(module=torchvision.models))
            if short not in names:
                hint = did_you_mean(short, names)
                raise SettingsError(f"expected an image classifier of torchvision, got {short!r}{hint}")
        case "transformers":
            hugging_face.check_kind(short)
        case "builder":
            pass
