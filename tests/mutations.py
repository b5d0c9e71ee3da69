"""Mutations: bytes, text and JSON made hostile, as a seeded generator chooses."""

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

WORDS = (
    "", " ", "\0", "-", "--", "--help", ".", "..", "../../escaped", "/etc/passwd", "a/../../b", "nul\0byte",
    "line\nline", "carriage\rreturn", "\x1b[2J\x1b]0;title\x07", "\u202egnp.exe", "\ud800", "\udcff",
    "\ufeff", "é" * 50, "🙂", "a" * 300, "b" * 20_000, "<script>alert(1)</script>", "[bold red]x[/]",
    "{{7*7}}", "${HOME}", "%s%n", "$(touch escaped)", "'; drop table", "nan", "inf", "-inf", "1e999", "1_0",
    "٣", "²", "0x10", "-0", "9" * 5000, "None", "true", "#1", "#", "a,b,,c", "1,1", "a.b.c", "no_such.module",
    "torchvision:no", "transformers:no", "local-dir:.", "hf-hub:a/b", "C:\\x", "con", "~", "~nobody/x", "*",
    "?[", "x=y=z", "[", "{", '"', "[" * 5000, "{a=" * 3000,
)  # fmt: skip
"""Text that has broken programs before."""
NUMBERS = (
    0, -1, 1, 2, 3, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30,
    10**400, 0.5, -0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
"""Numbers at and beyond the ends of their types."""
TOKENS = (
    b"\0", b"\xff" * 8, b"\x80\x04\x95", b"cos\nsystem\n", b"\r\n", b"\xef\xbb\xbf", b"../", b"NaN", b"Infinity",
    b"1e999", b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b"\x1b[2J", b"PK\x03\x04", b"PAR1", b"\x93NUMPY\x01\x00",
    b",,,", b'"',
)  # fmt: skip
"""Bytes that mean something to one parser or another."""


def word(chance: Random) -> str:
    """Return hostile text."""
    return chance.choice(WORDS)


def value(chance: Random, depth: int = 0) -> Any:
    """Return a hostile value that JSON or TOML may hold."""
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return chance.choice(NUMBERS)
    if kind < 4:
        return word(chance)
    if kind == 4:
        return chance.choice([None, True, False])
    if kind == 5:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 6:
        return {word(chance): value(chance, depth + 1) for _ in range(chance.randrange(3))}
    return nested(chance.choice([3, 30, 200]), chance.choice([[], 1, "x"]))


def nested(depth: int, inner: Any) -> Any:
    """Return a value inside so many lists."""
    for _ in range(depth):
        inner = [inner]
    return inner


def in_bytes(chance: Random, data: bytes, most: int = 4) -> bytes:
    """Return bytes with bits turned, parts cut out, repeated, zeroed or overwritten, and hostile tokens put in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, most)):
        place = chance.randrange(len(changed) + 1)
        length = min(chance.choice([1, 2, 4, 8, 64, 1000]), len(changed) - place)
        match chance.randrange(8):
            case 0 | 1 if place < len(changed):
                changed[place] ^= 1 << chance.randrange(8)
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = chance.choice(TOKENS)
            case 5:
                changed[place : place + length] = bytes(length)
            case 6:
                changed[place:place] = changed[place : place + length] * chance.choice([1, 3, 50])
            case _:
                number = chance.choice([1, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
                changed[place : place + 8] = number.to_bytes(8, chance.choice(["little", "big"]))
    return bytes(changed)


def in_json(chance: Random, given: Any, most: int = 3) -> Any:
    """Return a copy of a JSON value with hostile values, lost, renamed or exchanged entries at random paths."""
    root = [copy.deepcopy(given)]
    for _ in range(chance.randint(1, most)):
        home, key = _place(chance, root)
        match chance.randrange(6):
            case 0 if home is not root:
                del home[key]
            case 1 if isinstance(home, dict):
                home[word(chance)] = home.pop(key)
            case 2 if isinstance(home, list) and home is not root:
                home.extend(copy.deepcopy(home[:3]) * chance.choice([1, 20]))
            case 3:
                other, from_there = _place(chance, root)
                home[key] = copy.deepcopy(other[from_there])
            case _:
                home[key] = value(chance)
    return root[0]


def json_text(chance: Random, given: Any) -> bytes:
    """Return a mutated JSON value as text, at times broken as text too."""
    text = json.dumps(in_json(chance, given), ensure_ascii=chance.random() < 0.8).encode("utf-8", "surrogatepass")
    return in_bytes(chance, text, 2) if chance.random() < 0.25 else text


def in_words(chance: Random, words: Sequence[str], most: int = 2) -> list[str]:
    """Return a command line with words lost, doubled, exchanged, or replaced by hostile ones."""
    changed = list(words)
    for _ in range(chance.randint(0, most)):
        place = chance.randrange(len(changed))
        match chance.randrange(6):
            case 0 if len(changed) > 1:
                del changed[place]
            case 1:
                changed.insert(place, changed[place])
            case 2 if "=" in changed[place]:
                changed[place] = (
                    changed[place].partition("=")[0] + "=" + chance.choice([word(chance), str(value(chance))])
                )
            case 3 if "=" in changed[place]:
                changed[place] = word(chance) + "=" + changed[place].partition("=")[2]
            case _:
                changed[place] = word(chance)
    return changed


def _place(chance: Random, root: list[Any]) -> tuple[Any, Any]:
    """Return a random container of a value with a key in it."""
    home: Any = root
    key: Any = 0
    while True:
        inner = home[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.2:
            return home, key
        home, key = inner, chance.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
