"""Charts: the numbers behind a finding as bars, points or curves, with the same numbers as a table."""

import math
from dataclasses import dataclass

from markupsafe import Markup
from plotly import io

from expunge.finding import Finding, Series
from expunge.report.titles import in_words, title
from expunge.report.traces import MANY, SYMBOLS, bars, layout, lines, names_axis, points, spread
from expunge.report.wording import clip, decimal, percent, span, value

INFORMS = "only informs: "
"""How a note begins that says why a finding does not count."""
ASKED = {
    "membership/loss/": "The question is whether these rows can be told from others of their class by their losses; no "
    "finding asks whether the losses themselves are those of retrained networks."
}
"""What a finding asks, by how its name begins, where its chart shows more than that."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart with its words."""

    title: str
    about: str
    """What stands below the title: of a finding, its name, and how its number is judged or why it is not."""
    summary: str
    """What a person hears who does not see it."""
    figure: Markup
    """Plotly's JSON, safe inside a script element."""
    wide: bool
    """Whether it needs the whole width of the page."""
    least_width: int
    """In pixels; on a narrower screen it scrolls sideways."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def chart(finding: Finding, forgotten: tuple[str, ...] = ()) -> Chart | None:
    """Return the chart of a finding's series, or None if it has none.

    Args:
        finding: The finding.
        forgotten: Names of the forgotten classes, which are marked where they stand below bars or points.
    """
    series = finding.series
    if series is None or not series.x:
        return None
    count = len(series.x)
    share = "accuracy" in f"{finding.name} {series.axis}" or _adds_up(series)
    kind = "curves" if is_curve(series) else "bars" if count <= MANY else "points"
    if kind == "curves":
        marked, traces = [], lines(series, share)
        x = {"title": {"text": "step"}} if "step" in series.axis else {}
    else:
        marked = [index for index, name in enumerate(series.x) if name in forgotten]
        traces = (bars if kind == "bars" else points)(series, share)
        x = names_axis(series, marked)
    axis, name = clip(in_words(series.axis), 100), title(finding.name)
    height = 440 if kind == "points" else 340
    models = ", ".join(trace["name"] for trace in traces if trace["name"] in SYMBOLS)
    return Chart(
        title=axis[:1].upper() + axis[1:] if " " in axis else f"{name}, by {axis}",
        about=f"Behind: {name}. {_judged(finding)}",
        summary=f"Chart with {kind}, {axis}: {models or 'no numbers'}. The numbers follow as a table.",
        figure=for_script(io.to_json({"data": traces, "layout": layout(x, share, marked, height)}, validate=False)),
        wide=kind == "points",
        least_width=min(6 * count, 6000) if kind == "points" else 0,
        columns=("step" if kind == "curves" else "name", "original", "unlearned", *_retrained(series)),
        rows=_table(series, share),
    )


def _judged(finding: Finding) -> str:
    note = clip(finding.note, 400) if finding.note else ""
    asked = "".join(f" {told}" for prefix, told in ASKED.items() if finding.name.startswith(prefix))
    if finding.level is None:
        reason = f": {note.removeprefix(INFORMS)}" if note else ""
        return f"Counts for no level{reason}.{asked}"
    if finding.inside is None:
        return f"Not judged{f': {note}' if note else ''}.{asked}"
    numbers = f"{value(finding.unlearned, finding.name)} against a band of {span(finding.band, finding.name)}"
    return f"Judged: {numbers}, {'inside' if finding.inside else 'outside'}.{asked}"


def is_curve(series: Series) -> bool:
    """Return whether x counts something, so that its values belong on a line."""
    try:
        numeric = all(math.isfinite(float(x)) for x in series.x)
    except ValueError:
        return False
    axis = series.axis.lower()
    return numeric and ("step" in axis or ("class" not in axis and len(series.x) > 12))


def for_script(json: str) -> Markup:
    """Return JSON that cannot end the script element that it stands in."""
    for character in "<>&\u2028\u2029":
        json = json.replace(character, f"\\u{ord(character):04x}")
    return Markup(json)  # noqa: S704  # nothing of HTML is left in it


def _adds_up(series: Series) -> bool:
    """Return whether every row is a distribution: no number below 0, and 1 in all."""
    rows = [row for row in (series.original, series.unlearned, *series.retrained) if row]
    return bool(rows) and all(min(row) >= 0 and abs(sum(row) - 1) < 1e-3 for row in rows)


def _retrained(series: Series) -> tuple[str, ...]:
    return ("retrained: mean (lowest to highest)",) if series.retrained else ()


def _table(series: Series, share: bool) -> tuple[tuple[str, ...], ...]:
    show = percent if share else decimal
    own = (series.original, series.unlearned)
    rows = []
    for index, (name, mean, low, high) in enumerate(
        zip(series.x, *spread(series.retrained, len(series.x)), strict=True)
    ):
        cells = [show(row[index] if index < len(row) else None) for row in own]
        cells += [f"{show(mean)} ({show(low)} to {show(high)})"] if series.retrained else []
        rows.append((clip(name), *cells))
    return tuple(rows)
