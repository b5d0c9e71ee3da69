"""Makes the pictures of docs/gallery.md: the demo's report and a comparison, as Debian's Chromium shows them.

python docs/gallery.py
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "gallery"
DEMO = ["demo", "--out", "runs/demo"]
COMPARE = ["compare", *(f"experiments/digits-{name}.toml" for name in ("unsir", "finetune", "dissolve"))]
COMPARE += ["--seeds", "0,1,2", "--classes", "3,8", "--out", "runs/digits"]
DRAWN = "[...document.querySelectorAll('.plot')].every((place) => place.querySelector('.main-svg'))"


@dataclass(frozen=True)
class Shot:
    """A picture: of which page, in which scheme, from which section on (the top without one)."""

    name: str
    page: str
    scheme: Literal["light", "dark"]
    section: str | None = None


SHOTS = (
    Shot("report", "runs/demo/report.html", "light"),
    Shot("answers", "runs/demo/report.html", "dark", "look"),
    Shot("comparison", "runs/digits/comparison.html", "light"),
)


def take(shot: Shot, browser: Browser) -> None:
    """Write one picture, in the 256 colours that suffice."""
    page = browser.new_page(viewport={"width": 1280, "height": 1500}, color_scheme=shot.scheme)
    page.goto((ROOT / shot.page).as_uri())
    while not page.evaluate(DRAWN):  # the page's own policy forbids to wait for it from within
        page.wait_for_timeout(100)
    if shot.section:
        page.evaluate(f"document.getElementById('{shot.section}').scrollIntoView()")
        page.wait_for_timeout(500)
    file = PICTURES / f"{shot.name}.png"
    page.screenshot(path=file)
    Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    page.close()


def main() -> None:
    """Make both pages, unless they are there, and take all pictures."""
    for words, page in ((DEMO, SHOTS[0].page), (COMPARE, SHOTS[2].page)):
        if not (ROOT / page).exists():
            subprocess.run([sys.executable, "-m", "expunge", *words], check=True, cwd=ROOT)  # noqa: S603  # words of here
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for shot in SHOTS:
            take(shot, browser)
        browser.close()


if __name__ == "__main__":
    main()
