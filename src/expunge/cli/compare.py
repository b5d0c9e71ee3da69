"""The command compare. Imports nothing heavy until it runs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from expunge.cli.machine import Machine, on_machine
from expunge.cli.options import (
    BackendOption,
    JobsOption,
    NoCacheOption,
    OverwriteOption,
    SetOption,
    cache_of,
    workers_of,
)
from expunge.errors import SettingsError

if TYPE_CHECKING:
    from expunge.experiment import Experiment


@on_machine
def compare(
    context: typer.Context,
    machine: Machine,
    sources: Annotated[
        list[Path],
        typer.Argument(help="TOML files, one method each; or result.json files and folders with finished runs."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make, or to go on with.")] = Path("runs/comparison"),
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas; the files' own if not given. Three rank.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="each, or classes separated by commas, each forgotten by itself; the files' if not given."),
    ] = None,
    assignments: SetOption = None,
    no_cache: NoCacheOption = False,
    jobs: JobsOption = None,
    backend: BackendOption = "local",
    overwrite: OverwriteOption = False,
) -> None:
    """Compare methods in the same worlds, over seeds and classes, beside two controls; or compare finished runs."""
    from expunge.cli.terminal_comparison import comparison_table, remarks
    from expunge.comparison.run import compare_folders, run_comparison

    toml = [path for path in sources if path.suffix == ".toml"]
    if toml and len(toml) < len(sources):
        raise SettingsError("expected TOML files or finished runs, got both: compare finished runs in a second step")
    if toml:
        comparison = run_comparison(
            _experiments(toml, assignments or []),
            out,
            machine.runtime(context, 0),
            seeds=_seeds(seeds),
            classes=classes,
            overwrite=overwrite,
            cache=cache_of(no_cache),
            workers=workers_of(jobs, backend),
            say=context.obj.say,
        )
    elif seeds is not None or classes is not None or assignments:
        raise SettingsError("expected no --seeds, --classes or --set for finished runs, got some: give TOML files")
    else:
        comparison = compare_folders(sources, out, overwrite=overwrite)
    context.obj.table(comparison_table(comparison))
    for remark in remarks(comparison):
        context.obj.say(remark)
    context.obj.say(f"{out / 'comparison.json'}\n{out / 'comparison.html'}")
    context.obj.value(asdict(comparison))


def _experiments(paths: list[Path], assignments: list[str]) -> "dict[str, Experiment]":
    from expunge.experiment import experiment_from
    from expunge.settings import from_assignments, from_toml, merge, read_text

    experiments: dict[str, Experiment] = {}
    for path in paths:
        if path.stem in experiments:
            raise SettingsError(f"expected TOML files with different names, got {path.name} twice: rename one")
        experiments[path.stem] = experiment_from(merge(from_toml(read_text(path)), from_assignments(assignments)))
    return experiments


def _seeds(text: str | None) -> list[int]:
    words = [word.strip() for word in text.split(",")] if text is not None else []
    for word in words:
        if not word.isdecimal():
            raise SettingsError(f"expected seeds separated by commas, such as 0,1,2, got {text!r}")
    return list(dict.fromkeys(int(word) for word in words))
