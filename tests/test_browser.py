"""Claims about the reports as a browser shows them: Debian's Chromium, from a file, without a network."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from examples import example_findings, example_result
from expunge.report import render
from expunge.report.comparison_page import render as render_comparison
from made_up import NAMES, made_up_comparison
from test_report import HOSTILE, RIGHT_TO_LEFT, named

CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'expunge[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
WIDTHS = (390, 1280, 1920)
LIMITS = {"report": 2.0, "comparison": 5.0}
"""Seconds that the readable page may take to open on an idle machine; a loaded one is given five times as many."""
DRAWN = "[...document.querySelectorAll('.plot')].every((place) => place.querySelector('.main-svg'))"


@dataclass
class Open:
    """An open page with all that went wrong on it."""

    page: Any
    seconds: float
    """Until its text could be read."""
    faults: list[str] = field(default_factory=list)

    def watch(self, own: str) -> None:
        """Note what goes wrong from now on: messages, errors, dialogs, and requests for anything but the page."""

        def requested(request: Any) -> None:
            if request.url != own and not request.url.startswith(("data:", "blob:")):
                self.faults.append(f"request: {request.url}")

        def asked(dialog: Any) -> None:
            self.faults.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        self.page.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", asked)
        self.page.on("request", requested)

    def wait(self, expression: str) -> None:
        """Wait until a JavaScript expression holds; the page's own policy forbids it to be asked for from within."""
        end = time.monotonic() + 60
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)


