"""The command line: parses, calls one function, prints. Imports nothing heavy until a command runs."""

import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import expunge
from expunge.cli.audit import audit
from expunge.cli.compare import compare
from expunge.cli.convert import convert
from expunge.cli.listing import list_all
from expunge.cli.machine import Machine, on_machine
from expunge.cli.options import (
    BackendOption,
    BuilderOption,
    ClassesOption,
    DataOption,
    DryRunOption,
    HeadOption,
    JobsOption,
    JsonOption,
    NoCacheOption,
    Output,
    OverwriteOption,
    QuietOption,
    RequireOption,
    RowsOption,
    SeedOption,
    SetOption,
    StackedOption,
    ViewsOption,
    cache_of,
    listed,
    printable,
    speaking,
    tell_dry_run,
    tell_result,
    workers_of,
)
from expunge.cli.population import population
from expunge.cli.report import report
from expunge.cli.tune import tune
from expunge.errors import ExpungeError, StoppedError

UsageError: type[BaseException] = typer.BadParameter.__mro__[1]
"""What typer raises for words that it cannot parse; it has no public name there."""

app = typer.Typer(
    help="Make a trained neural network forget, fast, and prove how well it worked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(population, name="population")


def tell_version(asked: bool) -> None:
    """Print the version, before anything else is looked at, and stop."""
    if asked:
        typer.echo(f"expunge {expunge.__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=tell_version)
    ] = False,
) -> None:
    """Make a trained neural network forget, fast, and prove how well it worked."""
    context.obj = Output(quiet=quiet, as_json=as_json)


@app.command()
@speaking
@on_machine
def demo(
    context: typer.Context,
    machine: Machine,
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("runs/demo"),
    seed: SeedOption = 0,
    views: ViewsOption = None,
    no_cache: NoCacheOption = False,
    overwrite: OverwriteOption = False,
    require: RequireOption = None,
) -> None:
    """Make a network trained on real digits forget the threes, audit it and write the report."""
    from expunge.experiment import experiment_from
    from expunge.experiment import run as run_experiment

    experiment = experiment_from({"seed": seed, **listed(views=views)})
    runtime = machine.runtime(context, seed)
    result = run_experiment(experiment, runtime, out, overwrite=overwrite, cache=cache_of(no_cache))
    tell_result(context, result, require, [out / "result.json", out / "report.html"])


@app.command()
@speaking
@on_machine
def run(
    context: typer.Context,
    machine: Machine,
    experiment: Annotated[Path, typer.Argument(help="A TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make; runs/NAME if not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random streams, in place of the file's.")] = None,
    assignments: SetOption = None,
    views: ViewsOption = None,
    no_cache: NoCacheOption = False,
    jobs: JobsOption = None,
    backend: BackendOption = "local",
    stacked: StackedOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    require: RequireOption = None,
) -> None:
    """Run the whole story from one file: train, forget, retrain, audit, report."""
    from dataclasses import replace

    from expunge.dry_run import rehearse_run
    from expunge.experiment import experiment_from
    from expunge.experiment import run as run_experiment
    from expunge.settings import from_assignments, from_toml, merge, read_text

    values = merge(from_toml(read_text(experiment)), from_assignments(assignments or []))
    chosen = experiment_from(values | listed(views=views))
    chosen = chosen if seed is None else replace(chosen, seed=seed)
    chosen = chosen if stacked is None else replace(chosen, stacked=stacked)
    folder = out or Path("runs") / experiment.stem
    runtime, cache = machine.runtime(context, chosen.seed), cache_of(no_cache)
    if dry_run:
        found = rehearse_run(chosen, runtime, folder, overwrite=overwrite, cache=cache)
        tell_dry_run(context, str(experiment), found, audits=True)
        return
    result = run_experiment(
        chosen, runtime, folder, overwrite=overwrite, cache=cache, workers=workers_of(jobs, backend)
    )
    tell_result(context, result, require, [folder / "result.json", folder / "report.html"])


