"""What all commands share: options, and how to speak. Imports nothing heavy until a command runs."""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from expunge.cache import Cache
    from expunge.dry_run import DryRun
    from expunge.population import Workers
    from expunge.result import Result

SeedOption = Annotated[int, typer.Option(help="Seed of all random streams.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, predict time and memory from a few steps, and stop.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; dots reach into tables.")
]
DataOption = Annotated[str, typer.Option(help="Data set; see `expunge list datasets`.")]
ClassesOption = Annotated[
    list[str] | None, typer.Option(help="Classes to forget, by index or name, separated by commas.")
]
RowsOption = Annotated[
    str | None,
    typer.Option(help="Single training rows to forget, by number or file name, separated by commas; or @FILE of them."),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Train all retrained models anew; neither read nor fill the cache.")
]
JobsOption = Annotated[
    int | None,
    typer.Option(max=256, help="Processes that train models side by side, one thread each.", rich_help_panel="Machine"),
]
BackendOption = Annotated[str, typer.Option(help="Where --jobs run: local or ray.", rich_help_panel="Machine")]
StackedOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="Small networks to train at once as one stack; 0: one after another.", rich_help_panel="Machine"
    ),
]
BuilderOption = Annotated[
    str | None,
    typer.Option("--network", metavar="MODULE:NAME", help="Your own code that builds the network, to allow it to run."),
]
HeadOption = Annotated[
    Literal["keep", "drop"],
    typer.Option(help="Keep the outputs of forgotten classes, or drop them from the last layer."),
]
ViewsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="umap: maps by UMAP. gradcam: where networks look, on example images; the report then shows images that "
        "were to be forgotten.",
    ),
]
RequireOption = Annotated[
    Literal["L0", "L1", "L2", "L3", "L4"] | None,
    typer.Option(metavar="LEVEL", help="Exit with 1 unless the result reaches this level (L0 to L4)."),
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@dataclass(frozen=True)
class Output:
    """Where and how to speak: results on stdout, everything else on stderr."""

    quiet: bool
    as_json: bool

    @property
    def out(self) -> Console:
        """The console for results."""
        return Console(soft_wrap=not sys.stdout.isatty())

    @property
    def wide(self) -> bool:
        """Whether tables may take 100 columns."""
        return sys.stdout.isatty() and self.out.width >= 100

    def say(self, text: str) -> None:
        """Print a line for a person."""
        if not self.quiet and not self.as_json:
            self.out.print(printable(text), markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Print a line on how the work goes, beside the results."""
        if not self.quiet and not self.as_json:
            typer.echo(f"expunge: {printable(text)}", err=True)

    def table(self, table: Table) -> None:
        """Print a table for a person."""
        if not self.quiet and not self.as_json:
            Console(width=None if sys.stdout.isatty() else 80).print(table)

    def value(self, value: Any) -> None:
        """Print a value for a machine."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def speaking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options -q and --json, which then may stand before it or after it."""

    @wraps(command)
    def run(context: typer.Context, *, quiet: bool, as_json: bool, **given: Any) -> None:
        before: Output = context.obj
        context.obj = Output(quiet=before.quiet or quiet, as_json=before.as_json or as_json)
        command(context=context, **given)

    own = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", QuietOption), ("as_json", JsonOption))
    ]
    kept = [value.replace(kind=inspect.Parameter.KEYWORD_ONLY) for value in own.parameters.values()]
    run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return run


def listed(**texts: str | None) -> dict[str, list[str]]:
    """Return the words of options that hold several, separated by commas, by name; nothing of those not given."""
    return {
        name: [word.strip() for word in text.split(",") if word.strip()]
        for name, text in texts.items()
        if text is not None
    }


def printable(text: str) -> str:
    """Return lines of text in which what would steer a terminal, or cannot be encoded, is spelt out as its number."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def cache_of(no_cache: bool) -> "Cache | None":
    """Return the cache, unless none is wanted."""
    from expunge.cache import Cache

    return None if no_cache else Cache.default()


def workers_of(jobs: int | None, backend: str) -> "Workers":
    """Return who trains."""
    from expunge.population import Workers, as_backend

    return Workers(jobs=jobs, backend=as_backend(backend))


def tell_dry_run(context: typer.Context, what: str, found: "DryRun", *, audits: bool = False) -> None:
    """Print what a command would do; `audits` says that it audits too, which is not foreseen."""
    from expunge.cli.terminal import in_words

    context.obj.say(in_words(what, found, audits=audits))
    context.obj.value(asdict(found) | ({"not_foreseen": ["audits"]} if audits else {}))


def tell_result(context: typer.Context, result: "Result", require: str | None, written: list[Path]) -> None:
    """Print a result; exit with 1 if it does not reach the required level."""
    from expunge.cli.terminal import findings_table
    from expunge.report.verdict import verdict
    from expunge.result import meets

    context.obj.table(findings_table(result, wide=context.obj.wide))
    context.obj.say(verdict(result))
    context.obj.say("\n".join(str(path) for path in written))
    context.obj.value(asdict(result))
    if require is not None and not meets(result.level, require):
        typer.echo(f"expunge: expected level {require}, got {result.level}", err=True)
        raise typer.Exit(1)