Opener = Callable[..., Open]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "report": render(example_result()),
        "comparison": render_comparison(made_up_comparison()),
        "small comparison": render_comparison(made_up_comparison(NAMES[:4], classes=2)),
        "hostile": render(named(HOSTILE)),
        "right-to-left": render(named(RIGHT_TO_LEFT)),
        "hostile comparison": render_comparison(made_up_comparison((HOSTILE, RIGHT_TO_LEFT, "unsir"), classes=2)),
    }
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, files: dict[str, Path]) -> Iterator[Opener]:
    contexts = []

    def open_page(name: str, width: int = 1280, scheme: str = "light", *, drawn: bool = True) -> Open:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine draws slowly
        made = Open(page=page, seconds=0.0)
        own = files[name].as_uri()
        made.watch(own)
        start = time.monotonic()
        page.goto(own)
        made.seconds = time.monotonic() - start
        if drawn:
            made.wait(DRAWN)
        return made

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_opens_from_a_file_whole_and_silent_light_and_dark(opened: Opener, name: str, width: int) -> None:
    made = opened(name, width)
    assert made.seconds < 5 * LIMITS[name]
    for scheme, paper, ink in (("light", "rgb(253, 252, 250)", "#5b5a56"), ("dark", "rgb(23, 24, 26)", "#a9a8a3")):
        made.page.emulate_media(color_scheme=scheme)
        made.wait(f"getComputedStyle(document.body).backgroundColor === '{paper}'")
        made.wait(f"[...document.querySelectorAll('.plot')].every((place) => place.layout.font.color === '{ink}')")
        assert made.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert made.faults == []


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_report_is_small_enough_to_mail(files: dict[str, Path], name: str) -> None:
    assert files[name].stat().st_size < 8_000_000


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("report", 1280, "light"), ("report", 390, "dark"), ("small comparison", 1280, "dark")],
)
def test_axe_finds_no_serious_fault(opened: Opener, name: str, width: int, scheme: str) -> None:
    made = opened(name, width, scheme)
    found = axe.Axe().run(made.page).response
    serious = [
        f"{each['id']}: {each['help']}, as in {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert found["passes"]


def test_methods_are_sorted_by_any_column_and_back(opened: Opener) -> None:
    page = opened("comparison", drawn=False).page
    passed = "[...document.querySelectorAll('.methods tbody tr')].map((row) => Number(row.cells[2].dataset.key))"
    head = page.get_by_role("columnheader", name="passed")
    head.get_by_role("button").click()
    up = page.evaluate(passed)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert up == sorted(up)
    assert page.evaluate(passed) == sorted(up, reverse=True)
    assert len(set(up)) > 10


def test_methods_are_filtered_by_every_word(opened: Opener) -> None:
    page = opened("comparison", drawn=False).page
    rows = page.locator(".methods tbody tr:visible")
    box = page.get_by_role("searchbox", name="Filter methods")
    assert rows.count() == len(NAMES) + 2
    box.fill("UNSIR")
    assert sorted(rows.locator("th b").all_inner_texts()) == ["unsir", "unsir_notebook"]
    assert "2 of 22 rows" in page.get_by_role("status").all_inner_texts()
    box.fill("unsir note")
    assert rows.locator("th b").all_inner_texts() == ["unsir_notebook"]
    box.fill("no such method")
    assert rows.count() == 0
    box.fill("")
    assert rows.count() == len(NAMES) + 2


def test_findings_of_the_report_are_filtered_with_their_tables(opened: Opener) -> None:
    page = opened("report", drawn=False).page
    page.get_by_role("searchbox").fill("relearning")
    assert page.locator(".findings:visible").count() == 1
    assert page.locator(".findings tbody tr:visible").count() == 1


def test_findings_that_only_inform_are_folded_away_until_they_are_searched_for(opened: Opener) -> None:
    page = opened("report", drawn=False).page
    informing = [finding for finding in example_findings() if finding.level is None]
    folded = page.locator("details.more .findings tbody tr:visible")
    assert folded.count() == 0 < len(informing)
    page.get_by_role("searchbox").fill(informing[0].name)
    assert folded.count() == 1
    page.get_by_role("searchbox").fill("")
    assert folded.count() == 0


def test_every_section_is_reached_from_the_top(opened: Opener) -> None:
    page = opened("report", drawn=False).page
    links = page.get_by_role("navigation").get_by_role("link")
    targets = [links.nth(place).get_attribute("href") for place in range(links.count())]
    assert targets == [
        "#" + heading for heading in page.evaluate("[...document.querySelectorAll('h2')].map((head) => head.id)")
    ]


def test_a_folded_chart_has_its_width_once_it_is_opened_by_key(opened: Opener) -> None:
    made = opened("report", 390)
    fold = made.page.locator("details.fold").nth(1)
    assert not fold.locator(".plot").is_visible()
    fold.locator("summary").first.press("Enter")
    fits = "(place) => Math.abs(place.querySelector('.main-svg').width.baseVal.value - place.clientWidth) < 2"
    made.wait(f"[...document.querySelectorAll('.fold[open] .plot')].filter({fits}).length === 2")
    assert made.faults == []


def test_a_page_counts_as_loaded_only_when_what_it_shows_is_drawn(opened: Opener) -> None:
    page = opened("report", drawn=False).page
    shown = "[...document.querySelectorAll('.plot')].filter((place) => place.checkVisibility())"
    assert page.evaluate(f"{shown}.length") > 0
    assert page.evaluate(f"{shown}.every((place) => place.querySelector('.main-svg'))")


def test_on_paper_everything_is_unfolded_and_drawn_in_two_columns(opened: Opener) -> None:
    made = opened("report", drawn=False)
    made.page.emulate_media(media="print")
    made.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    plots, width = "[...document.querySelectorAll('.fold .plot')]", "querySelector('.main-svg').width.baseVal.value"
    assert made.page.evaluate(f"{plots}.every((place) => place.checkVisibility())")
    assert made.page.evaluate(f"{plots}.map((place) => place.{width})") == [680] * 4  # each alone at its level
    columns = "getComputedStyle(document.querySelector('.charts')).gridTemplateColumns.split(' ').length"
    assert made.page.evaluate(columns) == 2
    made.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert made.page.locator("details.fold[open]").count() == 1


def test_on_a_narrow_screen_the_tables_of_a_comparison_are_stacked_and_nothing_is_cut_off(opened: Opener) -> None:
    made = opened("small comparison", 390, drawn=False)
    boxes = "[...document.querySelectorAll('.sideways:has(table.stack)')]"
    assert set(made.page.evaluate(f"{boxes}.map((box) => box.scrollWidth - box.clientWidth)")) == {0}
    cells = made.page.get_by_role("row").filter(has_text="accuracy/worst_retained_class").get_by_role("cell")
    heads = cells.evaluate_all("(cells) => cells.map((cell) => getComputedStyle(cell, '::before').content)")
    assert heads[:2] == ['"unsir"', '"gradient_ascent"']
    name = made.page.get_by_role("rowheader").filter(has_text="accuracy/worst_retained_class").bounding_box()
    assert all(cells.nth(place).bounding_box()["y"] >= name["y"] + name["height"] for place in range(cells.count()))
    passed = made.page.get_by_role("columnheader", name="passed")
    passed.get_by_role("button").click()
    assert passed.get_attribute("aria-sort") == "ascending"


def test_controls_are_marked_and_the_front_is_drawn(opened: Opener) -> None:
    page = opened("small comparison").page
    assert page.locator(".methods tr.control th b").all_inner_texts() == ["retrain", "head_mask"]
    lines = "[...document.querySelectorAll('.plot')][1].data.filter((trace) => trace.name === 'Pareto front').length"
    assert page.evaluate(lines) == 1


def test_hovering_over_a_bar_tells_its_number(opened: Opener) -> None:
    page = opened("report").page
    plot = page.locator(".charts .plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".barlayer .trace").first.locator("path").first.hover(force=True)
    plot.locator(".hovertext").first.wait_for()
    assert "original 100.0%" in plot.locator(".hovertext").first.text_content()


def test_hovering_over_a_row_shows_it_in_all_three_maps(opened: Opener) -> None:
    made = opened("report")
    middle = made.page.locator(".linked").nth(1)
    middle.scroll_into_view_if_needed()
    middle.locator(".scatterlayer .trace").nth(1).locator("path").nth(2).hover(force=True)
    made.page.locator(".linked .hovertext").nth(2).wait_for()
    assert made.page.locator(".linked .hovertext").all_text_contents() == ["3, to forget"] * 3
    assert made.faults == []


@pytest.mark.parametrize(("name", "width"), [("hostile", 1280), ("right-to-left", 390), ("hostile comparison", 390)])
def test_a_hostile_name_is_shown_as_text_and_breaks_nothing(opened: Opener, name: str, width: int) -> None:
    made = opened(name, width)
    assert made.faults == []
    assert made.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert made.page.evaluate("document.documentElement.scrollHeight") < 60_000
    shown = made.page.locator("body").inner_text()
    assert ("\u05e9\u05dc\u05d5\u05dd" if name == "right-to-left" else "<script>alert(1)") in shown
    assert made.page.locator("body b", has_text="bold").filter(has_not_text="<b>").count() == 0


def test_a_report_can_be_read_without_scripts(browser: Any, files: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(files["report"].as_uri())
    assert page.get_by_role("heading", name="What this does not prove").is_visible()
    assert page.locator(".findings tbody tr").count() == 8
    assert page.get_by_role("searchbox").count() == 0
    context.close()
