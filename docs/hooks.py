"""What mkdocs does besides: the page of commands, and the files outside docs/ that pages link to.

On GitHub ``../benchmarks/results/digits.json`` leads out of docs/; the site has no outside, so the file is copied to
``benchmarks/results/digits.json`` and the link follows it.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(?<=\]\()\.\./([^)#\s]+)")
"""The target of a link that leaves docs/."""
NOTEBOOK_LINK = re.compile(r'(?<=href=")(\w+)\.md"')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of commands, and every file outside docs/ that a page links to."""
    linked = {path for page in files.documentation_pages() for path in OUTSIDE.findall(page.content_string)}
    for path in sorted(linked):
        if (ROOT / path).is_file():  # any other is left for mkdocs to warn of
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page with links to the copies."""
    return OUTSIDE.sub(r"\1", markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Return the page; links of a notebook to other pages, which mkdocs leaves as they are, follow them."""
    return NOTEBOOK_LINK.sub(r'\1.html"', output) if page.file.src_uri.endswith(".ipynb") else output


def commands() -> str:
    """Return the page of commands as typer writes it."""
    typer = [sys.executable, "-m", "typer", "expunge.cli", "utils", "docs", "--name", "expunge"]
    page = subprocess.run(typer, check=True, capture_output=True, text=True).stdout  # noqa: S603  # no word of a user
    return page.replace("# `expunge`", "# Commands", 1)
