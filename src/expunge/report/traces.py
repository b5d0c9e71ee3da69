"""Traces: what Plotly draws for a series, as plain values; colours are the names of style variables."""

import html
import math
from collections.abc import Sequence
from typing import Any

from expunge.finding import Series
from expunge.report.wording import clip

Row = Sequence[float | None]
Trace = dict[str, Any]
MANY = 24
"""The most places that bars are drawn for, and that all have their names below them."""
SYMBOLS = {"original": "circle-open", "unlearned": "diamond", "retrained": "line-ew"}
DASHES = {"original": "dot", "unlearned": "solid", "retrained": "dash"}


def label(text: str, limit: int = 24) -> str:
    """Return a text as Plotly shows it unchanged: Plotly reads tags and entities in every label."""
    return html.escape(clip(text, limit), quote=False)


def spread(rows: Sequence[Row], count: int) -> tuple[Row, Row, Row]:
    """Return mean, lowest and highest of the rows at each of `count` places; None where no row has a number."""
    columns = [
        [number for row in rows if index < len(row) and (number := row[index]) is not None and math.isfinite(number)]
        for index in range(count)
    ]
    return (
        [sum(column) / len(column) if column else None for column in columns],
        [min(column, default=None) for column in columns],
        [max(column, default=None) for column in columns],
    )


def bars(series: Series, share: bool) -> list[Trace]:
    """Return a group of bars per place, the retrained mean with whiskers."""
    return [
        trace
        | {
            "type": "bar",
            "marker": {"color": f"var(--{trace['name']})", "line": {"width": 0}},
            "error_y": trace["error_y"] | {"color": "var(--ink)", "thickness": 1.2, "width": 2},
        }
        for trace in _places(series, share)
    ]


def points(series: Series, share: bool) -> list[Trace]:
    """Return points for so many places that bars would be hairs: the retrained range as a strip behind the others."""
    traces = [
        trace
        | {
            "type": "scatter",
            "mode": "markers",
            "marker": {
                "color": f"var(--{trace['name']})",
                "symbol": SYMBOLS[trace["name"]],
                "size": 7,
                "line": {"color": f"var(--{trace['name']})", "width": 1.5 if trace["name"] != "unlearned" else 0},
            },
            "error_y": trace["error_y"] | {"color": "var(--band)", "thickness": 7, "width": 0},
        }
        for trace in _places(series, share)
    ]
    return sorted(traces, key=lambda trace: ("retrained", "original", "unlearned").index(trace["name"]))


def lines(series: Series, share: bool) -> list[Trace]:
    """Return a curve per model, the retrained mean in the area from lowest to highest."""
    x = [float(place) for place in series.x]
    mean, low, high = spread(series.retrained, len(x))
    traces: list[Trace] = []
    if len(series.retrained) > 1:
        edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "hoverinfo": "skip"}
        traces = [
            edge | {"y": low, "name": "lowest", "showlegend": False},
            edge | {"y": high, "fill": "tonexty", "fillcolor": "var(--band)", "name": "lowest to highest"},
        ]
    rows: dict[str, Row] = {"original": series.original, "retrained": mean, "unlearned": series.unlearned}
    return traces + [
        {
            "type": "scatter",
            "mode": "lines",
            "name": role,
            "x": x,
            "y": list(row[: len(x)]),
            "line": {"color": f"var(--{role})", "width": 2.5, "dash": DASHES[role]},
            "hovertemplate": f"%{{x}}: {role} %{{y:{_form(share)}}}<extra></extra>",
        }
        for role, row in rows.items()
        if any(number is not None for number in row)
    ]


def names_axis(series: Series, marked: Sequence[int]) -> dict[str, Any]:
    """Return the axis below bars or points: names, thinned out if there are many, the marked ones always and bold."""
    count = len(series.x)
    every = -(-count // MANY)
    near = {index for other in marked for index in range(other - every + 1, other + every)}
    shown = sorted({*range(0, count, every)} - near | set(marked))
    names = {index: label(series.x[index], 20 if count <= 12 else 14) for index in shown}
    level = count * max(map(len, names.values())) < 45
    return {
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [f"<b>{name}</b>" if index in marked else name for index, name in names.items()],
        "tickangle": 0 if level else -50,
        "ticklabeloverflow": "allow",
        "range": [-0.6, count - 0.4],
    }


def layout(x: dict[str, Any], share: bool, marked: Sequence[int], height: int) -> dict[str, Any]:
    """Return how a chart looks around its traces; marked places are shaded."""
    rule = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zerolinecolor": "var(--line)", "fixedrange": True}
    shade = {"type": "rect", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below", "line": {"width": 0}}
    return {
        "template": {},
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--soft)"},
        "barmode": "group",
        "bargap": 0.24,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False},
        "xaxis": rule | {"showgrid": False, "automargin": True, "zeroline": False} | x,
        "yaxis": rule | {"automargin": True, "rangemode": "tozero", "tickformat": ".0~%" if share else "~g"},
        "shapes": [shade | {"x0": i - 0.5, "x1": i + 0.5, "fillcolor": "var(--mark)"} for i in marked],
    }


def _places(series: Series, share: bool) -> list[Trace]:
    """Return what bars and points share: one number per named place and model."""
    count = len(series.x)
    names = [label(name) for name in series.x]
    mean, low, high = spread(series.retrained, count)
    ranged = {
        "type": "data",
        "symmetric": False,
        "array": [None if top is None or at is None else top - at for top, at in zip(high, mean, strict=True)],
        "arrayminus": [None if end is None or at is None else at - end for end, at in zip(low, mean, strict=True)],
    }
    rows: dict[str, Row] = {"original": series.original, "unlearned": series.unlearned, "retrained": mean}
    return [
        {
            "name": role,
            "x": list(range(count)),
            "y": list(row[:count]),
            "customdata": names,
            "hovertemplate": f"%{{customdata}}<br>{role} %{{y:{_form(share)}}}<extra></extra>",
            "error_y": ranged | {"visible": role == "retrained" and len(series.retrained) > 1},
        }
        for role, row in rows.items()
        if any(number is not None for number in row)
    ]


def _form(share: bool) -> str:
    return ".1%" if share else ".3~g"
