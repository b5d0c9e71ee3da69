"""The command report. Imports nothing heavy until it runs."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from expunge.cli.options import OverwriteOption


def report(
    context: typer.Context,
    result: Annotated[Path, typer.Argument(help="A result.json or a comparison.json.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; report.html if no --card is asked for.")] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Model card to write, as README.md of the new model's folder; names nobody."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the report of a result or a comparison, one HTML file that needs no network, or the new model's card."""
    from expunge.comparison.record import Comparison
    from expunge.errors import DataError
    from expunge.files import check_free, write_text
    from expunge.report import comparison_page, page
    from expunge.report.card import render_card
    from expunge.result import Result, read

    if out is None and card is None:
        out = Path("report.html")
    for asked in filter(None, (out, card)):
        check_free(asked, overwrite=overwrite)
    wanted: list[tuple[Path | None, Callable[[], str]]]
    if _is_comparison(result):
        if card is not None:
            raise DataError(f"expected a result of one model for --card, got the comparison {result}")
        compared = read(Comparison, result)
        wanted = [(out, lambda: comparison_page.render(compared))]
    else:
        found = read(Result, result)
        wanted = [(out, lambda: page.render(found)), (card, lambda: render_card(found))]
    for path, make in wanted:
        if path is not None:
            write_text(path, make(), overwrite=overwrite)
            context.obj.say(str(path))
    context.obj.value({"out": None if out is None else str(out), "card": None if card is None else str(card)})


def _is_comparison(path: Path) -> bool:
    """Return whether a file holds methods side by side; one that cannot be read holds none."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return isinstance(found, dict) and "standings" in found
    return False
