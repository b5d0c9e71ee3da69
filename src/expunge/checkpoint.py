"""Model folders: ``model.safetensors`` and timm's ``config.json``, written whole, hashed, never a pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import nn

import expunge.networks  # noqa: F401  registers our networks with timm
from expunge.data import Data
from expunge.errors import ModelError, OutputError, did_you_mean
from expunge.files import SUMS, as_written, file_hash, settle, write_sum
from expunge.network import architecture, known

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model as it lies in a folder."""

    model: nn.Module
    label_names: tuple[str, ...]
    input_size: tuple[int, ...]
    mean: tuple[float, ...]
    """Mean per channel that inputs are normalised with; empty if they are not."""
    std: tuple[float, ...]
    about: dict[str, Any]
    """How the weights came about: ``training``, ``history`` (one entry per request), ``parent`` (a hash)."""
    hash: str
    """SHA-256 of the weights file."""

    def child(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return the `about` of a model made from this one."""
        return self.about | {"history": [*self.about.get("history", []), entry], "parent": self.hash}


def save_model(model: nn.Module, folder: Path, data: Data, about: dict[str, Any]) -> None:
    """Fill an empty folder so that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it.

    Args:
        model: A network of timm's factory.
        folder: An existing folder; that it appears whole or not at all is for the caller (``files.new_folder``).
        data: Gives label names, input size, mean and standard deviation.
        about: How the weights came about; see `Checkpoint`.

    Raises:
        ModelError: The network is not of timm's factory.
        OutputError: The disk is full.
    """
    if architecture(model) is None:
        raise ModelError(f"expected a network that timm can build again, got {type(model).__name__}")
    folder.mkdir(exist_ok=True)
    normalised = {"mean": data.mean, "std": data.std} if data.mean else {}
    try:
        save_for_hf(
            model,
            str(folder),
            safe_serialization=True,
            model_config={"label_names": list(data.label_names), "expunge": about},
            data_config={"input_size": data.input_size, **normalised},
        )
        write_sum(folder / WEIGHTS)
    except SafetensorError as error:
        raise OutputError(f"expected to write {folder / WEIGHTS}, got: {error}") from error


def load_model(path: Path) -> Checkpoint:
    """Read a model folder.

    Raises:
        ModelError: The folder or a file is missing or damaged, the architecture is unknown, or the weights do not
            fit it or are not finite.
    """
    settle(path)
    for file in (CONFIG, WEIGHTS):
        if not (path / file).is_file():
            raise ModelError(f"expected a model folder with {CONFIG} and {WEIGHTS}, got {path} without {file}")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        name, args = config["architecture"], dict(config.get("model_args", {}))
        about, names = dict(config.get("expunge", {})), tuple(config.get("label_names", ()))
        cfg = config["pretrained_cfg"]
        input_size = tuple(int(size) for size in cfg["input_size"])
        mean, std = (tuple(float(value) for value in cfg.get(name) or ()) for name in ("mean", "std"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"expected timm's {CONFIG} in {path}, got a damaged one: {error!r}") from error
    if not timm.is_model(name):
        raise ModelError(
            f"expected an architecture that timm has, got {name!r} in {path}" + did_you_mean(str(name), known())
        )
    try:
        model: nn.Module = timm.create_model(name, **args)
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"expected arguments that {name!r} takes in {path}, got: {error}") from error
    try:
        weights = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"expected a whole {WEIGHTS} in {path}, got a damaged one: {error}") from error
    load_weights(model, weights, path)
    digest = file_hash(path / WEIGHTS)
    if not as_written(path / WEIGHTS, digest):
        raise ModelError(f"expected {WEIGHTS} in {path} as it was written, got other bytes than {SUMS} there tells of")
    return Checkpoint(
        model=model,
        label_names=names,
        input_size=input_size,
        mean=mean,
        std=std,
        about=about,
        hash=digest,
    )


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
