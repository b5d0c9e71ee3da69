"""The command list. Imports nothing heavy until it runs."""

from dataclasses import asdict
from typing import Annotated

import typer


def list_all(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="methods, audits, corruptions, datasets or networks.")],
    name: Annotated[str | None, typer.Argument(help="One of them: its settings, paper and what it reads.")] = None,
) -> None:
    """List methods, audits, corruptions, data sets or networks, or tell all about one."""
    from expunge.catalogue import entries, entry
    from expunge.cli.terminal import names_table, settings_table
    from expunge.settings import as_kind

    if name is None:
        found = entries(as_kind(kind))
        context.obj.table(names_table([(e.name, ", ".join(e.reads or ()), e.summary) for e in found]))
        context.obj.value([asdict(one) for one in found])
        return
    one = entry(as_kind(kind), name)
    context.obj.say(one.about)
    if one.settings:
        context.obj.table(settings_table([(s.name, str(s.default), f"{s.meaning} [{s.type}]") for s in one.settings]))
    context.obj.value(asdict(one))
