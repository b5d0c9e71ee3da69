"""What the terminal shows of a comparison: a table at 80 columns, and what must be said of it. Builds; `cli` prints."""

from rich import box
from rich.table import Table
from rich.text import Text

from expunge.comparison.record import Comparison, Pair, Standing
from expunge.comparison.statistics import Estimate
from expunge.result import LEVELS


def comparison_table(comparison: Comparison) -> Table:
    """Return the methods at a width of 80 columns, the best first if they are ranked, controls last."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("method", overflow="fold", max_width=22)
    table.add_column("passed (95 %)", justify="right", no_wrap=True)
    table.add_column("levels", overflow="fold")
    table.add_column("kept", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for one in comparison.standings:
        rank = Text("control", style="dim") if one.control else Text("-" if one.rank is None else str(one.rank))
        table.add_row(
            rank,
            Text(one.label),
            with_interval(one.quantities["passed"]),
            levels(one),
            points(one.quantities["kept"].mean),
            times(one.cost["time"].median),
        )
    return table


def remarks(comparison: Comparison) -> list[str]:
    """Return what must be said of a comparison, the loudest first."""
    faulty = [place for place in comparison.worlds if place.faults]
    said = [f"NOT TO BE TRUSTED: {place.name}: {fault}." for place in faulty for fault in place.faults]
    if faulty:
        said.append(
            f"A control went wrong in {len(faulty)} of {len(comparison.worlds)} worlds. Of a held-out retrained "
            "network bands let that happen in about one world of twenty."
        )
    without = [place for place in comparison.worlds if place.missing]
    if without:
        names = sorted({name for place in without for name in place.missing})
        said.append(f"No control {' and '.join(names)} in {len(without)} of {len(comparison.worlds)} worlds.")
    said.append(f"{comparison.ranking[:1].upper()}{comparison.ranking[1:]}.")
    said += [difference(pair) for pair in comparison.pairs if pair.quantity == "passed"]
    said.append(
        "passed: share of what can tell forgetting that is as in retrained networks; doing nothing has 0. "
        "kept: accuracy on kept test rows less that of retraining, in points. time: share of a retraining, median."
    )
    return said


def difference(pair: Pair) -> str:
    """Return a paired difference as one line; a star marks one that is no chance over seeds."""
    p = "" if pair.p is None else f", p {pair.p:.3f} (Holm)"
    return (
        f"{'*' if pair.apart else ' '} {pair.first} - {pair.second}: {with_interval(pair.difference, signed=True)}{p}"
    )


def with_interval(one: Estimate, *, signed: bool = False) -> str:
    """Return a mean with its interval over seeds, ``0.62 (0.51 to 0.73)``; what is not known says so."""
    if one.mean is None:
        return "-"
    form = "+.2f" if signed else ".2f"
    if one.low is None or one.high is None:
        return f"{one.mean:{form}}"
    return f"{one.mean:{form}} ({one.low:{form}} to {one.high:{form}})"


def levels(one: Standing) -> str:
    """Return the levels reached with their numbers of worlds, the highest first."""
    return ", ".join(f"{one.levels[level]} {level}" for level in reversed(LEVELS) if level in one.levels)


def points(share: float | None) -> str:
    """Return a difference of shares in points."""
    return "-" if share is None else f"{share * 100 + 0.0:+.2f}"


def times(ratio: float | None) -> str:
    """Return a share of the time of retraining."""
    return "-" if ratio is None else f"{ratio:.3f}"
