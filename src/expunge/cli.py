"""The command line: parses, calls one function, prints. Imports nothing heavy until a command runs."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from expunge.errors import ExpungeError

if TYPE_CHECKING:
    from expunge.data import Request
    from expunge.result import Result
    from expunge.runtime import Runtime

UsageError: type[BaseException] = typer.BadParameter.__mro__[1]
"""What typer raises for words that it cannot parse; it has no public name there."""

app = typer.Typer(
    help="Make a trained neural network forget, fast, and prove how well it worked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel="Machine")]
PrecisionOption = Annotated[
    str, typer.Option(help="32-true, bf16-mixed, 16-mixed or 64-true.", rich_help_panel="Machine")
]
SeedOption = Annotated[int, typer.Option(help="Seed of all random streams.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; dots reach into tables.")
]
DataOption = Annotated[str, typer.Option(help="Data set; see `expunge list datasets`.")]
ClassesOption = Annotated[
    list[str] | None, typer.Option(help="Classes to forget, by index or name, separated by commas.")
]
RowsOption = Annotated[str | None, typer.Option(help="Single training rows to forget, separated by commas.")]
RequireOption = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="Exit with 1 unless the result reaches this level (L0 to L4).")
]


@dataclass(frozen=True)
class Output:
    """Where and how to speak: results on stdout, everything else on stderr."""

    quiet: bool
    as_json: bool

    @property
    def out(self) -> Console:
        """The console for results."""
        return Console(soft_wrap=not sys.stdout.isatty())

    def say(self, text: str) -> None:
        """Print a line for a person."""
        if not self.quiet and not self.as_json:
            self.out.print(text, markup=False, highlight=False)

    def table(self, table: Table) -> None:
        """Print a table for a person."""
        if not self.quiet and not self.as_json:
            Console(width=None if sys.stdout.isatty() else 80).print(table)

    def value(self, value: Any) -> None:
        """Print a value for a machine."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


@app.callback()
def common(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Make a trained neural network forget, fast, and prove how well it worked."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("expunge"))
        raise typer.Exit
    context.obj = Output(quiet=quiet, as_json=as_json)


@app.command()
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("runs/demo"),
    device: DeviceOption = "auto",
    precision: PrecisionOption = "32-true",
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    require: RequireOption = None,
) -> None:
    """Make a network trained on real digits forget the threes, audit it and write the report."""
    from dataclasses import replace

    from expunge.experiment import Experiment
    from expunge.experiment import run as run_experiment

    experiment = replace(Experiment(), seed=seed)
    result = run_experiment(experiment, _runtime(context, device, precision, seed), out, overwrite=overwrite)
    _tell(context, result, require, [out / "result.json", out / "report.html"])


@app.command()
def run(
    context: typer.Context,
    experiment: Annotated[Path, typer.Argument(help="A TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder to make; runs/NAME if not given.")] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "32-true",
    seed: Annotated[int | None, typer.Option(help="Seed of all random streams, in place of the file's.")] = None,
    assignments: SetOption = None,
    overwrite: OverwriteOption = False,
    require: RequireOption = None,
) -> None:
    """Run the whole story from one file: train, forget, retrain, audit, report."""
    from dataclasses import replace

    from expunge.experiment import experiment_from
    from expunge.experiment import run as run_experiment
    from expunge.settings import from_assignments, from_toml, merge, read_text

    values = merge(from_toml(read_text(experiment)), from_assignments(assignments or []))
    chosen = experiment_from(values)
    chosen = chosen if seed is None else replace(chosen, seed=seed)
    folder = out or Path("runs") / experiment.stem
    result = run_experiment(chosen, _runtime(context, device, precision, chosen.seed), folder, overwrite=overwrite)
    _tell(context, result, require, [folder / "result.json", folder / "report.html"])


