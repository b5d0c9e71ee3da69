"""Page: one result as one self-contained HTML file that loads nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from expunge.finding import Finding
from expunge.report.about import about, hashes, repeats, untold
from expunge.report.charts import chart
from expunge.report.destinations import destinations
from expunge.report.dots import Dots, dots
from expunge.report.examples import examples, is_png
from expunge.report.limits import limits
from expunge.report.maps import caption, maps
from expunge.report.packed import plotly
from expunge.report.profiles import profiles
from expunge.report.reproduce import as_toml
from expunge.report.titles import title
from expunge.report.verdict import (
    LEVELS,
    asked,
    borne_out,
    corruption_name,
    forgotten_classes,
    method_name,
    verdict,
    way,
)
from expunge.report.wording import (
    NOT_KNOWN,
    clean,
    clip,
    count,
    decimal,
    percent,
    scaled,
    seconds,
    span,
    value,
)
from expunge.result import Bill, Result

PARTS = ("retain", "forget", "retain_test", "forget_test")
QUESTIONS: dict[int | None, str] = {
    0: "Which class does it name?",
    1: "What do its outputs give away?",
    2: "What do its inner features hold?",
    3: "How fast does it come back?",
    4: "Can many networks tell?",
    None: "For information",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One level on the ladder."""

    name: str
    question: str
    state: str
    """``reached``, ``outside``, ``not judged`` or ``not audited``."""
    counted: bool
    """Whether it and all levels below are reached."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table of findings."""

    name: str
    title: str
    meaning: str
    note: str | None
    interval: str | None
    """Where the unlearned model's number would be with other rows."""
    numbers: tuple[tuple[str, str], ...]
    """Column and text."""
    state: str
    way: str | None
    dots: Dots | None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number above all others."""

    number: str
    words: str
    beside: str


def render(result: Result) -> str:
    """Return the report as HTML.

    Everything that the result says is shown as text; nothing of it can become markup or script. The page holds its
    style, its script and its pictures, and forbids the browser to load anything else.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"label": label, "clip": clip, "count": count, "seconds": seconds}
    forgotten = forgotten_classes(result)
    drawn = [*result.findings, *profiles(result.findings)]
    charts = [one for finding in drawn if (one := chart(finding, forgotten)) is not None]
    views = result.views
    shown = maps(views.features if views else None, result.label_names)
    neighbours = maps(views.neighbours if views else None, result.label_names)
    return environment.from_string(read_text("page.html.j2")).render(
        result=result,
        verdict=_tight(verdict(result)),
        heading=f"Forgetting {asked(result)}",
        forgotten=forgotten,
        method=method_name(result),
        settings=_settings(result),
        about=about(result),
        hashes=hashes(result),
        untold=untold(result),
        repeats=repeats(result),
        tiles=_tiles(result),
        steps=_steps(result),
        cost=_cost(result.cost),
        reads=_reads(result),
        groups=_groups(result),
        charts=charts,
        maps=shown,
        neighbours=neighbours,
        maps_of=caption(result),
        examples=examples(result),
        left_out=[clip(text, 200) for text in views.left_out] if views else [],
        destinations=destinations(result),
        pictures=[(clip(p.kind), p.label, p.png) for p in result.images if is_png(p.png)],
        unreadable=sum(not is_png(picture.png) for picture in result.images),
        limits=limits(result),
        environment=result.environment,
        toml=_toml(result),
        references=result.experiment.get("references"),
        style=Markup(read_text("style.css")),  # noqa: S704  # our own file
        script=Markup(read_text("draw.js")),  # noqa: S704  # our own file
        tables=Markup(read_text("tables.js")),  # noqa: S704  # our own file
        plotly=plotly() if charts or shown or neighbours else None,
    )


def read_text(name: str) -> str:
    """Return a file of the report."""
    return resources.files("expunge.report").joinpath(name).read_text(encoding="utf-8")


def _tight(text: str) -> str:
    """Return text whose per cent signs stay on the line of their numbers."""
    return text.replace(" %", "\u00a0%")


def label(text: str, limit: int = 40) -> Markup:
    """Return text clipped; hovering shows more of it."""
    short = clip(text, limit)
    whole = clean(text)
    hint = Markup(' title="{}"').format(clip(text, 500)) if len(whole) > limit else ""
    return Markup("<bdi{}>{}</bdi>").format(hint, short)


def _settings(result: Result) -> list[tuple[str, str]]:
    method = result.experiment.get("method")
    if not isinstance(method, Mapping):
        return []
    return [(clip(str(key)), clip(json.dumps(method[key], default=str), 80)) for key in method if key != "name"]


