"""The command report. Imports nothing heavy until it runs."""

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli.options import OverwriteOption


def report(
    context: typer.Context,
    result: Annotated[Path, typer.Argument(help="A result.json.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; report.html if no --card is asked for.")] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Model card to write, as README.md of the new model's folder; names nobody."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the report of a result, one HTML file that needs no network, or the card of the new model."""
    from expunge.files import check_free, write_text
    from expunge.report.card import render_card
    from expunge.report.page import render
    from expunge.result import Result, read

    if out is None and card is None:
        out = Path("report.html")
    asked = [(path, make) for path, make in ((out, render), (card, render_card)) if path is not None]
    for path, _ in asked:
        check_free(path, overwrite=overwrite)
    found = read(Result, result)
    for path, make in asked:
        write_text(path, make(found), overwrite=overwrite)
        context.obj.say(str(path))
    context.obj.value({"out": None if out is None else str(out), "card": None if card is None else str(card)})