@app.command()
def train(
    context: typer.Context,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    network: Annotated[str, typer.Option(help="Any network that timm has; see `expunge list networks`.")] = "small_cnn",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "32-true",
    seed: SeedOption = 0,
    assignments: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Train a network and write a model folder. --set: a training setting, dataset.KEY or network.args.KEY."""
    from expunge.network import Network
    from expunge.settings import build, from_assignments, from_mapping, sort_out
    from expunge.stages import train_folder
    from expunge.training import Training

    chosen = sort_out(from_assignments(assignments or []), home="training", tables=("dataset", "network"))
    trained = train_folder(
        build("datasets", {"name": data} | chosen["dataset"]),
        from_mapping(Network, {"name": network} | chosen["network"]),
        from_mapping(Training, chosen["training"]),
        out,
        _runtime(context, device, precision, seed),
        overwrite=overwrite,
    )
    accuracy = "not known" if trained.test_accuracy is None else f"{trained.test_accuracy:.1%}"
    context.obj.say(f"Trained {network} on {data} in {trained.seconds:.1f} s; test accuracy {accuracy}.\n{out}")
    context.obj.value({"out": str(out), "test_accuracy": trained.test_accuracy, "seconds": trained.seconds})


@app.command()
def forget(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model folder of the original; it is left as it is.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    classes: ClassesOption = None,
    rows: RowsOption = None,
    method: Annotated[str, typer.Option(help="How; see `expunge list methods`.")] = "unsir",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "32-true",
    seed: SeedOption = 0,
    assignments: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and stop before the work.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a model forget and write the new model's folder. --set: a setting of the method, or dataset.KEY."""
    from expunge.forgetting import say
    from expunge.settings import build, describe, from_assignments, sort_out
    from expunge.stages import as_trained, forget_folder, plan_forgetting

    chosen = sort_out(from_assignments(assignments or []), home="method", tables=("dataset",))
    plan = plan_forgetting(
        model,
        _request(classes, rows),
        build("datasets", {"name": data} | chosen["dataset"]),
        build("methods", {"name": method} | chosen["method"]),
        out,
        seed=seed,
        overwrite=overwrite,
    )
    plan = as_trained(plan, chosen["method"])
    if dry_run:
        reads = {part: len(plan.parts[part]) for part in sorted(plan.method.reads)}
        told = ", ".join(f"{part} ({count} rows)" for part, count in reads.items()) or "nothing"
        context.obj.say(f"{method}, {say(plan.parts)}: would read {told} and write {out}.")
        context.obj.value({"method": describe(plan.method), "reads": reads, "out": str(out)})
        return
    forgotten = forget_folder(plan, _runtime(context, device, precision, seed))
    read = forgotten.access["forget"]
    context.obj.say(
        f"{method}, {say(plan.parts)}: {forgotten.bill.seconds['total']:.2f} s, "
        f"{read.reads} reads of forgotten rows.\n{out}"
    )
    context.obj.value({"out": str(out), "cost": asdict(forgotten.bill), "forget_reads": read.reads})


@app.command()
def audit(
    context: typer.Context,
    original: Annotated[Path, typer.Argument(help="Model folder of the original.")],
    unlearned: Annotated[Path, typer.Argument(help="Model folder of the unlearned model.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Result file to write.")] = Path("result.json"),
    retrained: Annotated[
        list[Path] | None,
        typer.Option(help="Model folder of a model retrained without the rows; two or more give bands."),
    ] = None,
    classes: ClassesOption = None,
    rows: RowsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "32-true",
    seed: SeedOption = 0,
    assignments: SetOption = None,
    overwrite: OverwriteOption = False,
    require: RequireOption = None,
) -> None:
    """Audit an unlearned model beside its original and retrained ones. --set: dataset.KEY."""
    from expunge.experiment import DEFAULT_AUDITS
    from expunge.settings import build, from_assignments, sort_out
    from expunge.stages import audit_folders

    chosen = sort_out(from_assignments(assignments or []), home=None, tables=("dataset",))
    result = audit_folders(
        original,
        unlearned,
        retrained or [],
        _request(classes, rows),
        build("datasets", {"name": data} | chosen["dataset"]),
        DEFAULT_AUDITS,
        out,
        _runtime(context, device, precision, seed),
        overwrite=overwrite,
    )
    _tell(context, result, require, [out])


@app.command()
def report(
    context: typer.Context,
    result: Annotated[Path, typer.Argument(help="A result.json.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    overwrite: OverwriteOption = False,
) -> None:
    """Write the report of a result: one HTML file that needs no network."""
    from expunge.files import write_text
    from expunge.report.page import render
    from expunge.result import Result, read

    write_text(out, render(read(Result, result)), overwrite=overwrite)
    context.obj.say(str(out))
    context.obj.value({"out": str(out)})


@app.command("list")
def list_all(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="methods, audits, datasets or networks.")],
    name: Annotated[str | None, typer.Argument(help="One of them: its settings, paper and what it reads.")] = None,
) -> None:
    """List methods, audits, data sets or networks, or tell all about one."""
    from expunge.catalogue import entries, entry
    from expunge.settings import as_kind
    from expunge.terminal import names_table, settings_table

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


def _runtime(context: typer.Context, device: str, precision: str, seed: int) -> "Runtime":
    from expunge.runtime import open_runtime
    from expunge.terminal import Bars

    output: Output = context.obj
    bars = Bars(Console(stderr=True), quiet=output.quiet or output.as_json)
    return open_runtime(device=device, precision=precision, seed=seed, progress=bars)


def _request(classes: list[str] | None, rows: str | None) -> "Request":
    from expunge.data import parse_request

    return parse_request(classes or [], rows)


def _tell(context: typer.Context, result: "Result", require: str | None, written: list[Path]) -> None:
    from expunge.report.verdict import verdict
    from expunge.result import meets
    from expunge.terminal import findings_table

    context.obj.table(findings_table(result))
    context.obj.say(verdict(result))
    context.obj.say("\n".join(str(path) for path in written))
    context.obj.value(asdict(result))
    if require is not None and not meets(result.level, require):
        typer.echo(f"expunge: expected level {require}, got {result.level}", err=True)
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; exit with 0, 1 (a requirement failed), 2 (bad input) or 130 (interrupted)."""
    try:
        code = app(standalone_mode=False) or 0
    except ExpungeError as error:
        if "--debug" in sys.argv:
            raise
        code = _fail(" ".join(str(error).split()), 2)
    except UsageError as error:
        code = _fail(str(error), 2) if str(error) else 2  # without any word typer has shown the help
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", 130)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    typer.echo(f"expunge: {message}", err=True)
    return code