def _tiles(result: Result) -> list[Tile]:
    known = {finding.name: finding for finding in result.findings}
    tiles = []
    corruption = corruption_name(result)
    for name, words in (
        (f"{corruption}/memorised", "of manipulated rows keep the label put on them")
        if corruption
        else ("accuracy/forget_test", "right on forgotten test rows"),
        ("accuracy/retain_test", "right on retained test rows"),
    ):
        finding = known.get(name)
        before, after = (finding.original, finding.unlearned) if finding else (None, None)
        tiles.append(Tile(number=percent(after), words=words, beside=f"was {percent(before)}"))
    forget = (result.access or {}).get("forget", {})
    rows = f"of which there are {count(result.rows.get('forget'))}"
    tiles.append(Tile(number=count(forget.get("reads")), words="reads of rows to forget", beside=rows))
    tiles.append(_speed(result.cost))
    return tiles


def _speed(cost: Bill | None) -> Tile:
    total, retrain = (cost.seconds.get("total"), cost.seconds.get("retrain")) if cost else (None, None)
    beside = f"{seconds(total)} against {seconds(retrain)}" if total is not None or retrain is not None else ""
    if not total or not retrain:
        return Tile(number=NOT_KNOWN, words="time against retraining", beside=beside)
    if total <= retrain:
        return Tile(number=f"{_times(retrain / total)}", words="faster than retraining", beside=beside)
    return Tile(number=f"{_times(total / retrain)}", words="slower than retraining", beside=beside)


def _times(ratio: float) -> str:
    return (f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}") + " \u00d7"


def _steps(result: Result) -> list[Step]:
    passed = LEVELS.index(borne_out(result))
    steps = []
    for number, name in enumerate(LEVELS[1:]):
        inside = [finding.inside for finding in result.findings if finding.level == number]
        state = "reached" if inside and all(inside) else "not judged" if inside else "not audited"
        state = "outside" if False in inside else state
        steps.append(Step(name=name, question=QUESTIONS[number], state=state, counted=number < passed))
    return steps


def _groups(result: Result) -> list[tuple[str, list[Line]]]:
    levels = sorted({finding.level for finding in result.findings if finding.level is not None})
    groups = []
    for level in [*levels, None]:
        lines = [_line(finding) for finding in result.findings if finding.level == level]
        name = QUESTIONS.get(level, "") if level is None else f"Level L{level}: {QUESTIONS.get(level, '')}"
        if lines:
            groups.append((name, lines))
    return groups


def _line(finding: Finding) -> Line:
    models = {"original": finding.original, "unlearned": finding.unlearned, "retrained": finding.retrained}
    numbers = [(role, _tight(value(number, finding.name))) for role, number in models.items()]
    band = "none" if finding.level is None and finding.band is None else span(finding.band, finding.name)
    state = {True: "inside", False: "outside", None: "not judged"}[finding.inside]
    return Line(
        name=clip(finding.name, 80),
        title=_tight(title(finding.name)),
        meaning=clip(finding.meaning, 400),
        note=clip(finding.note, 400) if finding.note else None,
        interval=_tight(span(finding.interval, finding.name)) if finding.interval else None,
        numbers=(*numbers, ("band", _tight(band))),
        state="for information" if finding.level is None else state,
        way=way(finding),
        dots=dots(finding),
    )


def _reads(result: Result) -> list[tuple[str, str, str, str]]:
    """Return part, rows of the part, rows read, reads."""
    access = result.access or {}
    return [
        (part, count(result.rows.get(part)), count(read.get("rows")), count(read.get("reads")))
        for part, read in ((part, access.get(part, {})) for part in PARTS)
    ]


def _cost(cost: Bill | None) -> list[tuple[str, str]]:
    stages = {name: duration for name, duration in (cost.seconds if cost else {}).items() if name != "retrain"}
    total = stages.pop("total", None)
    return [
        ("Seconds in all", seconds(total)),
        *((f"of which {clip(name)}", seconds(duration)) for name, duration in stages.items()),
        ("One retraining", seconds(cost.seconds.get("retrain") if cost else None)),
        ("Operations", scaled(float(cost.flops) if cost else None, "FLOP")),
        ("Passes over the training set", decimal(cost.epoch_equivalents if cost else None)),
        ("Most memory of the process", scaled(float(cost.peak_memory_bytes) if cost else None, "B")),
    ]


def _toml(result: Result) -> str | None:
    """Return the experiment as TOML, or None if the result does not say how the model was made.

    A corruption makes the request anew, and an experiment takes one of the two.
    """
    made_anew = "request" if corruption_name(result) else None
    told = {key: value for key, value in result.experiment.items() if key != made_anew}
    return as_toml(told) if method_name(result) else None
