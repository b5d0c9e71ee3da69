"""Claims about the report: one page, complete, honest about what is missing, and deaf to what it is fed."""

import ast
import base64
import gzip
import os
import re
import textwrap
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import expunge.report
from examples import DIGITS, EXPERIMENT, changed, example_findings, example_result, noise
from expunge.finding import Finding, Series
from expunge.report import render
from expunge.report.comparison_page import render as render_comparison
from expunge.report.limits import limits, of_any, of_level
from expunge.report.paid import retraining_passes
from expunge.report.reproduce import as_toml
from expunge.report.titles import in_words, title
from expunge.report.wording import clip
from expunge.result import Picture, Result
from made_up import NAMES, made_up_comparison
from test_cli import call

ALLOWED = (
    "expunge.report",
    "expunge.result",
    "expunge.finding",
    "expunge.comparison.record",
    "expunge.comparison.statistics",
)
HOSTILE = '"></script><script>alert(1)</script><b>bold</b>&lt;i&gt;' + "x" * 10_000
RIGHT_TO_LEFT = "\u05e9\u05dc\u05d5\u05dd \u202e\u0645\u0631\u062d\u0628\u0627"


class Page(HTMLParser):
    """Every element with its attributes, and all text outside scripts and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += f" {data}"

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]


def named(label: str) -> Result:
    """Return the example with a label wherever a text from outside can stand."""
    names = (label, *DIGITS[1:])
    findings = tuple(
        replace(
            each, meaning=label, note=label, series=each.series and replace(each.series, x=(label, *each.series.x[1:]))
        )
        for each in example_findings()
        if each.name != "relearning/area"
    )
    one = Series(x=("a",), axis=label, original=(1.0,), unlearned=(1.0,), retrained=())
    findings += (replace(findings[0], name=label, series=one),)
    return example_result(
        label_names=names,
        findings=findings,
        experiment=EXPERIMENT | {"request": {"classes": [0]}, "method": {"name": label, label: label}},
        images=(Picture(kind=label, label=label, png=noise()), Picture(kind="noise", label=label, png='"><script>')),
        environment={label: label},
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(example_result()))


def test_the_page_needs_no_network() -> None:
    html = render(example_result())
    page = Page(html)
    loads = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "poster", "action", "data", "xlink:href")
    ]
    assert loads
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in loads)
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base"}
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_page_is_one_file_under_three_megabytes_with_plotly_once() -> None:
    html = render(example_result())
    assert len(html.encode()) < 3_000_000
    packed = [script for script in Page(html).scripts if len(script) > 1_000_000]
    assert len(packed) == 1
    assert len(re.findall(r"plotly\.js v\d", gzip.decompress(base64.b64decode(packed[0])).decode())) == 1


def test_a_page_without_charts_carries_no_plotly() -> None:
    findings = tuple(replace(each, series=None) for each in example_findings())
    assert len(render(example_result(findings=findings, views=None))) < 100_000


def test_the_page_holds_all_parts_in_order(page: Page) -> None:
    headings = [attributes["id"] for tag, attributes in page.elements if tag == "h2"]
    assert headings == ["limits", "facts", "findings", "look", "charts", "pictures", "again"]


def test_every_finding_stands_in_the_table_and_every_series_in_a_chart(page: Page) -> None:
    rows = [attributes for tag, attributes in page.elements if tag == "th" and attributes.get("role") == "rowheader"]
    assert len(rows) == len(example_findings())
    assert all(each.name in page.text and each.meaning in page.text for each in example_findings())
    assert sum(attributes.get("class") == "plot" for _, attributes in page.elements) == 4
    assert sum(attributes.get("class") == "plot linked" for _, attributes in page.elements) == 3


def test_no_read_of_what_is_to_be_forgotten_is_said_in_large(page: Page) -> None:
    assert "0 reads of rows to forget of which there are 146" in page.text
    read = example_result(access={"forget": {"rows": 146, "reads": 1460}})
    assert "1,460 reads of rows to forget" in Page(render(read)).text


def test_passes_are_set_against_retraining_first_and_seconds_second(page: Page) -> None:
    assert retraining_passes(example_result()) == pytest.approx(20 * 1291 / 1437)
    assert "2.31 passes over the training data a retraining takes 18; took 0.42 s, a retraining 3.94 s" in page.text
    assert "faster than" not in page.text
    unknown = example_result(experiment={}, cost=None)
    assert retraining_passes(unknown) is None
    assert "not known passes over the training data a retraining takes not known" in Page(render(unknown)).text


def test_it_is_said_what_the_seconds_of_a_retraining_are(page: Page) -> None:
    cost = example_result().cost
    assert cost is not None
    assert "timed as it was trained" in page.text
    assert "came from the cache" not in page.text
    reused = example_result(cost=replace(cost, reused=5))
    assert "5 of them came from the cache with the seconds of that day" in Page(render(reused)).text
    alone = example_result(cost=replace(cost, seconds={"total": 8.0}))
    assert "Seconds are by the clock on the wall." in Page(render(alone)).text


def test_the_interval_over_rows_stands_in_words_and_on_the_scale(page: Page) -> None:
    assert "Unlearned, with other rows: 0.0 % to 9.5 %" in page.text
    drawn = [
        attributes for tag, attributes in page.elements if attributes.get("class") == "interval" and "y1" in attributes
    ]
    assert len(drawn) == 1
    ends = [float(drawn[0][end].rstrip("%")) for end in ("x1", "x2")]
    assert ends == pytest.approx([6, 6 + 88 * 0.095 / 0.986], abs=0.01)  # of a scale from 0 to 98.6 %


def test_a_missing_number_is_not_known() -> None:
    missing = Finding(
        name="new/audit", level=2, original=None, unlearned=None, retrained=None, band=None, inside=None,
        better="retrained", meaning="Nothing.",
    )  # fmt: skip
    result = example_result(findings=(missing,), cost=None, access=None, rows={}, experiment={}, images=())
    text = Page(render(result)).text
    for what in (
        "not known right on forgotten test rows before: not known",
        "not known reads of rows to forget",
        "not known passes over the training data a retraining takes not known",
        "Operations not known",
        "The unlearned network was made elsewhere",
        "of one retraining not known",
        "forget not known not known not known",
        "Method not known",
        "Retrained networks not known",
        "new/audit not known not known not known not known not judged",
    ):
        assert what in text
    assert not re.search(r"\b(None|nan|inf)\b", text)


def test_a_hostile_label_is_only_text() -> None:
    hostile, harmless = Page(render(named(HOSTILE))), Page(render(named("y" * len(HOSTILE))))
    assert hostile.shape() == harmless.shape()
    assert len(hostile.scripts) == len(harmless.scripts)
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]
    assert "<script>alert(1)" in hostile.text
    assert "x" * 600 not in hostile.text.split("Settings: experiment.toml")[0]


def test_right_to_left_text_turns_nothing_else() -> None:
    assert clip(RIGHT_TO_LEFT) == "\u2068\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\u2069"
    assert "\u202e" not in render(named(RIGHT_TO_LEFT)).split('id="plotly"')[0]


def test_text_with_lone_surrogates_can_be_written() -> None:
    assert clip("a\ud800b\x00c") == "abc"
    assert clip(" \x00 ") == "(no name)"
    render(named("\ud800 label")).encode()


def test_a_picture_that_is_no_png_is_left_out_and_counted() -> None:
    page = Page(render(named("3")))
    assert sum(tag == "img" for tag, _ in page.elements) == 1
    assert "Pictures that cannot be read: 1." in page.text


def test_colours_are_all_in_the_style() -> None:
    html = render(example_result())
    for name in set(re.findall(r"var\((--[a-z]+)\)", html.split('id="plotly"')[0])):
        assert f"{name}:" in html.split("@media")[0]


def test_the_settings_come_back_from_toml() -> None:
    values = EXPERIMENT | {'odd "key"': {"text": 'a "b"\n\\ \x7f é \u202e', "list": [0.5, True], "deep": {"x": 1e-7}}}
    assert tomllib.loads(as_toml(values)) == values
    assert tomllib.loads(as_toml({"a": None, "b": [{"c": None, "d": 1}]})) == {"b": [{"d": 1}]}


def test_limits_grow_fewer_with_the_level() -> None:
    low, high = limits(example_result(findings=changed("accuracy/forget_test", inside=False))), limits(example_result())
    assert set(high) < set(low)
    assert any("features may still hold it" in text for text in high)
    control = example_result(experiment=EXPERIMENT | {"method": {"name": "head_mask"}})
    assert "head_mask" in limits(control)[0]


def test_levels_whose_bands_mostly_hold_the_original_too_are_told() -> None:
    told = "That every finding inside is evidence: "
    assert not any(text.startswith(told) for text in limits(example_result()))
    counted = [finding for finding in example_findings() if finding.level == 1]
    idle = tuple(replace(counted[0], name=f"membership/{number}", informative=False) for number in range(3))
    texts = limits(example_result(findings=(*example_findings(), *idle)))
    wanted = f"{told}3 of {3 + len(counted)} at level L1 have the original"
    assert [text[: len(wanted)] for text in texts if text.startswith(told)] == [wanted]


def test_what_is_not_proved_stands_below_the_levels_the_rest_of_it_folded(page: Page) -> None:
    before, after = page.text.split("Charts Pictures How to reproduce it", 1)
    assert "That the class is gone from inside" not in before
    assert after.index("That the class is gone from inside") < after.index("Nor does any report of this kind")
    assert after.index("Nor does any report of this kind") < after.index("Asked and done")
    assert set(limits(example_result())) == {*of_level(example_result()), *of_any(example_result())}


def test_charts_stand_by_level_and_only_the_first_are_unfolded(page: Page) -> None:
    folds = [attributes for tag, attributes in page.elements if attributes.get("class") == "print fold"]
    assert ["open" in each for each in folds] == [True, False, False, False]
    assert "Level L0: Which class does it name? 1 chart" in page.text
    assert "Counts for no level 1 chart" in page.text
    missed = render(example_result(findings=changed("relearning/area", inside=False)))
    assert "Level L3: How fast does it come back? 1 chart, 1 outside" in Page(missed).text


def test_the_report_imports_results_alone() -> None:
    folder = Path(expunge.report.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                assert not module.startswith("torch")
                own = module.startswith("expunge")
                assert not own or module.startswith(ALLOWED)


def test_the_words_of_the_report_are_as_they_were() -> None:
    """Change the golden file with ``UPDATE_GOLDEN=1 make test`` and read the difference."""
    text = textwrap.fill(Page(render(example_result())).text, 118) + "\n"
    golden = Path(__file__).parent / "golden" / "report.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_finding_of_the_default_audits_has_a_title_in_words() -> None:
    names = (
        "probe/forget_test/head",
        "probe/nearest_centre/trunk.0",
        "prototypes/balanced/10",
        "similarity/retrained/head",
        "information/index",
        "head/norm",
        "quantization/int8/forget_test",
        "batch_norm/retain_test",
        "weight_noise/0.3/forget_test",
    )
    assert not [name for name in names if "\u00b7" in title(name)]
    assert title("weight_noise/0.3/forget_test") == "Forgotten test rows, weights shaken by 30 %"
    assert title("probe/forget_test/head") == "Forgotten test rows named by a new layer on what the last layer reads"
    assert title("mine/of_it/<b>") == "Mine \u00b7 of it \u00b7 <b>"


def test_parts_of_the_data_are_told_in_words() -> None:
    assert in_words("share of forget_test by entropy") == "share of forgotten test rows by entropy"
    assert in_words("mean probability of each class over forget") == (
        "mean probability of each class over forgotten training rows"
    )
    assert in_words("share of training rows to forget") == "share of training rows to forget"


def test_the_command_makes_the_page_of_a_comparison_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = made_up_comparison(NAMES[:3], classes=2)
    source, page = tmp_path / "comparison.json", tmp_path / "comparison.html"
    source.write_text(compared.to_json())
    assert call(capsys, "report", str(source), "--out", str(page))[0] == 0
    assert page.read_text() == render_comparison(compared)
    code, _, err = call(capsys, "report", str(source), "--card", str(tmp_path / "README.md"))
    assert (code, (tmp_path / "README.md").exists()) == (2, False)
    assert "expected a result of one model for --card, got the comparison" in err
    source.write_text(compared.to_json().replace('"ranked"', '"rank"'))
    code, _, err = call(capsys, "report", str(source), "--out", str(tmp_path / "other.html"))
    assert (code, (tmp_path / "other.html").exists()) == (2, False)
    assert "expected a Comparison of schema 1 in" in err
