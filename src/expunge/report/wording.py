"""Wording: how names and numbers are written; a missing number is "not known"."""

import math
import unicodedata

from expunge.finding import Interval

NOT_KNOWN = "not known"
SHARES = (
    "accuracy/",
    "backdoor/",
    "batch_norm/",
    "canaries/",
    "few_shot/area/",
    "head_bias/recall",
    "interclass_confusion/",
    "inversion/",
    "membership/confidence/predicted",
    "membership/entropy/predicted",
    "prediction/churn/",
    "probe/",
    "prototypes/",
    "quantization/",
    "relearning/area",
    "weight_noise/",
)
"""How the names of findings begin that are shares of rows, or means of such."""
MINUS = "\u2212"
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})


def clean(text: str) -> str:
    """Return a text on one line, without control characters, lone surrogates or marks that turn the direction."""
    kept = (" " if character.isspace() else character for character in text if character not in _BIDI_CONTROLS)
    shown = "".join(character for character in kept if unicodedata.category(character) not in ("Cc", "Cs"))
    return " ".join(shown.split()) or "(no name)"


def clip(text: str, limit: int = 40) -> str:
    """Return a text cleaned and cut to a number of characters; right-to-left text is kept from turning what follows."""
    text = clean(text)
    text = text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
    turns = any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text)
    return f"\u2068{text}\u2069" if turns else text


def is_share(name: str) -> bool:
    """Return whether a finding is a share of rows, 0 to 1, that is written in per cent."""
    return name.startswith(SHARES)


def value(number: float | None, name: str) -> str:
    """Return the number of a finding, in the unit of that finding."""
    return percent(number) if is_share(name) else decimal(number)


def span(band: Interval | None, name: str) -> str:
    """Return a band as ``0.0 % to 1.2 %``; a share is cut to 0 to 100 %, beyond which nothing can fall."""
    if band is None:
        return NOT_KNOWN
    low, high = (min(max(end, 0.0), 1.0) for end in band) if is_share(name) else band
    return f"{value(low, name)} to {value(high, name)}"


def percent(share: float | None) -> str:
    """Return a share as ``98.6 %``; what is not quite none or all is never rounded to it."""
    if share is None or not math.isfinite(share):
        return NOT_KNOWN
    if 0 < share < 0.0005:
        return "under 0.1 %"
    if 0.9995 <= share < 1:
        return "over 99.9 %"
    return f"{share * 100:.1f} %".replace("-", MINUS)


def decimal(number: float | None) -> str:
    """Return a number with three digits that count."""
    if number is None or not math.isfinite(number):
        return NOT_KNOWN
    text = f"{number:,.0f}" if 1000 <= abs(number) < 1e7 else f"{number:.3g}"
    return text.replace("-", MINUS)


def count(number: int | None) -> str:
    """Return a whole number with its thousands apart."""
    return NOT_KNOWN if number is None else f"{number:,}"


def seconds(duration: float | None) -> str:
    """Return a duration as ``0.42 s`` or ``3 min 20 s``; what is shorter than a millisecond is told as that."""
    if duration is None or not math.isfinite(duration):
        return NOT_KNOWN
    if 0 < duration < 0.001:
        return "under 1 ms"
    if duration < 120:
        return f"{duration:.3g} s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def low_to_high(low: str, high: str) -> str:
    """Return two numbers as ``low to high``; what is the same, once."""
    return low if low == high else f"{low} to {high}"


def scaled(number: float | None, unit: str) -> str:
    """Return a number with a prefix of its unit, ``1.25 GFLOP``."""
    if number is None or not math.isfinite(number):
        return NOT_KNOWN
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}"


def listed(items: list[str]) -> str:
    """Return items as ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
