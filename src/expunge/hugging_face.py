"""Hugging Face: image classifiers of transformers, seen as networks from inputs to logits.

The library is imported when such a network is asked for, and not before.
"""

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from expunge.errors import ModelError, SettingsError, did_you_mean, expecting

NO_ARGS = (
    "_name_or_path", "dtype", "encoding", "expunge", "id2label", "label2id", "model_type", "pretrained_cfg",
    "torch_dtype", "transformers_version",
)  # fmt: skip
"""What a configuration says of other things than the network: labels, versions, and what we add."""
WRAPPERS = frozenset({"timm_wrapper"})
"""Kinds of models that are built, or loaded, by another library."""


class Logits(nn.Module):
    """A network whose output is an object with logits, seen as one whose output they are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.model(inputs).logits
        return logits


def bare(model: nn.Module) -> nn.Module:
    """Return the network as its library knows it."""
    return model.model if isinstance(model, Logits) else model


def is_pretrained(model: nn.Module) -> bool:
    """Return whether a network is one of transformers; the library is not imported to find out."""
    library = sys.modules.get("transformers.modeling_utils")  # which none of its models does without
    return library is not None and isinstance(model, library.PreTrainedModel)


def check_kind(kind: str) -> None:
    """Refuse what is no kind of image classifier, such as ``vit`` is.

    Raises:
        SettingsError: With the nearest known one; or transformers is not installed.
    """
    kinds = set(_classes()) - WRAPPERS
    if kind not in kinds:
        raise SettingsError(f"expected an image classifier of transformers, got {kind!r}{did_you_mean(kind, kinds)}")


def plan(kind: str, args: Mapping[str, Any], input_size: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    """Return the whole configuration of a network for inputs and classes; what `args` say comes first.

    Raises:
        SettingsError: There is no such kind, or it does not take these arguments.
    """
    known = _config(kind, {}).to_dict()
    fitting: dict[str, Any] = {}
    if len(input_size) == 3:
        channels, *sides = input_size
        fitting = {"num_channels": channels, "image_size": sides[0] if sides[0] == sides[1] else sides}
        fitting = {key: value for key, value in fitting.items() if key in known}
    return args_of(_config(kind, {**fitting, **args, "num_labels": num_classes}))


def make(kind: str, args: Mapping[str, Any]) -> Logits:
    """Return a network with fresh weights from torch's global generator.

    Raises:
        SettingsError: There is no such kind, or it does not take these arguments.
    """
    config = _config(kind, args)
    return Logits(_class(config)(config))


def kind_of(model: nn.Module) -> str | None:
    """Return the kind that `make` makes such a network from; None for a class of the user's own."""
    kind: str = bare(model).config.model_type  # type: ignore[union-attr, assignment]
    return kind if is_pretrained(bare(model)) and type(bare(model)).__name__ in _classes().get(kind, ()) else None


def args_of(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values, without labels, versions and names."""
    told: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    plain = {key: value for key, value in told.items() if key not in NO_ARGS}
    return plain | {"num_labels": config.num_labels}


def args_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same of a ``config.json``."""
    labels = {"num_labels": len(config["id2label"])} if config.get("id2label") else {}
    return {key: value for key, value in config.items() if key not in NO_ARGS} | labels


def label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names in a ``config.json``; none where they are numbered."""
    found = {int(index): str(name) for index, name in config.get("id2label", {}).items()}
    if sorted(found) != list(range(len(found))) or all(name == f"LABEL_{index}" for index, name in found.items()):
        return ()
    return tuple(found[index] for index in range(len(found)))


def save(model: nn.Module, folder: Path, names: tuple[str, ...], about: Mapping[str, Any]) -> None:
    """Fill a folder that ``AutoModelForImageClassification.from_pretrained`` loads.

    Args:
        model: The network.
        folder: An existing folder.
        names: Of the classes.
        about: Further keys for ``config.json``, which the library passes over.
    """
    with _quiet():
        bare(model).save_pretrained(folder)  # type: ignore[operator]
    file = folder / "config.json"
    labels = {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }
    config = json.loads(file.read_text(encoding="utf-8")) | labels | about
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(kind: str, args: Mapping[str, Any], weights: dict[str, Tensor], source: Path) -> Logits:
    """Return a network with weights as its library stores them: names of older versions are brought to the present.

    Raises:
        ModelError: Weights are missing or of another shape.
        SettingsError: There is no such kind, or it does not take these arguments.
    """
    config = _config(kind, args)
    try:
        with _quiet():
            model, told = _class(config).from_pretrained(
                None, config=config, state_dict=weights, dtype="float32", output_loading_info=True
            )
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"expected weights of a {kind} in {source}, got others: {error}") from error
    missing = sorted(told["missing_keys"]) + sorted(str(key) for key in told["mismatched_keys"])
    if missing:
        raise ModelError(f"expected weights of a {kind} in {source}, got none for {missing[0]!r}")
    return Logits(model)


def _config(kind: str, args: Mapping[str, Any]) -> Any:
    check_kind(kind)
    with expecting(f"expected arguments that transformers:{kind} takes", SettingsError):
        config = _library().AutoConfig.for_model(kind, **args)
    named = [name for name in config.architectures or () if name in _classes()[kind]]
    config.architectures = named or list(_classes()[kind][:1])
    return config


def _class(config: Any) -> Any:
    return getattr(_library(), config.architectures[0])


def _classes() -> dict[str, tuple[str, ...]]:
    _library()
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    named = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    return {kind: (found,) if isinstance(found, str) else tuple(found) for kind, found in named.items()}


def _library() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise SettingsError(
            f"expected the package transformers for its networks, got: {error}: pip install 'expunge[transformers]'"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bars off the terminal."""
    logging = _library().utils.logging
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
