"""The command audit. Imports nothing heavy until it runs."""

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli.machine import Machine, on_machine
from expunge.cli.options import (
    BackendOption,
    BuilderOption,
    ClassesOption,
    DataOption,
    DryRunOption,
    JobsOption,
    OverwriteOption,
    RequireOption,
    RowsOption,
    SeedOption,
    SetOption,
    StackedOption,
    ViewsOption,
    cache_of,
    listed,
    tell_dry_run,
    tell_result,
    workers_of,
)
from expunge.errors import SettingsError


@on_machine
def audit(
    context: typer.Context,
    machine: Machine,
    original: Annotated[str, typer.Argument(metavar="ORIGINAL", help="Folder of the original, or hf-hub:USER/NAME.")],
    unlearned: Annotated[str, typer.Argument(metavar="UNLEARNED", help="Folder of the unlearned model.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Result file to write.")] = Path("result.json"),
    retrained: Annotated[
        list[str] | None,
        typer.Option(help="Model folder of a model retrained without the rows; L1 takes three or more."),
    ] = None,
    references: Annotated[
        int, typer.Option(min=0, help="Retrained models to train, or to take from the cache, in place of --retrained.")
    ] = 0,
    classes: ClassesOption = None,
    rows: RowsOption = None,
    audits: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Audits, separated by commas; see `expunge list audits`.")
    ] = None,
    views: ViewsOption = None,
    network: BuilderOption = None,
    seed: SeedOption = 0,
    assignments: SetOption = None,
    jobs: JobsOption = None,
    backend: BackendOption = "local",
    stacked: StackedOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    require: RequireOption = None,
) -> None:
    """Audit an unlearned model beside its original and retrained ones. --set: dataset.KEY."""
    from expunge.auditing import audit_folders, plan_audit
    from expunge.dry_run import rehearse_audit
    from expunge.experiment import experiment_from
    from expunge.forgetting import say
    from expunge.request import parse_request
    from expunge.settings import build, from_assignments, sort_out

    if retrained and references:
        raise SettingsError(f"expected --retrained or --references, got both ({len(retrained)} and {references})")
    chosen = sort_out(from_assignments(assignments or []), home=None, tables=("dataset",))
    asked = experiment_from(listed(audits=audits, views=views))
    plan = plan_audit(
        original,
        unlearned,
        retrained or [],
        parse_request(classes or [], rows) if classes or rows else None,  # what it is made for stands in its folder
        build("datasets", {"name": data} | chosen["dataset"]),
        asked.audits,
        out,
        seed=seed,
        overwrite=overwrite,
        references=references,
        stacked=stacked or 0,
        builder=network,
        views=asked.views,
    )
    runtime, cache = machine.runtime(context, seed), cache_of(references == 0)
    if dry_run:
        tell_dry_run(context, f"audit, {say(plan.parts)}", rehearse_audit(plan, runtime, cache), audits=True)
        return
    result = audit_folders(plan, asked.audits, runtime, cache=cache, workers=workers_of(jobs, backend))
    tell_result(context, result, require, [out])
