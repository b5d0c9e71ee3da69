"""Destinations: what each model calls the rows that were to be forgotten, as rows of a confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from expunge.report.wording import clip, percent
from expunge.result import Answers, Result

COLUMNS = 12
"""The most classes that have a column; the rest share one."""
ROWS = 10
"""The most true classes that are shown."""
OTHERS = "all others"
NONE = "\u2013"
"""How a share of exactly nothing is written."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One share of the rows of a class."""

    text: str
    weight: int
    """How dark it is, 0 to 100."""
    right: bool
    """Whether the class named is the true one."""


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """The matrix: for each true class a line per model, for each class named a column."""

    part: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, int, tuple[tuple[str, tuple[Cell, ...]], ...]], ...]
    """True class, number of its rows, and the lines by model."""
    left_out: int
    """True classes that are not shown."""


def destinations(result: Result) -> Destinations | None:
    """Return where the forgotten rows go; None if the result does not say."""
    answers = result.views.answers if result.views else ()
    if result.views is None or not answers:
        return None
    most = sorted(answers, key=lambda one: -sum(one.original))[:ROWS]
    named = [sum(max(counts) for counts in _by_class(most, index)) for index in range(len(result.label_names))]
    columns = sorted(sorted(range(len(named)), key=lambda index: -named[index])[:COLUMNS])
    columns = [index for index in columns if named[index] > 0]
    rest = sum(number > 0 for number in named) > len(columns)
    return Destinations(
        part=result.views.part,
        columns=(*(clip(result.label_names[index], 12) for index in columns), *((OTHERS,) if rest else ())),
        blocks=tuple(
            (clip(result.label_names[one.label]), sum(one.original), _lines(one, columns, rest)) for one in most
        ),
        left_out=len(answers) - len(most),
    )


def _by_class(answers: Sequence[Answers], index: int) -> list[list[float]]:
    rows = ((one.original, one.unlearned, one.retrained) for one in answers)
    return [[float(counts[index]) for counts in models if counts] for models in rows]


def _lines(one: Answers, columns: Sequence[int], rest: bool) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    lines = []
    for role, counts in (("original", one.original), ("unlearned", one.unlearned), ("retrained", one.retrained)):
        if not counts:
            continue
        total = sum(counts)
        shares = [(counts[index] / total, index == one.label) for index in columns]
        shares += [(max(0.0, 1 - sum(share for share, _ in shares)), False)] if rest else []
        cells = (
            Cell(text=percent(share) if share else NONE, weight=round(100 * share), right=right)
            for share, right in shares
        )
        lines.append((role, tuple(cells)))
    return tuple(lines)
