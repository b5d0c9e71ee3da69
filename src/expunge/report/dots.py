"""Dots: where the numbers of one finding lie on a small scale of their own."""

import math
from dataclasses import dataclass

from expunge.finding import Finding
from expunge.report.wording import is_share, value

EDGE = 6.0
"""Room left and right of the scale, in per cent of its width."""


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Places from left to right in per cent of the width; None is not known."""

    original: float | None
    unlearned: float | None
    retrained: float | None
    band: tuple[float, float] | None
    """Left edge and width."""
    interval: tuple[float, float] | None
    """Both ends."""
    low: str
    """The number at the left end of the scale."""
    high: str


def dots(finding: Finding) -> Dots | None:
    """Return the places of a finding's numbers, or None if fewer than two numbers are known.

    The scale spans them, the band and the interval. It is never narrower than a hundredth of the largest number, or a
    twentieth for shares, so that a difference that means nothing does not look like one.
    """
    numbers = [finding.original, finding.unlearned, finding.retrained, *(finding.band or ()), *(finding.interval or ())]
    known = [_possible(number, finding) for number in numbers if number is not None and math.isfinite(number)]
    if len(known) < 2:
        return None
    low, high = min(known), max(known)
    least = 0.05 if is_share(finding.name) else max(map(abs, known)) * 0.01 or 1.0
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
        if is_share(finding.name):
            shift = max(0.0, -low) - max(0.0, high - 1)
            low, high = low + shift, high + shift

    def place(number: float | None) -> float | None:
        if number is None or not math.isfinite(number):
            return None
        return round(EDGE + (100 - 2 * EDGE) * (_possible(number, finding) - low) / (high - low), 2)

    start, end = (place(number) for number in finding.band or (None, None))
    low_end, high_end = (place(number) for number in finding.interval or (None, None))
    return Dots(
        original=place(finding.original),
        unlearned=place(finding.unlearned),
        retrained=place(finding.retrained),
        band=None if start is None or end is None else (start, max(round(end - start, 2), 0.8)),
        interval=None if low_end is None or high_end is None else (low_end, high_end),
        low=value(low, finding.name),
        high=value(high, finding.name),
    )


def _possible(number: float, finding: Finding) -> float:
    return min(max(number, 0.0), 1.0) if is_share(finding.name) else number
