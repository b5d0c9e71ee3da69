"""Reproduce: an experiment's settings as a TOML file that runs it again."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return plain values as TOML; None, which TOML does not have, is left out.

    Tables and lists of tables come after the other values of their table.
    """
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in values.items() if key not in tables and value is not None}
    lines = [f"[{'.'.join(map(_key, path))}]"] if path else []
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    parts = ["\n".join(lines)] if lines else []
    parts += [as_toml(value, (*path, key)) for key, value in tables.items()]
    return "\n\n".join(parts)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    match value:
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
        case Sequence():
            items = [_value(item) for item in value if item is not None]
            long = any(isinstance(item, Mapping) for item in value)
            return "[\n  " + ",\n  ".join(items) + ",\n]" if long else f"[{', '.join(items)}]"
        case _:
            return json.dumps(value)


def _text(text: str) -> str:
    """Return a basic string; what turns the direction of text, or cannot be seen, is written as its number."""
    return "".join(map(_shown, json.dumps(text, ensure_ascii=False)))


def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cs":
        return "\\ufffd"
    return f"\\U{ord(character):08x}" if kind in ("Cc", "Cf") else character
