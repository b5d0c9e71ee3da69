"""Settings: frozen dataclasses that check themselves, and their way from and to TOML, JSON and the command line."""

import dataclasses
import functools
import importlib
import importlib.metadata
import json
import pkgutil
import sys
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_type_hints

import pydantic
from pydantic import TypeAdapter, ValidationError

from expunge.errors import SettingsError, did_you_mean, expecting

Kind = Literal["methods", "audits", "corruptions", "datasets", "networks"]
T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass whose fields are checked when it is made.

    Raises (on construction):
        SettingsError: ``"expected noise_lr > 0, got -1"``.
    """
    config = pydantic.ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
    checked: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=True, config=config)
    validate = checked.__init__

    @functools.wraps(validate)
    def init(self: T, **values: Any) -> None:
        try:
            validate(self, **values)
        except ValidationError as error:
            raise SettingsError(_explain(error, cls)) from None

    checked.__init__ = init
    return checked  # type: ignore[no-any-return]


def from_mapping(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return settings made from plain values, as they stand in TOML or JSON.

    Raises:
        SettingsError: A name is unknown ("did you mean"), or a value is of the wrong type or out of range.
    """
    try:
        return TypeAdapter(cls).validate_json(json.dumps(values, allow_nan=False))
    except ValidationError as error:
        raise SettingsError(_explain(error, cls)) from None
    except (TypeError, ValueError) as error:
        raise SettingsError(f"expected plain finite values for {cls.__name__}, got {error}") from None


def to_mapping(value: Any) -> dict[str, Any]:
    """Return settings as plain values that JSON and TOML can hold."""
    mapping: dict[str, Any] = TypeAdapter(type(value)).dump_python(value, mode="json")
    return mapping


def names(kind: Kind) -> list[str]:
    """Return the command-line names of all methods, audits, corruptions, data sets or networks."""
    package = importlib.import_module(f"expunge.{kind}")
    own = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
    return sorted(own | {point.name for point in importlib.metadata.entry_points(group=f"expunge.{kind}")})


def find(kind: Kind, name: str) -> type[Any]:
    """Return the class of a method, audit, corruption or data set by its name.

    Args:
        kind: The folder to look in.
        name: ``unsir``; or a dotted path to a module outside the package, ``mypackage.mine``, which must hold a
            class named after its last part, ``Mine``.

    Raises:
        SettingsError: Nothing has that name.
    """
    if "." in name:
        path = name
    elif name in {point.name for point in importlib.metadata.entry_points(group=f"expunge.{kind}")}:
        path = importlib.metadata.entry_points(group=f"expunge.{kind}")[name].value
    elif name in names(kind):
        path = f"expunge.{kind}.{name}"
    else:
        raise SettingsError(f"expected one of the {kind}, got {name!r}{did_you_mean(name, names(kind))}")
    class_name = "".join(word.capitalize() for word in path.rsplit(".", 1)[-1].split("_"))
    try:
        found = getattr(importlib.import_module(path), class_name)
    except (ImportError, TypeError, ValueError) as error:  # the latter for names such as "." and ""
        near = get_close_matches(path, _beside(path), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SettingsError(f"expected a module {path!r} that can be imported, got: {error}{hint}") from error
    except AttributeError as error:
        raise SettingsError(f"expected a class {class_name} in {path!r}, got none") from error
    if not dataclasses.is_dataclass(found):
        raise SettingsError(f"expected {path}.{class_name} to be a dataclass of settings")
    assert isinstance(found, type)  # noqa: S101
    return found


def _beside(path: str) -> list[str]:
    """Return the modules of the package that a dotted path names, if that package could be imported."""
    package = path.rpartition(".")[0]
    places = vars(sys.modules[package]).get("__path__", ()) if package in sys.modules else ()
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(places)]


