"""Examples: images that were asked to be shown, and where each network looks to name their class."""

import base64
import binascii
from dataclasses import dataclass

from expunge.report.wording import clip
from expunge.result import Overlay, Result


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image with its overlays."""

    label: str
    kind: str
    """``to forget`` or ``to keep``."""
    pictures: tuple[tuple[str, str | None], ...]
    """What each shows, and its PNG in base64; None of one that cannot be read."""


def examples(result: Result) -> list[Example]:
    """Return the example images of a result, those to forget first; none if it has none."""
    return [_example(overlay) for overlay in (result.views.overlays if result.views else ())]


def _example(overlay: Overlay) -> Example:
    shown = {"image": overlay.image, "original": overlay.original, "unlearned": overlay.unlearned}
    if overlay.retrained is not None:
        shown["retrained"] = overlay.retrained
    return Example(
        label=clip(overlay.label),
        kind="to forget" if overlay.forgotten else "to keep",
        pictures=tuple((name, png if is_png(png) else None) for name, png in shown.items()),
    )


def is_png(text: str) -> bool:
    """Return whether a text is a PNG in base64."""
    try:
        return base64.b64decode(text, validate=True).startswith(b"\x89PNG\r\n\x1a\n")
    except (binascii.Error, ValueError):
        return False
