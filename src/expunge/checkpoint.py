"""Model folders: ``model.safetensors`` and ``config.json``, as timm or transformers loads them; written whole, hashed.

Networks of transformers are kept in its format, all others in timm's. A network of timm is then loaded by
``timm.create_model("local-dir:FOLDER", pretrained=True)``, one of transformers by its ``from_pretrained``. For others
``architecture`` names what `expunge.blueprint` builds them by. If that is code of the user's, the folder is loaded only
where the user names the same code: a folder may come from a stranger.
"""

import copy
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from expunge import hugging_face
from expunge.blueprint import Blueprint, as_image, blueprint_of
from expunge.data import Data, Scaling
from expunge.errors import ModelError, OutputError, SettingsError, expecting
from expunge.files import SUMS, as_written, file_hash, settle, write_sum
from expunge.model_files import (
    CONFIG,
    PROCESSOR,
    STATISTICS,
    WEIGHTS,
    Shapes,
    check_args,
    check_finite,
    check_fits,
    check_whole,
    find_folder,
    load_weights,
    read_halves,
    read_json,
    read_shapes,
    read_weights,
)
from expunge.precision import Precisions, in_precisions


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the ``config.json`` of a model folder says."""

    blueprint: Blueprint
    label_names: tuple[str, ...]
    """Empty if they are not known."""
    input_size: tuple[int, ...]
    """Shape of one input; empty if it is not known."""
    mean: tuple[float, ...]
    """Mean per channel that inputs are normalised with; empty if they are not."""
    std: tuple[float, ...]
    scaling: Scaling
    """How images are brought to the size of an input."""
    encoding: dict[str, Any]
    """How rows become inputs, where the training rows decided it; see `datasets.Encoded`."""
    about: dict[str, Any]
    """How the weights came about: ``training``, ``history`` (one entry per request), ``parent`` (a hash)."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """What the model was made to forget, an entry per request, the first one first; see `expunge.history`.

        Raises:
            ModelError: It is no list of entries.
        """
        history = self.about.get("history", [])
        if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
            raise ModelError(f"expected a model's history of requests as a list of tables, got {str(history)[:60]!r}")
        return history


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Config):
    """A model as it lies in a folder."""

    model: nn.Module
    """In single precision."""
    folder: Path
    """Where it lies."""
    hash: str
    """SHA-256 of the weights file."""
    halves: Precisions
    """Tensors that the file has in half precision."""

    def child(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return the `about` of a model made from this one."""
        return self.about | {"history": [*self.history, entry], "parent": self.hash}

    def statistics(self) -> dict[str, Tensor]:
        """Return what the method of the last request has kept for the next; nothing if it kept nothing.

        Raises:
            ModelError: The file is damaged, or holds numbers that are not finite.
        """
        file = self.folder / STATISTICS
        if not file.is_file():
            return {}
        check_written(file)
        found = read_weights(file)
        check_finite(found, file)
        return found

    def as_stored(self) -> nn.Module:
        """Return the model in the precision of its file: a copy, where that is half.

        It need not answer: what works in a file, such as one layer alone in single precision, may not in PyTorch.
        """
        if not self.halves:
            return self.model
        stored = copy.deepcopy(self.model)
        in_precisions(hugging_face.bare(stored), self.halves)
        return stored


def save_model(
    model: nn.Module,
    folder: Path,
    data: Data,
    about: dict[str, Any],
    *,
    dropped: Collection[int] = (),
    statistics: Mapping[str, Tensor] | None = None,
) -> None:
    """Fill a folder with a model.

    Args:
        model: A network whose blueprint is known.
        folder: It is made if it is not there; that it appears whole or not at all is for the caller
            (``files.new_folder``).
        data: Gives label names, input size, mean, standard deviation and scaling.
        about: How the weights came about; see `Config`.
        dropped: Classes of the data that the model has no output of.
        statistics: What a method keeps for the model's next request.

    Raises:
        ModelError: It is not known what the network is built from, or its weights share memory.
        OutputError: The disk is full.
    """
    blueprint = blueprint_of(model)
    if blueprint is None:
        raise ModelError(f"expected a network whose name and arguments are known, got {type(model).__name__}")
    folder.mkdir(exist_ok=True)
    size = as_image(data.input_size)
    mean, std = data.mean or (0.0,) * size[0], data.std or (1.0,) * size[0]  # where none is told, timm tells its own
    inputs = {"input_size": size, "mean": mean, "std": std, **asdict(data.scaling)}
    told = {
        "label_names": [name for index, name in enumerate(data.label_names) if index not in dropped],
        "input_size": list(data.input_size),
        "encoding": dict(data.encoding),
        "expunge": about,
    }
    try:
        _write(model, blueprint, folder, told, inputs)
        write_sum(folder / WEIGHTS)
        if statistics:
            save_file({name: value.contiguous() for name, value in statistics.items()}, folder / STATISTICS)
            write_sum(folder / STATISTICS)
    except SafetensorError as error:
        raise OutputError(f"expected to write into {folder}, got: {error}") from error


