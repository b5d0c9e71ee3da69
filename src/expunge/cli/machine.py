"""Machine: the options of every command that computes, on what and with how many processes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console

from expunge.cli.options import Output

if TYPE_CHECKING:
    from expunge.runtime import Runtime

PANEL = "Machine"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a command computes on; each field is an option of the command."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=PANEL)] = "auto"
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, 16-mixed or 64-true.", rich_help_panel=PANEL)] = (
        "32-true"
    )
    devices: Annotated[
        int, typer.Option(metavar="N", max=256, help="Processes on each machine, one per GPU.", rich_help_panel=PANEL)
    ] = 1
    num_nodes: Annotated[int, typer.Option(metavar="N", help="Machines.", rich_help_panel=PANEL)] = 1
    strategy: Annotated[
        str,
        typer.Option(help="ddp: each process holds the whole model; fsdp: they share it out.", rich_help_panel=PANEL),
    ] = "ddp"
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=256,
            help="Processes that read rows ahead; they change no result.",
            rich_help_panel=PANEL,
        ),
    ] = 0
    batch_norm: Annotated[
        str | None,
        typer.Option(
            help="In several processes: local (statistics of each one's rows) or sync (of the whole batch; GPUs).",
            rich_help_panel=PANEL,
        ),
    ] = None
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Send losses and findings to csv, tensorboard, wandb (leaves this machine) or mlflow; repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def runtime(self, context: typer.Context, seed: int) -> "Runtime":
        """Return the runtime of a command, with progress on stderr unless it must be silent.

        Of several processes only the first speaks from here on.

        Raises:
            SettingsError: Something is unknown, not there, or does not go together.
        """
        from expunge.cli.terminal import Bars
        from expunge.runtime import open_runtime
        from expunge.tracking import open_tracking

        tracking = open_tracking(self.track or [])
        chosen: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "track"
        }
        runtime = open_runtime(seed=seed, **chosen)
        if not runtime.fabric.is_global_zero:
            context.obj = Output(quiet=True, as_json=False)
        output: Output = context.obj
        bars = Bars(Console(stderr=True), quiet=output.quiet or output.as_json)
        context.call_on_close(tracking.close)
        return replace(runtime, progress=bars, tell=output.note, tracking=tracking)


def on_machine(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter ``machine`` the options of a Machine in its place."""
    known = get_type_hints(Machine, include_extras=True)
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=known[field.name]
        )
        for field in fields(Machine)
    ]

    @wraps(command)
    def run(*arguments: Any, **options_given: Any) -> None:
        machine = Machine(**{option.name: options_given.pop(option.name) for option in options})
        command(*arguments, machine=machine, **options_given)

    own = inspect.signature(command)
    kept = [
        value.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for value in own.parameters.values()
        if value.name != "machine"
    ]
    run.__signature__ = own.replace(parameters=[*kept, *options])  # type: ignore[attr-defined]
    return run
