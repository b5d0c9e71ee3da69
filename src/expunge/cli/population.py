"""The commands of populations: build, list, clear. Imports nothing heavy until a command runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from expunge.cli.machine import Machine, on_machine
from expunge.cli.options import (
    BackendOption,
    JobsOption,
    SetOption,
    StackedOption,
    speaking,
    workers_of,
)

population = typer.Typer(
    help="Build, list and clear the cache of retrained models that run and audit take theirs from.",
    no_args_is_help=True,
)


@population.command()
@speaking
@on_machine
def build(
    context: typer.Context,
    machine: Machine,
    experiment: Annotated[Path, typer.Argument(help="A TOML file, as for `expunge run`.")],
    count: Annotated[
        int | None, typer.Option(min=0, help="Retrained models; the file's references if not given.")
    ] = None,
    unlearned: Annotated[
        int | None, typer.Option(min=0, help="Unlearned models; the file's population if not given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random streams, in place of the file's.")] = None,
    assignments: SetOption = None,
    jobs: JobsOption = None,
    backend: BackendOption = "local",
    stacked: StackedOption = None,
) -> None:
    """Train the models that an experiment needs and the cache has not, for run and audit to take from there."""
    from dataclasses import replace

    from expunge.cache import Cache
    from expunge.experiment import experiment_from
    from expunge.settings import from_assignments, from_toml, merge, read_text
    from expunge.stages import population_of

    chosen = experiment_from(merge(from_toml(read_text(experiment)), from_assignments(assignments or [])))
    chosen = chosen if seed is None else replace(chosen, seed=seed)
    chosen = chosen if stacked is None else replace(chosen, stacked=stacked)
    cache = Cache.default()
    made = population_of(
        chosen,
        chosen.references if count is None else count,
        chosen.population if unlearned is None else unlearned,
        machine.runtime(context, chosen.seed),
        cache=cache,
        workers=workers_of(jobs, backend),
    )
    told = {
        kind: {"models": len(members), "reused": sum(member.reused for member in members)}
        for kind, members in zip(("retrained", "unlearned"), made, strict=True)
    }
    for kind, numbers in told.items():
        context.obj.say(f"{numbers['models']} {kind} models, {numbers['reused']} of them from the cache.")
    context.obj.say(str(cache.folder))
    context.obj.value({"cache": str(cache.folder)} | told)


@population.command("list")
@speaking
def list_all(context: typer.Context) -> None:
    """List the models in the cache: what each is and what making it took."""
    from expunge.cache import Cache
    from expunge.cli.terminal import population_table

    cache = Cache.default()
    entries = cache.entries()
    context.obj.table(population_table(entries))
    size = sum(entry.bytes for entry in entries) / 1e6
    context.obj.say(f"{len(entries)} models, {size:.1f} MB\n{cache.folder}")
    context.obj.value({"cache": str(cache.folder), "models": [asdict(entry) for entry in entries]})


@population.command()
@speaking
def clear(context: typer.Context) -> None:
    """Remove all models from the cache; they can be trained again."""
    from expunge.cache import Cache

    cache = Cache.default()
    removed = cache.clear()
    context.obj.say(f"{removed} models removed.\n{cache.folder}")
    context.obj.value({"cache": str(cache.folder), "removed": removed})
