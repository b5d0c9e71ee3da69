"""Catalogue: what `expunge list` says of methods, audits, corruptions, data sets, networks, read from their files."""

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from expunge.settings import Kind, find, names


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a method, audit, corruption or data set."""

    name: str
    type: str
    default: Any
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One method, audit, corruption, data set or network."""

    name: str
    summary: str
    """One sentence."""
    about: str
    """The whole docstring of its file."""
    links: tuple[str, ...]
    reads: tuple[str, ...] | None
    """Parts that a method reads; None for what is no method."""
    settings: tuple[Setting, ...]


def entries(kind: Kind) -> list[Entry]:
    """Return all of a kind that the package and its plug-ins have; of networks, our own."""
    return [entry(kind, name) for name in names(kind)]


def entry(kind: Kind, name: str) -> Entry:
    """Return one of a kind by its name.

    Raises:
        SettingsError: Nothing has that name.
    """
    if kind == "networks":
        return _network(name)
    cls = find(kind, name)
    about = inspect.getdoc(sys.modules[cls.__module__]) or ""
    return Entry(
        name=name,
        summary=_summary(about, name),
        about=about,
        links=_links(about),
        reads=tuple(sorted(cls.reads)) if kind == "methods" else None,
        settings=_settings(cls),
    )


def _network(name: str) -> Entry:
    from expunge.blueprint import check_name, kind_of  # timm takes seconds to import, and only networks need it

    check_name(name)
    module = sys.modules.get(f"expunge.networks.{name}")
    maker = "your own code" if kind_of(name) == "builder" else kind_of(name)
    about = inspect.getdoc(module) if module else f"{name}: a network of {maker}."
    return Entry(
        name=name,
        summary=_summary(about or "", name),
        about=about or "",
        links=_links(about or ""),
        reads=None,
        settings=(),
    )


def _settings(cls: type[Any]) -> tuple[Setting, ...]:
    described: dict[str, Any] = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):  # each knows the meaning of its own fields
        told = TypeAdapter(base).json_schema().get("properties", {})
        described |= {name: field for name, field in told.items() if "description" in field}
    return tuple(
        Setting(
            name=field.name,
            type=_type_name(field.type),
            default=TypeAdapter(object).dump_python(getattr(cls(), field.name), mode="json"),
            meaning=" ".join(str(described.get(field.name, {}).get("description", "")).split()),
        )
        for field in dataclasses.fields(cls)
    )


def _type_name(annotation: Any) -> str:
    text = getattr(annotation, "__name__", None) or str(annotation)
    if text == "Annotated" or text.startswith("typing.Annotated"):
        inner, bounds = annotation.__args__[0], annotation.__metadata__
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        conditions = [
            f"{sign} {getattr(bound, key)}" for bound in bounds for key, sign in signs.items() if hasattr(bound, key)
        ]
        return f"{inner.__name__} {', '.join(conditions)}"
    if text == "Literal" or text.startswith("typing.Literal"):
        return " | ".join(str(choice) for choice in annotation.__args__)
    return text


def _summary(about: str, name: str) -> str:
    first = about.split("\n\n", 1)[0]
    return " ".join(first.split()).removeprefix(f"{name}: ")


def _links(about: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(link.rstrip(".,:;)") for link in re.findall(r"https://\S+", about)))
