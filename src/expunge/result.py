"""Result: settings, findings, cost, reads and environment of one run; JSON; the report's only input."""

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from expunge.errors import DataError, SettingsError
from expunge.finding import Finding

SCHEMA = 1
T = TypeVar("T")
Level = Literal["none", "L0", "L1", "L2", "L3", "L4"]
LEVELS: tuple[Level, ...] = ("L0", "L1", "L2", "L3", "L4")


INPUT_RATES = ("noise_lr", "synthesis_lr")
"""Learning rates that move made-up inputs, not weights."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is left of the answers to a few retained rows; see `expunge.guard`."""

    rows: int
    """Rows looked at, each read once for each model beside what the method has read."""
    before: float
    """Share of them that the original gets right."""
    after: float
    """Share of them that the new model gets right."""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What forgetting cost."""

    seconds: dict[str, float]
    """By stage, with ``total``, and ``retrain`` for the mean of one retraining if there was any.

    A model from the cache counts with the seconds that were measured when it was trained, perhaps on another machine.
    """
    flops: int
    """Floating-point operations of forgetting."""
    epoch_equivalents: float | None
    """The same in passes, forward and backward, over the whole training set."""
    peak_memory_bytes: int
    """The most memory in use by the process so far (on a GPU: on it)."""
    reused: int = 0
    """How many of the retrained models came from the cache."""
    events: tuple[str, ...] = ()
    """What went wrong while it forgot, a line each."""
    kept: Kept | None = None
    """None if the method may not read retained rows, or it was not looked at."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that the method made, as a PNG in base64."""

    kind: str
    label: str
    png: str


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What each model calls the rows of one class that were to be forgotten: a row of the confusion matrix.

    Counts by the index of the class named.
    """

    label: int
    """Index of the true class."""
    original: tuple[int, ...]
    unlearned: tuple[int, ...]
    retrained: tuple[float, ...]
    """Mean over the retrained models; empty without any."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where points lie, in thousandths of the farthest one's distance from the middle along either axis."""

    x: tuple[int, ...]
    y: tuple[int, ...]
    spread: float | None
    """Share of the features' variance that the two directions hold; None of a map that has none."""


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """What the head reads of the same rows in three models, each drawn in two dimensions of its own."""

    part: str
    """Which part the first points, those to be forgotten, are of; the others are of ``retain_test``."""
    forgotten: int
    """How many of the points, the first ones, are rows to be forgotten."""
    labels: tuple[int, ...]
    """Index of the class of each point."""
    original: Plane
    unlearned: Plane
    retrained: Plane | None
    """Of the first retrained model; None without one."""


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """An example image, and where each network looks to name its true class; PNGs in base64."""

    label: str
    forgotten: bool
    """Whether it is one to forget."""
    image: str
    original: str
    unlearned: str
    retrained: str | None
    """Of the first retrained model; None without one."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """What is to be looked at beside the findings."""

    part: str
    """Which rows to be forgotten the answers are to."""
    answers: tuple[Answers, ...]
    features: FeatureMap | None
    """None where a model gives no features, or too few rows are there."""
    neighbours: FeatureMap | None = None
    """The same rows by UMAP, if that was asked for."""
    overlays: tuple[Overlay, ...] = ()
    """Grad-CAM on example images, if that was asked for."""
    left_out: tuple[str, ...] = ()
    """What was asked for and could not be drawn, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Which weights a model has."""

    sha256: str
    """In hexadecimal."""
    of: Literal["file", "tensors"]
    """``file``: the bytes of ``model.safetensors``, as `sha256sum` gives it. ``tensors``: a model in memory, by name,
    type, shape and values of all tensors in the order of names; see `fingerprints.tensors_hash`."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a result is about, so that it cannot be taken for one of other models or data."""

    judged: str = field(compare=False)
    """When: date and time in UTC, ISO 8601. Of two results that are equal, one may be of another day."""
    original: Weights
    unlearned: Weights
    retrained: tuple[Weights, ...]
    given: int
    """How many of the retrained models, the first ones, were supplied; the others were trained for this result."""
    data: dict[str, str]
    """SHA-256 of each half, ``train`` and ``test``: all labels and up to 1000 inputs; see `fingerprints.glance`."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What forgetting leaves beside the model that it made, for the audit to quote: ``forget.json``."""

    experiment: dict[str, Any]
    """Request, method and seed."""
    cost: Bill
    access: dict[str, dict[str, int]]
    images: tuple[Picture, ...]

    def to_json(self) -> str:
        """Return the record as JSON; every number is finite."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run, whole. `to_json` and `from_json` are exact inverses."""

    experiment: dict[str, Any]
    """Data set, network, request, method, training, audits, number of references, seed."""
    label_names: tuple[str, ...]
    rows: dict[str, int]
    """Number of rows of each part."""
    findings: tuple[Finding, ...]
    cost: Bill | None
    """None if the unlearned model was made elsewhere."""
    access: dict[str, dict[str, int]] | None
    """``rows`` (distinct) and ``reads`` of each part by the method; None if the unlearned model was made elsewhere."""
    level: Level
    images: tuple[Picture, ...]
    environment: dict[str, str]
    views: Views | None = None
    """None in a result of an earlier version."""
    subject: Subject | None = None
    """None in a result of an earlier version."""
    doubts: tuple[str, ...] = ()
    """What speaks against the retrained models' being such, a line each."""
    schema: Literal[1] = 1

    def to_json(self) -> str:
        """Return the result as JSON; every number is finite."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"


def from_json(kind: type[T], text: str, source: str) -> T:
    """Return the Result or Record that a JSON text holds.

    Raises:
        DataError: The text is none of this schema.
    """
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"expected a {kind.__name__} of schema {SCHEMA} in {source}, got {where}: {first['msg']}"
        ) from None


def findings_to_json(findings: Sequence[Finding]) -> str:
    """Return findings as JSON; every number is finite."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], allow_nan=False)


