"""Comparison charts: how far methods spread over worlds, and what they pass against what they cost."""

import math
from typing import Any

from plotly import io

from expunge.comparison.record import RETRAINED, Comparison, Standing
from expunge.report.charts import Chart, for_script
from expunge.report.traces import label, layout
from expunge.report.wording import percent

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon", "hexagram", "hourglass")
FEW = 8
"""The most methods whose charts stand side by side, with every name and every world in the chart of cost."""
JITTER = 0.22
"""How far from the middle of its row the first and the last seed are drawn."""


def spread_chart(comparison: Comparison) -> Chart | None:
    """Return the share passed of each method, a point per world and a line for the interval; None if none is known."""
    known = [one for one in comparison.standings if one.quantities["passed"].values]
    if not known:
        return None
    seeds = sorted({place.seed for place in comparison.worlds})
    of_world = {place.name: place.seed for place in comparison.worlds}
    traces: list[dict[str, Any]] = []
    for row, one in enumerate(reversed(known)):
        passed, colour = one.quantities["passed"], _colour(one)
        places = [row + _offset(seeds.index(of_world[name]), len(seeds)) for name in passed.values]
        traces.append(
            _points(one, list(passed.values.values()), places, colour, 7)
            | {"opacity": 0.45, "customdata": [label(name, 60) for name in passed.values]}
            | {"hovertemplate": f"{label(one.label, 60)}<br>%{{customdata}}: %{{x:.1%}}<extra></extra>"}
        )
        error = {
            "visible": passed.low is not None,
            "type": "data",
            "symmetric": False,
            "color": colour,
            "thickness": 2.5,
        }
        if passed.low is not None and passed.high is not None and passed.mean is not None:
            error |= {"array": [passed.high - passed.mean], "arrayminus": [passed.mean - passed.low]}
        traces.append(
            _points(one, [passed.mean], [row], colour, 12)
            | {"error_x": error, "hovertemplate": f"{label(one.label, 60)}<br>mean %{{x:.1%}}<extra></extra>"}
        )
    axis = {
        "title": {"text": "telling findings passed"},
        "showgrid": True,
        "tickformat": ".0~%",
        "range": [-0.04, 1.04],
    }
    look = layout(axis, False, [], 120 + (62 if len(known) <= FEW else 38) * len(known))
    look["yaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(known))),
        "ticktext": [label(one.label, 22) for one in reversed(known)],
        "range": [-0.6, len(known) - 0.4],
        "showgrid": False,
        "zeroline": False,
    }
    return _chart(
        "Spread over worlds",
        "Small: one world each, the seeds of a method side by side. Large: the mean, with its interval over seeds.",
        traces,
        look,
        known,
    )


def cost_chart(comparison: Comparison) -> Chart | None:
    """Return the share passed against the time as a share of retraining; None if a cost is known of none."""
    known = [
        one
        for one in comparison.standings
        if one.quantities["passed"].mean is not None and one.quantities["time"].values and one.cost["time"].median
    ]
    if not known:
        return None
    front, few = pareto_front(known), len(known) <= FEW
    traces = [_front_line(front)] if len(front) > 1 else []
    traces += [_worlds(one) for one in known if few]
    for place, one in enumerate(sorted(known, key=lambda one: one.cost["time"].median or 0.0)):
        named = few or one in front or one.control is not None
        told = f"{label(one.label, 60)}<br>%{{x:.2%}} of a retraining, %{{y:.1%}}<extra></extra>"
        text = {"mode": "markers+text", "text": [label(one.label, 18)], "cliponaxis": False}
        traces.append(
            _points(one, [one.cost["time"].median], [one.quantities["passed"].mean], _colour(one), 13)
            | (text | {"textposition": ("top center", "bottom center")[place % 2]} if named else {"opacity": 0.55})
            | {"hovertemplate": told}
        )
    axis = {"title": {"text": "time as a share of retraining"}, "type": "log", "showgrid": True, "tickformat": "~%"}
    look = layout(axis | {"dtick": 1, "range": _decades(known)}, True, [], 400)
    look["yaxis"] |= {"title": {"text": "telling findings passed"}, "range": [-0.08, 1.08], "zeroline": False}
    return _chart(
        "What they pass against what they cost",
        "Median time and mean share passed; up and to the left is better. The line is the Pareto front: no other "
        "method passes more in as little time."
        + (" Small: one world each." if few else " Hover for the names of the rest."),
        traces,
        look,
        known,
    )


def pareto_front(known: list[Standing]) -> list[Standing]:
    """Return the methods that no other passes more than at no more time, or as much in less; the fastest first.

    Controls are no methods, and never on it.
    """
    front: list[Standing] = []
    methods = [one for one in known if one.control is None]
    for one in sorted(
        methods, key=lambda one: (one.cost["time"].median or 0.0, -(one.quantities["passed"].mean or 0.0))
    ):
        if not front or (one.quantities["passed"].mean or 0.0) > (front[-1].quantities["passed"].mean or 0.0):
            front.append(one)
    return front


def _front_line(front: list[Standing]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "showlegend": False,
        "x": [one.cost["time"].median for one in front],
        "y": [one.quantities["passed"].mean for one in front],
        "line": {"color": "var(--unlearned)", "width": 2, "shape": "hv", "dash": "dot"},
        "hoverinfo": "skip",
    }


def _worlds(one: Standing) -> dict[str, Any]:
    """Return a method in every world, a small point each."""
    time, passed = one.quantities["time"].values, one.quantities["passed"].values
    both = [name for name in time if name in passed and time[name] > 0]
    points = _points(one, [time[name] for name in both], [passed[name] for name in both], _colour(one), 7)
    return points | {"opacity": 0.35, "hoverinfo": "skip"}


def _decades(known: list[Standing]) -> list[float]:
    """Return the ends of a logarithmic axis with room for names at both."""
    all_times = [value for one in known for value in one.quantities["time"].values.values() if value > 0]
    return [math.log10(min(all_times)) - 0.5, math.log10(max(all_times)) + 0.5]


def _points(one: Standing, x: list[Any], y: list[Any], colour: str, size: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(one.label),
        "showlegend": False,
        "x": x,
        "y": y,
        "marker": {"color": colour, "size": size, "symbol": _symbol(one), "line": {"color": colour, "width": 2}},
    }


def _offset(place: int, count: int) -> float:
    return 0.0 if count == 1 else JITTER * (1 - 2 * place / (count - 1))


def _name(one: Standing) -> str:
    return str((one.method or {}).get("name"))


def _colour(one: Standing) -> str:
    """Return the colour of a method; the controls have those of the models that they stand for."""
    if one.control is None:
        return "var(--unlearned)"
    return "var(--retrained)" if _name(one) == RETRAINED else "var(--original)"


def _symbol(one: Standing) -> str:
    return SYMBOLS[0] if one.control is None else "line-ns" if _name(one) == RETRAINED else "circle-open"


def _chart(
    heading: str, about: str, traces: list[dict[str, Any]], look: dict[str, Any], known: list[Standing]
) -> Chart:
    rows = tuple((one.label, percent(one.quantities["passed"].mean), percent(one.cost["time"].median)) for one in known)
    return Chart(
        title=heading,
        about=about,
        summary=f"Chart: {heading.lower()}. The numbers follow as a table.",
        figure=for_script(io.to_json({"data": traces, "layout": look}, validate=False)),
        wide=len(known) > FEW,
        least_width=0,
        columns=("method", "passed", "time of retraining"),
        rows=rows,
    )