def _write(model: nn.Module, blueprint: Blueprint, folder: Path, told: dict[str, Any], inputs: dict[str, Any]) -> None:
    match blueprint.kind:
        case "timm":
            save_for_hf(model, str(folder), safe_serialization=True, model_config=told, data_config=inputs)
        case "transformers":
            hugging_face.save(
                model,
                folder,
                tuple(told["label_names"]),
                {"pretrained_cfg": inputs, "encoding": told["encoding"], "expunge": told["expunge"]},
            )
        case "torchvision" | "builder":
            _save_weights(model, folder / WEIGHTS)
            known = {"architecture": blueprint.name, "model_args": dict(blueprint.args)}
            config = known | {"num_classes": len(told["label_names"]), "pretrained_cfg": inputs, **told}
            (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_weights(model: nn.Module, file: Path) -> None:
    weights = {name: value.contiguous() for name, value in hugging_face.bare(model).state_dict().items()}
    try:
        save_file(weights, file)
    except RuntimeError as error:
        raise ModelError(f"expected weights that each have memory of their own, got: {error}") from error


def load_model(place: Path | str, *, builder: str | None = None) -> Checkpoint:
    """Read a model folder.

    Args:
        place: A path, or the name of a model of the hub; see `model_files.find_folder`.
        builder: ``package.module:name`` of the user's own code, if the folder's network is built by it.

    Raises:
        ModelError: The folder or a file is missing or damaged, the network is unknown, larger than its weights, built
            by code that the user has not named, or the weights do not fit it or are not finite.
    """
    settle(Path(place))
    path = find_folder(str(place))
    check_whole(path)
    config = read_config(path)
    _check_named(config.blueprint, builder, path)
    model = _with_weights(config.blueprint, read_shapes(path / WEIGHTS), path)
    digest = check_written(path / WEIGHTS)
    return Checkpoint(**vars(config), model=model, folder=path, hash=digest, halves=read_halves(path / WEIGHTS))


def check_written(file: Path) -> str:
    """Return the SHA-256 of a file in a model folder.

    Raises:
        ModelError: It is another than the folder tells of.
    """
    digest = file_hash(file)
    if not as_written(file, digest):
        told = f"got other bytes than {SUMS} there tells of"
        raise ModelError(f"expected {file.name} in {file.parent} as it was written, {told}")
    return digest


def read_config(path: Path) -> Config:
    """Read the configuration of a model folder; nothing that it names is imported or built.

    Raises:
        ModelError: It is damaged.
    """
    if not (path / CONFIG).is_file():
        raise ModelError(f"expected a model folder with {CONFIG} and {WEIGHTS}, got {path} without {CONFIG}")
    config = read_json(path / CONFIG)
    try:
        cfg = dict(config.get("pretrained_cfg") or {})
        if "architecture" not in config and "model_type" in config:
            blueprint = Blueprint(name=f"transformers:{config['model_type']}", args=hugging_face.args_in(config))
            names, cfg = hugging_face.label_names(config), cfg or _prepared(path, config)
            input_size = cfg.get("input_size") or ()
        else:
            classes = {"num_classes": config["num_classes"]} if "num_classes" in config else {}
            args = {**classes, **config.get("model_args", {})}
            if ":" in config["architecture"]:
                args = dict(config.get("model_args", {}))
            blueprint = Blueprint(name=str(config["architecture"]), args=args)
            names = tuple(map(str, config.get("label_names") or cfg.get("label_names") or ()))
            input_size = config.get("input_size") or cfg["input_size"]
        return Config(
            blueprint=blueprint,
            label_names=names,
            input_size=tuple(int(size) for size in input_size),
            mean=tuple(float(value) for value in cfg.get("mean") or ()),
            std=tuple(float(value) for value in cfg.get("std") or ()),
            scaling=Scaling(**{field.name: cfg[field.name] for field in fields(Scaling) if field.name in cfg}),
            encoding=dict(config.get("encoding", {})),
            about=dict(config.get("expunge", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"expected a model's {CONFIG} in {path}, got a damaged one: {error!r}") from error


def _prepared(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a folder of transformers says of its inputs."""
    told = read_json(path / PROCESSOR) if (path / PROCESSOR).is_file() else {}
    size = told.get("crop_size") or told.get("size") or config.get("image_size")
    if isinstance(size, Mapping):
        size = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    known = None not in sides and "num_channels" in config
    return {
        "input_size": [config["num_channels"], *sides] if known else [],
        "mean": told.get("image_mean"),
        "std": told.get("image_std"),
    }


def _check_named(blueprint: Blueprint, builder: str | None, path: Path) -> None:
    if blueprint.kind == "builder" and blueprint.name != builder:
        named = "no code was named" if builder is None else f"{builder} was named"
        raise ModelError(
            f"expected a network built by a library, got one that {path} wants code for, {blueprint.name!r}, where "
            f"{named}: if that is your own code, name it with --network"
        )


def _with_weights(blueprint: Blueprint, shapes: Shapes, path: Path) -> nn.Module:
    """Return the network of a folder with its weights, built only if it is as large as they are."""
    renamed = blueprint.kind == "transformers"
    check_args(blueprint.args, shapes, path)
    try:
        with expecting(f"expected arguments that {blueprint.name!r} takes in {path}", ModelError):
            check_fits(lambda: hugging_face.bare(blueprint.build()), shapes, path, named_alike=not renamed)
            if renamed:
                model: nn.Module = hugging_face.load(
                    blueprint.name.partition(":")[2], blueprint.args, read_weights(path / WEIGHTS), path
                )
                check_finite(model.state_dict(), path)
                return model
            model = blueprint.build()
    except SettingsError as error:
        raise ModelError(f"{error}, in {path}") from error
    load_weights(hugging_face.bare(model), read_weights(path / WEIGHTS), path)
    return model