def findings_from_json(text: str) -> list[Finding]:
    """Return the findings that a text of `findings_to_json` holds."""
    return TypeAdapter(list[Finding]).validate_json(text, strict=True)


def read(kind: type[T], path: Path) -> T:
    """Return the Result or Record in a file.

    Raises:
        DataError: The file is missing or holds none.
    """
    try:
        return from_json(kind, path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a {kind.__name__} in a file, got {path}: {error}") from error


def reached(findings: Sequence[Finding]) -> Level:
    """Return the highest level whose findings, and those of all levels below, are all inside their bands.

    A level without findings, or with one that could not be judged, is not reached; nor is one where every band holds
    the original too, so that doing nothing would pass.
    """
    level: Level = "none"
    for number, name in enumerate(LEVELS):
        judged = [finding for finding in findings if finding.level == number]
        if not all(finding.inside for finding in judged) or all(finding.informative is False for finding in judged):
            break
        level = name
    return level


def meets(level: Level, required: str) -> bool:
    """Return whether a level is at least the required one.

    Raises:
        SettingsError: The required level is none of L0 to L4.
    """
    if required not in LEVELS:
        raise SettingsError(f"expected a level {', '.join(LEVELS)}, got {required!r}")
    return level != "none" and LEVELS.index(level) >= LEVELS.index(required)


def to_lower(method: Mapping[str, Any]) -> str | None:
    """Return the setting of a method to lower if it did too much, as ``--set`` takes it; None if it has none.

    It is the first learning rate that moves the original's weights: that of the stage that forgets. How networks are
    trained from scratch (``training``) is no such setting.

    Args:
        method: Name and settings, as a result has them.
    """
    for name, value in method.items():
        if moves_weights(name):
            return name
        if isinstance(value, Mapping) and name != "training":
            inner = to_lower(value)
            if inner is not None:
                return f"{name}.{inner}"
    return None


def moves_weights(name: str) -> bool:
    """Return whether a setting is a learning rate of the original's weights."""
    return (name == "lr" or name.endswith("_lr")) and name not in INPUT_RATES


def environment(device: str) -> dict[str, str]:
    """Return what the run ran on: versions, Python, machine."""
    packages = ("expunge", "torch", "timm", "numpy", "lightning-fabric")
    return {package: version(package) for package in packages} | {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
    }
