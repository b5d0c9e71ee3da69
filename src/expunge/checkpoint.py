"""Model folders: ``model.safetensors`` and timm's ``config.json``, written whole, hashed, never a pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import save_config_for_hf
from torch import nn

import expunge.networks  # noqa: F401  registers our networks with timm
from expunge.data import Data
from expunge.errors import ModelError, did_you_mean
from expunge.files import file_hash, new_folder
from expunge.network import known

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model as it lies in a folder."""

    model: nn.Module
    label_names: tuple[str, ...]
    history: tuple[dict[str, Any], ...]
    """What was done to the weights since training began: one entry per request."""
    hash: str
    """SHA-256 of the weights file."""


def save_model(
    model: nn.Module,
    path: Path,
    data: Data,
    *,
    parent: Checkpoint | None = None,
    entry: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model folder that ``timm.create_model("local-dir:PATH", pretrained=True)`` loads.

    Args:
        model: A network of timm's factory.
        path: The folder to make.
        data: Gives label names, input size, mean and standard deviation.
        parent: The model that this one was made from.
        entry: What was done to the parent: joins its history.
        overwrite: Replace what is there.

    Raises:
        ModelError: The network is not of timm's factory.
        OutputError: The folder cannot be written or is not empty.
    """
    if "architecture" not in (getattr(model, "pretrained_cfg", None) or {}):
        raise ModelError(f"expected a network that timm can build again, got {type(model).__name__}")
    history = (*parent.history, entry) if parent and entry else ()
    extra = {
        "label_names": list(data.label_names),
        "expunge": {"history": list(history), "parent": parent.hash if parent else None},
    }
    normalised = {"mean": data.mean, "std": data.std} if data.mean else {}
    with new_folder(path, overwrite=overwrite) as folder:
        save_file({name: value.contiguous().cpu() for name, value in model.state_dict().items()}, folder / WEIGHTS)
        save_config_for_hf(
            model,
            str(folder / CONFIG),
            model_config=extra,
            data_config={"input_size": data.input_size, **normalised},
        )


def load_model(path: Path) -> Checkpoint:
    """Read a model folder.

    Raises:
        ModelError: The folder or a file is missing or damaged, the architecture is unknown, or the weights do not
            fit it or are not finite.
    """
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise ModelError(f"expected a model folder with {CONFIG} and {WEIGHTS}, got {path} without {name}")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        architecture, args = config["architecture"], dict(config.get("model_args", {}))
        extra = config.get("expunge", {"history": [], "parent": None})
        history, names = tuple(extra["history"]), tuple(config.get("label_names", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"expected timm's {CONFIG} in {path}, got a damaged one: {error!r}") from error
    if not timm.is_model(architecture):
        raise ModelError(
            f"expected an architecture that timm has, got {architecture!r} in {path}"
            + did_you_mean(str(architecture), known())
        )
    try:
        model: nn.Module = timm.create_model(architecture, **args)
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"expected arguments that {architecture!r} takes in {path}, got: {error}") from error
    try:
        weights = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"expected a whole {WEIGHTS} in {path}, got a damaged one: {error}") from error
    load_weights(model, weights, path)
    return Checkpoint(model=model, label_names=names, history=history, hash=file_hash(path / WEIGHTS))


def load_weights(model: nn.Module, weights: dict[str, Any], source: Path) -> None:
    """Put weights into a model, all of them and no others.

    Raises:
        ModelError: A name or shape does not fit, or a weight is not finite.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    came = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(wanted.keys() | came.keys()):
        if wanted.get(name) != came.get(name):
            raise ModelError(
                f"expected weights of shape {wanted.get(name, 'none')} for {name!r} in {source}, "
                f"got {came.get(name, 'none')}"
            )
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ModelError(f"expected finite weights, got NaN or infinity in {name!r} of {source}")
    model.load_state_dict(weights)
