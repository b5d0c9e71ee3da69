"""Comparison page: methods side by side as one self-contained HTML file that loads nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from expunge.comparison.record import Comparison, Pair, Standing, Tally
from expunge.comparison.statistics import Estimate
from expunge.report.comparison_charts import cost_chart, spread_chart
from expunge.report.packed import plotly
from expunge.report.page import QUESTIONS, label, read_text
from expunge.report.reproduce import as_toml
from expunge.report.titles import title
from expunge.report.wording import NOT_KNOWN, clip, decimal, is_share, listed, low_to_high, percent, scaled, seconds
from expunge.result import LEVELS

COLUMNS = ("passed", "worlds by level", "kept, points", "time of retraining", "seconds", "passes")
NO_RANK = "\u2013"
QUANTITIES = {
    "passed": "Telling findings passed",
    "kept": "Accuracy on kept test rows, less that of retraining",
    "time": "Time, as a share of retraining",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place of a table: what is read, what it is sorted by, and what stands small below."""

    text: str
    key: float | None
    below: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method in the table of methods."""

    name: str
    control: str | None
    rank: str
    cells: tuple[tuple[str, Cell], ...]
    """Column and what is in it."""


def render(comparison: Comparison) -> str:
    """Return the comparison as HTML. Everything that it says is shown as text; nothing of it can become markup."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"label": label, "clip": clip}
    methods = [one for one in comparison.standings if one.control is None]
    return environment.from_string(read_text("comparison.html.j2")).render(
        comparison=comparison,
        heading=_heading(methods),
        verdict=verdict(comparison),
        faulty=[place for place in comparison.worlds if place.faults],
        without=[place for place in comparison.worlds if place.missing],
        columns=COLUMNS,
        rows=[_row(one) for one in comparison.standings],
        zip=zip,
        charts=[chart for chart in (spread_chart(comparison), cost_chart(comparison)) if chart is not None],
        differences=[(QUANTITIES[name], _differences(comparison.pairs, name)) for name in QUANTITIES],
        groups=_groups(comparison.standings),
        labels=[one.label for one in comparison.standings],
        toml=as_toml(comparison.setting),
        style=Markup(read_text("style.css")),  # noqa: S704  # our own file
        script=Markup(read_text("draw.js")),  # noqa: S704  # our own file
        tables=Markup(read_text("tables.js")),  # noqa: S704  # our own file
        plotly=plotly(),
    )


def verdict(comparison: Comparison) -> str:
    """Return what the comparison shows, in one or two sentences."""
    places = comparison.worlds
    seeds = len({place.seed for place in places})
    what = f"{len(places)} world{'' if len(places) == 1 else 's'}, {seeds} seed{'' if seeds == 1 else 's'}"
    ranking = f"{comparison.ranking[:1].upper()}{comparison.ranking[1:]}."
    if not comparison.ranked:
        return f"{what}. {ranking}"
    methods = [one for one in comparison.standings if one.control is None]
    best = [clip(one.label) for one in methods if one.rank == 1]
    if len(methods) > 1 and len(best) == 1:
        return f"{what}. {best[0]} is ahead of the other methods by more than chance over seeds gives. {ranking}"
    if len(methods) > 1:
        return f"{what}. {listed(best)} share the first rank: over these seeds they cannot be told apart. {ranking}"
    return f"{what}. {ranking}"


def _heading(methods: Sequence[Standing]) -> str:
    names = [clip(one.label) for one in methods]
    few = [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else names
    return f"Comparing {listed(few)}" if few else "Comparing controls"


def _row(one: Standing) -> Row:
    passed, kept = one.quantities["passed"], one.quantities["kept"]
    time, duration, passes = one.cost["time"], one.cost["seconds"], one.cost["epoch_equivalents"]
    worst = min(kept.values.values(), default=None)
    reached = {level: one.levels.get(level, 0) for level in reversed(LEVELS) if one.levels.get(level)}
    mean_level = sum(LEVELS.index(level) * count for level, count in one.levels.items()) / one.worlds
    cells = (
        Cell(text=percent(passed.mean), key=passed.mean, below=_interval(passed, percent)),
        Cell(text=", ".join(f"{count}\u00a0{level}" for level, count in reached.items()), key=mean_level),
        Cell(text=points(kept.mean), key=kept.mean, below=f"worst {points(worst)}"),
        Cell(text=percent(time.median), key=time.median, below=low_to_high(percent(time.low), percent(time.high))),
        Cell(
            text=seconds(duration.median),
            key=duration.median,
            below=low_to_high(seconds(duration.low), seconds(duration.high)),
        ),
        Cell(text=decimal(passes.median), key=passes.median, below=scaled(one.cost["flops"].median, "FLOP")),
    )
    return Row(
        name=one.label,
        control=one.control,
        rank="control" if one.control else NO_RANK if one.rank is None else str(one.rank),
        cells=tuple(zip(COLUMNS, cells, strict=True)),
    )


def _differences(pairs: Sequence[Pair], quantity: str) -> list[tuple[str, str, str, str, str, bool]]:
    """Return both methods, the mean, its interval, the p-value, and whether it is no chance."""
    show = percent if quantity == "time" else points
    return [
        (
            pair.first,
            pair.second,
            show(pair.difference.mean),
            _interval(pair.difference, show),
            "" if pair.p is None else f"p {decimal(pair.p)}",
            pair.apart,
        )
        for pair in pairs
        if pair.quantity == quantity
    ]


def _groups(standings: Sequence[Standing]) -> list[tuple[str, list[tuple[str, str, list[Cell]]]]]:
    """Return the findings by level: title, name, and for each method how often it was inside and its gap."""
    known = {one.label: {tally.name: tally for tally in one.findings} for one in standings}
    names = {tally.name: tally.level for one in standings for tally in one.findings}
    groups = []
    for level in [*sorted({level for level in names.values() if level is not None}), None]:
        rows = [
            (title(name), name, [_gap(known[one.label].get(name)) for one in standings])
            for name, at in names.items()
            if at == level
        ]
        if rows:
            groups.append(("For information" if level is None else f"Level L{level}: {QUESTIONS[level]}", rows))
    return groups


def _gap(tally: Tally | None) -> Cell:
    if tally is None:
        return Cell(text=NOT_KNOWN, key=None)
    show = points if is_share(tally.name) else _signed
    inside = f"{tally.inside} of {tally.judged} inside" if tally.judged else "not judged"
    told = [_interval(tally.gap, show), inside if tally.level is not None else ""]
    return Cell(text=show(tally.gap.mean), key=None, below="\n".join(filter(None, told)))


def _interval(one: Estimate, show: Callable[[float | None], str]) -> str:
    if one.low is None or one.high is None:
        return ""
    return f"{show(one.low)} to {show(one.high)}"


def points(share: float | None) -> str:
    """Return a difference of shares in points, signed."""
    if share is None:
        return NOT_KNOWN
    text = f"{share * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\u2212")


def _signed(number: float | None) -> str:
    text = decimal(number)
    return f"+{text}" if number is not None and number > 0 else text
