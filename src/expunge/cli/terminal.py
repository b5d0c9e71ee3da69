"""What the terminal shows: progress while work runs, tables when it is done. Builds; `cli` prints."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from expunge.cache import Listed
    from expunge.dry_run import DryRun
    from expunge.finding import Finding, Interval
    from expunge.result import Result

PATIENCE = 0.7
"""Seconds of a stage before its progress is shown."""
ROOM = 45
"""Letters that the name of a finding and how it is judged have on one line together."""


class Bars:
    """Progress of stages on a terminal: nothing for a short stage, a bar with rate and time left for a long one.

    A stage inside another is a line below it. Off a terminal nothing is shown.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._shown = console.is_terminal and not quiet
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            # what is written to a file while a bar is up stays in the file
            redirect_stdout=sys.stdout.isatty(),
        )

    @contextmanager
    def __call__(self, stage: str, steps: int) -> Iterator[Callable[[int], None]]:
        """Show one stage."""
        if not self._shown:
            yield lambda done: None
            return
        begun = time.perf_counter()
        task = self._bars.add_task(f"{stage:<12}", total=steps, rate="", visible=False)
        patience = threading.Timer(PATIENCE, self._show, [task])
        patience.daemon = True
        patience.start()
        pace = _Pace()

        def advance(done: int) -> None:
            self._bars.update(task, advance=done, rate=pace.after(done))

        try:
            yield advance
        finally:
            patience.cancel()
            patience.join()  # it may be showing the stage just now
            self._bars.remove_task(task)
            if not any(each.visible for each in self._bars.tasks):
                self._bars.stop()
        if (passed := time.perf_counter() - begun) > PATIENCE:
            self._console.print(Text(f"{stage:<12} {passed:6.1f} s", style="dim"))

    def _show(self, task: TaskID) -> None:
        self._bars.update(task, visible=True)
        self._bars.start()


class _Pace:
    """Steps a second since the first that was told, which may stand for all that were done before."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._done = 0

    def after(self, done: int) -> str:
        """Return the rate after so many more steps; none after the first, or of nothing."""
        now = time.perf_counter()
        if self._begun is None:
            self._begun = now
            return ""
        self._done += done
        passed = now - self._begun
        return "" if not self._done or not passed else rate(self._done / passed)


def rate(steps: float) -> str:
    """Return steps a second, or seconds a step where those are more."""
    return (
        f"{steps:.3g} steps/s"
        if 1 <= steps < 1000
        else f"{steps:.0f} steps/s"
        if steps >= 1
        else f"{1 / steps:.3g} s/step"
    )


def in_words(what: str, found: "DryRun", *, audits: bool) -> str:
    """Return what a command would do and is expected to take, a line for each stage and one for all."""
    forecast = found.forecast
    reads = ", ".join(f"{part} ({count} rows)" for part, count in found.reads.items()) or "nothing"
    lines = [f"{what}: would read {reads} and write {found.out}."]
    if found.to_train or found.cached:
        lines.append(f"Models to train for comparison: {found.to_train}; {found.cached} more are in the cache.")
    lines += [
        f"  {stage:<12} {forecast.seconds[stage]:8.1f} s  {steps:7} steps" for stage, steps in forecast.steps.items()
    ]
    if audits:
        lines.append(f"  {'audits':<12} not foreseen")
    total = f"  {'in all':<12} {forecast.seconds['total']:8.1f} s  {forecast.flops:.2e} operations, "
    return "\n".join([*lines, total + f"{forecast.peak_memory_bytes / 2**20:.0f} MiB at the peak"])


def findings_table(result: "Result", *, wide: bool) -> Table:
    """Return the findings that count, by level, at a width of 80 columns.

    At 100, `wide`, with the unlearned model's interval over rows. The caption says why some are not judged, and how
    many more only inform.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
    table.add_column("finding", overflow="fold")
    for column in ("original", "unlearned", *(("with other rows",) if wide else ()), "retrained"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("judged", no_wrap=True)
    room = ROOM - max((len(judged(one).plain) for one in result.findings if one.level is not None), default=0)
    for level in sorted({finding.level for finding in result.findings if finding.level is not None}):
        table.add_row(Text(f"L{level}", style="bold"))
        for finding in result.findings:
            if finding.level == level:
                table.add_row(
                    Text(in_lines(finding.name, room)),
                    *(number(value) for value in (finding.original, finding.unlearned)),
                    *((interval(finding.interval),) if wide else ()),
                    number(finding.retrained),
                    judged(finding),
                )
    counted = [finding for finding in result.findings if finding.level is not None]
    why = dict.fromkeys(finding.note for finding in counted if finding.inside is None and finding.note)
    lines = [f"not judged: {note}" for note in why]
    if informing := len(result.findings) - len(counted):
        lines.append(f"{informing} more only inform, and are in the report.")
    table.caption = Text("\n".join(lines)) if lines else None
    return table


def in_lines(name: str, room: int) -> str:
    """Return the name of a finding, indented; one of more letters than `room` goes on after its last slash."""
    if len(name) <= room:
        return f" {name}"
    first, _, last = name.rpartition("/")
    return f" {first}/\n   {last}" if first else f" {name}"


def population_table(entries: Sequence["Listed"]) -> Table:
    """Return the models of the cache at a width of 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("model", "data set", "network", "method", "request"):
        table.add_column(column, overflow="fold")
    for column in ("seed", "seconds"):
        table.add_column(column, justify="right")
    for listed in entries:
        if listed.entry is None:
            table.add_row(listed.name[:8], Text("damaged: will be made again", style="yellow"))
            continue
        key = listed.entry.key
        request = key["request"] or {}
        told = " ".join(f"{what} {', '.join(map(str, items[:4]))}" for what, items in request.items() if items)
        names = [str(key[part]["name"]) for part in ("dataset", "network", "method")]
        table.add_row(listed.name[:8], *names, told, str(key["seed"]), f"{listed.entry.seconds:.2f}")
    return table


def judged(finding: "Finding") -> Text:
    """Return whether a finding is inside the band, and if not how it misses it, in a word."""
    if finding.inside is None:
        return Text("not judged", style="yellow")
    if finding.inside:
        return Text("inside", style="green")
    return Text("outside" if finding.miss in (None, "unlike retrained") else finding.miss, style="red")


def number(value: float | None) -> str:
    """Return a number for a table; one that is not known says so."""
    return "-" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def interval(ends: "Interval | None") -> str:
    """Return an interval for a table; one that is not known says so."""
    return "-" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def settings_table(rows: Sequence[tuple[str, str, str]]) -> Table:
    """Return a table of settings: name, default, meaning."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("setting", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def names_table(rows: Sequence[tuple[str, str, str]]) -> Table:
    """Return a table of names: name, what it reads (empty where that means nothing), one sentence."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(reads for _, reads, _ in rows))
    for column in ("name", "reads", "what it does"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
