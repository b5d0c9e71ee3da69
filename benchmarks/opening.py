"""How long the reports take to open in Chromium from a file, without a network, and how large they are.

Opened is when the text can be read (the load event), drawn when every chart is. The comparison is made up by the tests:
as large as one of 20 methods by 10 classes by 3 seeds.

    PYTHONPATH=tests python benchmarks/opening.py runs/demo/report.html --out benchmarks/results/opening.json
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from expunge.report.comparison_page import render
from expunge.result import environment
from made_up import NAMES, made_up_comparison

REPEATS = 5
DRAWN = "[...document.querySelectorAll('.plot')].every((place) => place.querySelector('.main-svg'))"


def open_page(browser: Browser, path: Path) -> tuple[float, float, float]:
    """Return the seconds until words are painted, until the page is loaded, and until folded charts are drawn, too.

    A page counts as loaded once the charts that are not folded away are drawn. Each has a context of its own.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    begun = time.perf_counter()
    page.goto(path.absolute().as_uri())
    opened = time.perf_counter() - begun
    while not page.evaluate(DRAWN):
        time.sleep(0.02)
    drawn = time.perf_counter() - begun
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    context.close()
    return painted, opened, drawn


def measure(browser: Browser, path: Path) -> dict[str, Any]:
    """Return size and times of a page."""
    painted, opened, drawn = zip(*(open_page(browser, path) for _ in range(REPEATS)), strict=True)
    return {
        "bytes": path.stat().st_size,
        "painted_seconds": {"median": statistics.median(painted), "highest": max(painted)},
        "opened_seconds": {"median": statistics.median(opened), "highest": max(opened)},
        "drawn_seconds": {"median": statistics.median(drawn), "highest": max(drawn)},
    }


def main() -> None:
    """Open the pages and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/opening.json"))
    arguments = parser.parse_args()
    comparison = made_up_comparison()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "comparison.html"
        page.write_text(render(comparison), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        found = {
            "repeats": REPEATS,
            "chromium": browser.version,
            "report": measure(browser, arguments.report),
            "comparison": {"methods": len(NAMES), "worlds": len(comparison.worlds)} | measure(browser, page),
            "environment": environment("cpu"),
        }
        browser.close()
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
