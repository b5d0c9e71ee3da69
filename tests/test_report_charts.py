"""Claims about the charts and numbers of the report."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from plotly import graph_objects

from examples import DIGITS, example_findings, per_class
from expunge.finding import Finding, Series
from expunge.report.charts import Chart, chart, for_script, is_curve
from expunge.report.dots import EDGE, dots
from expunge.report.wording import decimal, percent, scaled, seconds, span

HOSTILE = '"></script><script>alert(1)</script><b>bold</b>&lt;i&gt;' + "x" * 10_000


def chart_of(series: Series, name: str = "audit/quantity", forgotten: tuple[str, ...] = ()) -> Chart:
    made = chart(replace(example_findings()[0], name=name, series=series), forgotten)
    assert made is not None
    return made


def figure(made: Chart) -> Any:
    return json.loads(made.figure)


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict | list):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in texts(item)]
    return []


def test_a_hostile_label_is_only_text_to_plotly() -> None:
    series = replace(per_class(), x=(HOSTILE, *DIGITS[1:]))
    made = chart_of(series, forgotten=("4",))
    assert not set(made.figure) & set("<>&")
    shown = [text for text in texts(figure(made)["data"]) if not text.startswith("%{")]
    assert not [text for text in shown if "<" in text or "&lt;i" in text]
    assert figure(made)["layout"]["xaxis"]["ticktext"][0].startswith('"&gt;&lt;/script&gt;')
    assert max(map(len, shown)) < 120


def test_json_cannot_end_its_script_and_stays_the_same_json() -> None:
    text = json.dumps("</script><!--&\u2028", ensure_ascii=False)
    assert not set(for_script(text)) & set("<>&\u2028")
    assert json.loads(for_script(text)) == json.loads(text)


def test_charts_are_ones_that_plotly_takes() -> None:
    for each in example_findings():
        made = chart(each)
        if made is not None:
            graph_objects.Figure(json.loads(re.sub(r'"var\(--[a-z]+\)"', '"#123456"', made.figure)))


@pytest.mark.parametrize(
    ("x", "axis", "curve"),
    [
        (DIGITS, "class", False),
        (tuple(map(str, range(100))), "accuracy of each class", False),
        (tuple(map(str, range(0, 20, 5))), "step", True),
        (tuple(map(str, range(13))), "threshold", True),
        (tuple(map(str, range(12))), "threshold", False),
        (("0", "6", "12"), "accuracy over steps with one row of each forgotten class", True),
        (("1", "nan"), "step", False),
        (("conv1", "head"), "layer", False),
    ],
)
def test_only_what_counts_on_is_a_curve(x: tuple[str, ...], axis: str, curve: bool) -> None:
    assert is_curve(Series(x=x, axis=axis, original=(), unlearned=(), retrained=())) is curve


def test_a_chart_tells_the_number_that_is_judged_or_why_none_is() -> None:
    known = replace(example_findings()[0], band=(0.95, 1.0), unlearned=0.972, note=None)
    assert judged(known) == "Judged: 97.2 % against a band of 95.0 % to 100.0 %, inside."
    assert judged(replace(known, inside=False)).endswith(", outside.")
    assert judged(replace(known, inside=None, band=None, note="no reference")) == "Not judged: no reference."
    losses = replace(known, name="membership/loss/auc", level=None, note="only informs: 37 rows, where 100 are needed")
    assert judged(losses).startswith("Counts for no level: 37 rows, where 100 are needed. The question is whether")
    assert judged(replace(losses, name="few_shot/area/1_shots", note=None)) == "Counts for no level."


def judged(finding: Finding) -> str:
    made = chart(finding)
    assert made is not None
    return made.about.split(". ", 1)[1]


def test_retrained_networks_are_shown_by_mean_and_range() -> None:
    series = Series(
        x=("a", "b"),
        axis="layer",
        original=(1.0, 1.0),
        unlearned=(1.0, 1.0),
        retrained=((1.0, 4.0), (2.0, 6.0), (6.0, 5.0)),
    )
    bar = figure(chart_of(series))["data"][2]
    assert (bar["name"], bar["y"]) == ("retrained", [3, 5])
    assert (bar["error_y"]["array"], bar["error_y"]["arrayminus"]) == ([3, 1], [2, 1])
    assert chart_of(series).rows[1] == ("b", "1", "1", "5 (4 to 6)")


def test_a_hundred_classes_are_points_with_names_that_have_room() -> None:
    names = tuple(f"class number {number}" for number in range(100))
    made = chart_of(per_class(names, forgotten=42), forgotten=(names[42],))
    axis = figure(made)["layout"]["xaxis"]
    assert {trace["type"] for trace in figure(made)["data"]} == {"scatter"}
    assert len(axis["tickvals"]) <= 25
    assert axis["ticktext"][axis["tickvals"].index(42)].startswith("<b>")
    assert len(made.rows) == 100
    assert made.wide


def test_places_without_a_number_are_left_empty() -> None:
    series = Series(x=("a", "b"), axis="layer", original=(), unlearned=(1.0,), retrained=((), ()))
    made = chart_of(series)
    assert [trace["name"] for trace in figure(made)["data"]] == ["unlearned"]
    assert made.rows[1] == ("b", "not known", "not known", "not known (not known to not known)")


def test_dots_lie_where_their_numbers_are() -> None:
    finding = replace(example_findings()[4], original=0.0, unlearned=1.0, retrained=0.5, band=(0.25, 0.75))
    places = dots(finding)
    assert places is not None
    assert (places.original, places.unlearned, places.retrained) == (EDGE, 100 - EDGE, 50)
    assert places.band == (28, 44)
    assert (places.low, places.high) == ("0", "1")


def test_a_share_is_never_drawn_or_written_beyond_what_can_be() -> None:
    finding = replace(example_findings()[0], original=1.0, unlearned=1.0, retrained=1.0, band=(0.98, 1.4))
    places = dots(finding)
    assert places is not None
    assert (places.low, places.high) == ("95.0 %", "100.0 %")
    assert span(finding.band, finding.name) == "98.0 % to 100.0 %"


def test_fewer_than_two_numbers_give_no_dots() -> None:
    assert dots(replace(example_findings()[0], unlearned=None, retrained=None, band=None)) is None
    assert dots(replace(example_findings()[0], original=None, unlearned=None, retrained=None, band=None)) is None


def test_numbers_are_written_for_people() -> None:
    assert [percent(x) for x in (0.0, 0.0001, 0.986, 0.9999, 1.0, None, float("nan"))] == [
        "0.0 %", "under 0.1 %", "98.6 %", "over 99.9 %", "100.0 %", "not known", "not known",
    ]  # fmt: skip
    assert [decimal(x) for x in (0.0, -0.1234, 12345.6, 1e-9)] == ["0", "\u22120.123", "12,346", "1e\u221209"]
    assert [seconds(x) for x in (0.00042, 0.421, 200.0, 7300.0)] == ["under 1 ms", "0.421 s", "3 min 20 s", "2 h 1 min"]
    assert seconds(None) == "not known"
    assert [scaled(x, "FLOP") for x in (0.0, 1.25e9, None)] == ["0 FLOP", "1.25 GFLOP", "not known"]
