"""The command tune. Imports nothing heavy until it runs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from expunge.cli.machine import Machine, on_machine
from expunge.cli.options import BuilderOption, ClassesOption, DataOption, OverwriteOption, SeedOption, SetOption

if TYPE_CHECKING:
    from expunge.tuning import Tuning


@on_machine
def tune(
    context: typer.Context,
    machine: Machine,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of the original, or hf-hub:USER/NAME.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="JSON file to write: the best settings and all trials.")],
    classes: ClassesOption = None,
    method: Annotated[str, typer.Option(help="What to tune; see `expunge list methods`.")] = "unsir",
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Settings to try; the first are those given.")] = 20,
    network: BuilderOption = None,
    seed: SeedOption = 0,
    assignments: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Try settings of a method, judged without test rows or any that it may not read, and name the best."""
    from expunge.request import parse_request
    from expunge.settings import build, from_assignments, sort_out
    from expunge.stages import as_trained, plan_forgetting, tune_folder

    chosen = sort_out(from_assignments(assignments or []), home="method", tables=("dataset",))
    plan = plan_forgetting(
        model,
        parse_request(classes or [], None),
        build("datasets", {"name": data} | chosen["dataset"]),
        build("methods", {"name": method} | chosen["method"]),
        out,
        seed=seed,
        overwrite=overwrite,
        builder=network,
    )
    found = tune_folder(as_trained(plan, chosen["method"]), machine.runtime(context, seed), trials=trials)
    context.obj.table(_table(found))
    best = found.trials[found.best].settings
    words = " ".join(f"--set {name}={value:.4g}" for name, value in best.items())
    context.obj.say(words or "the settings given are the best of these")
    context.obj.say(str(out))
    context.obj.value({"out": str(out)} | asdict(found))


def _table(found: "Tuning") -> Table:
    judged = "forgotten rows" if found.judged_on == "forget" else "made-up rows"
    table = Table("trial", "score", "kept", judged, "seconds", "settings", box=None)
    ranked = sorted(range(len(found.trials)), key=lambda number: -found.trials[number].score)
    for number in ranked[:10]:
        trial = found.trials[number]
        shown = ", ".join(f"{name}={value:.3g}" for name, value in trial.settings.items()) or "as given"
        numbers = ("-" if value is None else f"{value:.3f}" for value in (trial.kept, trial.remembered, trial.seconds))
        table.add_row(str(number), f"{trial.score:.3f}", *numbers, trial.failed or shown)
    return table
