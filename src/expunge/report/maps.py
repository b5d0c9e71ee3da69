"""Maps: the features of three models side by side, a point per row; hovering over one shows it in all."""

import statistics
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from plotly import io

from expunge.report.charts import for_script
from expunge.report.traces import label, layout
from expunge.report.wording import percent
from expunge.result import FeatureMap, Plane, Result

NAMED = 20
"""The most classes that have their names on the map."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """One model's map with its words."""

    title: str
    about: str
    summary: str
    """What a person hears who does not see it."""
    figure: Markup
    """Plotly's JSON, safe inside a script element."""


def maps(told: FeatureMap | None, names: tuple[str, ...]) -> list[Map]:
    """Return the maps of original, unlearned and retrained features; none without any."""
    if told is None:
        return []
    planes = {"original": told.original, "unlearned": told.unlearned, "retrained": told.retrained}
    return [_map(role, plane, told, names) for role, plane in planes.items() if plane is not None]


def _map(role: str, plane: Plane, told: FeatureMap, names: tuple[str, ...]) -> Map:
    shown = [label(names[index]) if index < len(names) else str(index) for index in told.labels]
    kept = slice(told.forgotten, None), "var(--original)", "circle", 5, 0.55, "to keep"
    gone = slice(told.forgotten), "var(--unlearned)", "diamond", 7, 0.9, "to forget"
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": kind,
            "x": plane.x[part],
            "y": plane.y[part],
            "customdata": shown[part],
            "hovertemplate": f"%{{customdata}}, {kind}<extra></extra>",
            "marker": {"color": colour, "symbol": symbol, "size": size, "opacity": opacity, "line": {"width": 0}},
            "showlegend": False,
        }
        for part, colour, symbol, size, opacity, kind in (kept, gone)
    ]
    hidden = {"visible": False, "range": [-1080, 1080], "fixedrange": True}
    look = layout(hidden, False, [], 340)
    look["yaxis"] |= hidden | {"scaleanchor": "x", "rangemode": "normal"}
    look["annotations"] = _names(plane, told, names)
    kept_rows = len(told.labels) - told.forgotten
    return Map(
        title=role,
        about="" if plane.spread is None else f"two directions hold {percent(plane.spread)} of the variance",
        summary=f"Map of the {role} network's features of {told.forgotten} rows to forget among {kept_rows} to keep.",
        figure=for_script(io.to_json({"data": traces, "layout": look}, validate=False)),
    )


def _names(plane: Plane, told: FeatureMap, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the name of each class at the median of its points; nothing where there are too many classes."""
    present = sorted(set(told.labels))
    if len(present) > NAMED:
        return []
    gone = set(told.labels[: told.forgotten])
    # groups of UMAP are small: a name on top would hide them
    aside = {"yshift": 16} if plane.spread is None else {}
    style = aside | {"showarrow": False, "bgcolor": "var(--paper)", "opacity": 0.85, "borderpad": 1}
    placed = []
    for index in present:
        own = [place for place, each in enumerate(told.labels) if each == index]
        ink = "var(--accent)" if index in gone else "var(--ink)"
        placed.append(
            style
            | {"x": statistics.median(plane.x[place] for place in own)}
            | {"y": statistics.median(plane.y[place] for place in own)}
            | {"text": f"<b>{label(names[index] if index < len(names) else str(index), 14)}</b>"}
            | {"font": {"color": ink, "size": 13}}
        )
    return placed


def caption(result: Result) -> str:
    """Return which rows the maps show, for a person."""
    told = result.views.features if result.views else None
    if told is None:
        return ""
    kind = "test rows" if told.part == "forget_test" else "training rows"
    return f"{told.forgotten} {kind} to forget and {len(told.labels) - told.forgotten} test rows to keep"
