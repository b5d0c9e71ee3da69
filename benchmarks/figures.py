"""Figures: lines and bars as small SVG files, written by hand so that they need no browser and no further package."""

import html
import itertools
from collections.abc import Mapping, Sequence

Numbers = Sequence[float | None]
COLOURS = ("#b3541e", "#1f6fb2", "#3d8b4e", "#7a4fa3", "#6b6f76", "#c2a000", "#008a8a")
"""Told apart by people who see few colours, too: markers differ as well."""
MARKERS = ("circle", "square", "diamond")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 380, 56, 16, 104, 58


def lines(title: str, axis: str, x: Sequence[object], series: Mapping[str, Numbers], y: str = "accuracy") -> str:
    """Return an SVG with one line per series over evenly spaced places; a number that is not known breaks the line."""
    top = ceiling(series)
    drawn = []
    for index, values in enumerate(series.values()):
        colour, dash = COLOURS[index % len(COLOURS)], ' stroke-dasharray="6 4"' * (index >= len(COLOURS))
        points = [None if v is None else (place(i, len(x)), height(v, top)) for i, v in enumerate(values)]
        for known, run in itertools.groupby(points, key=lambda point: point is not None):
            if known:
                path = " ".join(f"{point[0]:.1f},{point[1]:.1f}" for point in run if point)
                drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if len(x) <= 24:
            drawn += [marker(MARKERS[index % 3], *point, colour) for point in points if point]
    return page(title, axis, x, list(series), drawn, top, y)


def bars(title: str, axis: str, x: Sequence[object], series: Mapping[str, Numbers], y: str) -> str:
    """Return an SVG with a group of bars per place, one bar per series."""
    top, drawn = ceiling(series), []
    step = (WIDTH - LEFT - RIGHT) / len(x)
    width = 0.8 * step / len(series)
    for index, values in enumerate(series.values()):
        for i, value in enumerate(values):
            if value is not None:
                at, left = height(value, top), LEFT + step * (i + 0.1) + index * width
                drawn.append(
                    f'<rect x="{left:.1f}" y="{at:.1f}" width="{width * 0.92:.1f}" height="{HEIGHT - BOTTOM - at:.1f}" '
                    f'fill="{COLOURS[index % len(COLOURS)]}"/>'
                )
    return page(title, axis, x, list(series), drawn, top, y)


def page(
    title: str, axis: str, x: Sequence[object], names: Sequence[str], drawn: Sequence[str], top: float, y: str
) -> str:
    """Return what stands around the data: title, legend, axes."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{html.escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 20, title, 'font-size="14" font-weight="600"'),
        text(14, TOP - 10, y, 'fill="#555"'),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, axis, 'fill="#555" text-anchor="middle"'),
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        at = height(share * top, top)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, at + 4, f"{share * top:.3g}", 'text-anchor="end" fill="#555"'))
    every = -(-len(x) // 14)
    for i in range(0, len(x), every):
        parts.append(text(place(i, len(x)), HEIGHT - BOTTOM + 18, str(x[i]), 'text-anchor="middle" fill="#555"'))
    left, line = float(LEFT), 0
    for index, name in enumerate(names):
        wide = 30 + 6.6 * len(name)
        if left + wide > WIDTH:
            left, line = float(LEFT), line + 1
        colour, at = COLOURS[index % len(COLOURS)], 30 + 17 * line
        parts.append(f'<rect x="{left:.0f}" y="{at}" width="10" height="10" fill="{colour}"/>')
        parts.append(text(left + 14, at + 9, name))
        left += wide
    return "\n".join([*parts, *drawn, "</svg>\n"])


def ceiling(series: Mapping[str, Numbers]) -> float:
    """Return the top of the scale: 1 for shares, else the highest number."""
    highest = max((value for values in series.values() for value in values if value is not None), default=1.0)
    return 1.0 if 0.3 < highest <= 1 else highest or 1.0


def place(index: int, count: int) -> float:
    """Return where a place is, in pixels from the left."""
    return LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / count


def height(value: float, top: float) -> float:
    """Return where a number is, in pixels from above."""
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top


def marker(kind: str, x: float, y: float, colour: str) -> str:
    """Return one point."""
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' * (kind == "diamond")
    return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colour}"{turn}/>'


def text(x: float, y: float, words: str, style: str = "") -> str:
    """Return words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(words)}</text>'