@app.command()
@speaking
@on_machine
def train(
    context: typer.Context,
    machine: Machine,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    network: Annotated[
        str, typer.Option(help="timm's name, torchvision:NAME, transformers:KIND or MODULE:NAME.")
    ] = "small_cnn",
    seed: SeedOption = 0,
    assignments: SetOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Train a network and write a model folder. --set: a training setting, dataset.KEY or network.args.KEY."""
    from expunge.dry_run import rehearse_training
    from expunge.network import Network
    from expunge.settings import build, from_assignments, from_mapping, sort_out
    from expunge.stages import train_folder
    from expunge.training import Training

    chosen = sort_out(from_assignments(assignments or []), home="training", tables=("dataset", "network"))
    asked = (
        build("datasets", {"name": data} | chosen["dataset"]),
        from_mapping(Network, {"name": network} | chosen["network"]),
        from_mapping(Training, chosen["training"]),
        out,
        machine.runtime(context, seed),
    )
    if dry_run:
        tell_dry_run(context, f"{network} on {data}", rehearse_training(*asked, overwrite=overwrite))
        return
    trained = train_folder(*asked, overwrite=overwrite)
    for event in trained.events:
        context.obj.note(event)
    accuracy = "not known" if trained.test_accuracy is None else f"{trained.test_accuracy:.1%}"
    context.obj.say(f"Trained {network} on {data} in {trained.seconds:.1f} s; test accuracy {accuracy}.\n{out}")
    context.obj.value({"out": str(out), "test_accuracy": trained.test_accuracy, "seconds": trained.seconds})


@app.command()
@speaking
@on_machine
def forget(
    context: typer.Context,
    machine: Machine,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of the original, or hf-hub:USER/NAME.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    classes: ClassesOption = None,
    rows: RowsOption = None,
    method: Annotated[str, typer.Option(help="How; see `expunge list methods`.")] = "unsir",
    head: HeadOption = "keep",
    network: BuilderOption = None,
    seed: SeedOption = 0,
    assignments: SetOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a model forget and write the new model's folder. --set: a setting of the method, or dataset.KEY."""
    from expunge.dry_run import rehearse_forgetting
    from expunge.forgetting import say
    from expunge.request import parse_request
    from expunge.settings import build, from_assignments, sort_out
    from expunge.stages import as_trained, forget_folder, plan_forgetting

    chosen = sort_out(from_assignments(assignments or []), home="method", tables=("dataset",))
    plan = plan_forgetting(
        model,
        parse_request(classes or [], rows),
        build("datasets", {"name": data} | chosen["dataset"]),
        build("methods", {"name": method} | chosen["method"]),
        out,
        seed=seed,
        overwrite=overwrite,
        head=head,
        builder=network,
    )
    plan = as_trained(plan, chosen["method"])
    if dry_run:
        found = rehearse_forgetting(plan, machine.runtime(context, seed))
        tell_dry_run(context, f"{method}, {say(plan.parts)}", found)
        return
    forgotten = forget_folder(plan, machine.runtime(context, seed))
    read, before = forgotten.access["forget"], ""
    if plan.parts.earlier:
        count = plan.parts.earlier_rows
        before = f"; {count} row{'' if count == 1 else 's'} of earlier requests left alone"
    context.obj.say(
        f"{method}, {say(plan.parts)}: {forgotten.bill.seconds['total']:.2f} s, "
        f"{read.reads} reads of forgotten rows{before}.\n{out}"
    )
    for event in forgotten.bill.events:
        context.obj.note(event)
    context.obj.value({"out": str(out), "cost": asdict(forgotten.bill), "forget_reads": read.reads})


for command in (audit, convert, compare, tune, report):
    app.command()(speaking(command))
app.command("list")(speaking(list_all))


def main() -> None:
    """Run the command line; exit 0, 1 (requirement failed), 2 (bad input), 3 (process lost) or 130 (interrupted)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False) or 0
        if code == 130:  # typer's, which says nothing of an interruption
            code = _fail("interrupted", 130)
    except ExpungeError as error:
        code = _fail(str(error), 130 if isinstance(error, StoppedError) else 2)
    except UsageError as error:
        told: str = error.format_message()  # type: ignore[attr-defined]  # with the option's name
        code = (
            _fail(told.replace("Value error, ", ""), 2) if str(error) else 2
        )  # without any word typer has shown the help
    except OSError as error:
        code = _fail(f"expected to read or write {error.filename or 'a file'}, got: {error.strerror or error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 130)
    except RuntimeError as error:
        from expunge.processes import other_lost

        if not other_lost(error):
            raise
        code = _fail("another process has ended, and this one with it: repeat the same command to go on", 3)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    """Say what went wrong, in the first of several processes, and return the exit code.

    With ``--debug`` the traceback of the exception that is being handled stands before it.
    """
    if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":
        if "--debug" in sys.argv:
            typer.echo(traceback.format_exc(), err=True)
        typer.echo(f"expunge: {printable(' '.join(message.split()))}", err=True)
    return code