def build(kind: Kind, values: Mapping[str, Any]) -> Any:
    """Return a method, audit, corruption or data set from name and settings, ``{"name": "unsir", "impair_lr": 0.02}``.

    Raises:
        SettingsError: The name is missing or unknown, or a setting is wrong.
    """
    if not isinstance(values.get("name"), str):
        raise SettingsError(f"expected a name for one of the {kind}, got {dict(values)}")
    return from_mapping(find(kind, values["name"]), {key: value for key, value in values.items() if key != "name"})


def describe(value: Any) -> dict[str, Any]:
    """Return the name and settings of a method, audit, corruption or data set: what `build` makes it from again."""
    module = type(value).__module__
    own = module.startswith("expunge.")
    return {"name": module.rsplit(".", 1)[-1] if own else module} | to_mapping(value)


def from_toml(text: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises:
        SettingsError: The text is not TOML.
    """
    with expecting("expected TOML", SettingsError):
        return tomllib.loads(text)


def from_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Return nested values from ``key=value`` words; dots nest, values are spelt as in TOML, bare words are text.

    Raises:
        SettingsError: A word has no ``=``, or one key stands both for a value and for a table.
    """
    values: dict[str, Any] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise SettingsError(f"expected key=value, got {word!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except RecursionError:
            raise SettingsError(f"expected a value that is not nested so deep, got {word[:60]!r}...") from None
        except ValueError:  # no TOML, or a number of thousands of digits
            value = text
        *path, last = key.split(".")
        table = values
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise SettingsError(f"expected {part} to be a table or a value, got both in {word!r}")
        table[last] = value
    return values


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with changes laid over them, table by table."""
    merged = dict(values)
    for key, change in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, change) if isinstance(old, Mapping) and isinstance(change, Mapping) else change
    return merged


def sort_out(values: Mapping[str, Any], *, home: str | None, tables: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return one table of settings per object: bare keys belong to `home`, ``table.key`` to that table.

    Raises:
        SettingsError: A bare key where there is no home, or a value where a table is meant.
    """
    sorted_out: dict[str, dict[str, Any]] = {name: {} for name in (*tables, *([home] if home else []))}
    for key, value in values.items():
        if key in sorted_out:
            if not isinstance(value, Mapping):
                raise SettingsError(f"expected {key}.KEY=VALUE, got {key}={value!r}")
            sorted_out[key] |= value
        elif home is None:
            raise SettingsError(f"expected {' or '.join(f'{table}.KEY' for table in tables)}=VALUE, got {key!r}")
        else:
            sorted_out[home][key] = value
    return sorted_out


def read_text(path: Path) -> str:
    """Return the text of a settings file.

    Raises:
        SettingsError: The file is missing or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"expected a settings file, got {path}: {error}") from error


def as_kind(word: str) -> Kind:
    """Return a word as a kind.

    Raises:
        SettingsError: It is none.
    """
    for kind in get_args(Kind):
        if word == kind:
            return kind  # type: ignore[no-any-return]
    raise SettingsError(
        f"expected methods, audits, corruptions, datasets or networks, got {word!r}{did_you_mean(word, get_args(Kind))}"
    )


_BOUNDS = {
    "greater_than": ("> ", "gt"),
    "greater_than_equal": (">= ", "ge"),
    "less_than": ("< ", "lt"),
    "less_than_equal": ("<= ", "le"),
}


def _explain(error: ValidationError, cls: type[Any]) -> str:
    """Return the first error as one line: what was expected, what came."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        *tables, last = first["loc"]
        for table in tables:
            cls = get_type_hints(cls).get(str(table), object)
        known = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
        hint = did_you_mean(str(last), known) if known else ""
        return f"expected a setting of {cls.__name__}, got {name!r}{hint}"
    if first["type"] in _BOUNDS:
        sign, bound = _BOUNDS[first["type"]]
        return f"expected {name} {sign}{first['ctx'][bound]:g}, got {first['input']!r}"
    wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"expected {name} to be {wanted}, got {first['input']!r}"
