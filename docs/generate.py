"""Writes docs/methods.md from the files of the methods and from what was measured of them.

python docs/generate.py
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expunge.catalogue import Entry, entries
from expunge.data import PARTS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
RESULTS = {
    "digits": "methods-digits.json",
    "CIFAR-10": "methods-cifar10.json",
    "single rows of digits": "methods-digits-rows.json",
}
"""Data sets, and the files of benchmarks/results that say what every method did on them."""
STATUSES = ("reproduced", "not reproduced", "not tried", "no public number")
"""How the paragraph `Reproduction:` of a method's file may begin."""
TUNED = ", tuned"
CLASSES = """Each method as its paper sets it, and tuned with the same budget of trials. `forget_test` is the
accuracy left on the forgotten class, mean and worst; the gap is accuracy on retained test rows less that of retrained
networks, in points, mean and worst; "levels" counts the cases that reached each (of a method whose counts sum up to
fewer, so many cases were measured, and it was not tuned: each took 20 minutes); "inside" is the share of findings in
the band of retrained networks; cost is in passes over the training set."""
ROWS = """One training row in twenty, drawn at random, is to be forgotten, by each method as its paper sets it.
`forget` is the accuracy on these rows, mean and worst. Where the original itself is inside, no method has anything to
prove: what an audit cannot see of a row, it cannot see go. No level is reached then, by retrained networks neither. The
other columns are as above."""
HEAD = """# Methods

<!-- written by docs/generate.py: change the docstring of the method's file, and run it again -->

Each is one file of `src/expunge/methods`, named as on the command line; `expunge list methods NAME` tells the same.
[Which method](choosing.md) is for which situation. A guard hands a method the parts of the training data that it
**reads**, and no other. **Reproduction** says whether a number that its authors published came out here.
"""


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the page, with a table for each data set that has results (the `summary` of benchmarks/methods.py)."""
    methods = entries("methods")
    tables = [measured(data, summary, methods) for data, summary in results.items()]
    return "\n".join([HEAD, overview(methods), *tables, *map(section, methods)])


def overview(methods: list[Entry]) -> str:
    """Return one row for each method: what it reads, what it does, and whether it was reproduced."""
    rows = [(f"[{one.name}](#{one.name})", reads(one), sentence(one.summary), reproduction(one)[0]) for one in methods]
    return table(("method", "reads", "what it does", "reproduction"), rows)


def measured(data: str, summary: dict[str, Any], methods: list[Entry]) -> str:
    """Return what came out on one data set, each method as its paper sets it and tuned, with cost and controls."""
    known = {one.name: reads(one) for one in methods}
    rows = []
    for name, row in sorted(summary.items(), key=lambda item: -item[1].get("inside", -1)):
        method = name.removesuffix(TUNED)
        link = f"[{method}](#{method})" + name.removeprefix(method) if method in known else name
        rows.append((link, known.get(method, ""), *numbers(row)))
    single = "forget_test" not in summary["original"]
    columns = ("method", "reads", "forget" if single else "forget_test", "gap", "levels", "inside", "epochs' worth")
    return f"""## Measured on {data}

`python benchmarks/methods.py` ([{RESULTS[data]}](../benchmarks/results/{RESULTS[data]}): commands, settings, all
findings), {summary["original"]["cases"]} cases. {ROWS if single else CLASSES}

{table(columns, rows)}"""


def numbers(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one method's results; one that refused every case says why."""
    if not row["cases"]:
        _, _, reason = row["reason"].partition(": ")  # what comes first is the method and what it was to forget
        return (f"refused: {reason.partition(': choose')[0]}", "", "", "", "")
    forget, gap = row.get("forget_test") or row["forget"], row["retain_gap"]
    levels = ", ".join(f"{count} {level}" for level, count in reversed(row["levels"].items()) if count)
    cost = row["epoch_equivalents"]
    return (
        f"{forget['mean']:.3f} / {forget['worst']:.3f}",
        f"{100 * gap['mean']:+.1f} / {100 * gap['worst']:+.1f}",
        levels + (f"; refused {row['refused']}" if row["refused"] else ""),
        f"{row['inside']:.3f}",
        "" if cost is None else f"{cost:.2f}",
    )


def section(one: Entry) -> str:
    """Return all about one method: what it does, where it comes from, its settings."""
    status, words = reproduction(one)
    words = words.replace("``docs/methods.md``", "[small data](#measured-on-digits)").replace("``", "`")
    lines = [f"Reads {reads(one)}.", f"Reproduction: {status}{words}."]
    lines += ["Source: " + ", ".join(f"<{link}>" for link in one.links) + "."] if one.links else []
    settings = [
        (f"`{each.name}`", f"`{json.dumps(each.default)}`", f"{each.meaning} [{each.type.strip()}]")
        for each in one.settings
    ]
    told = table(("setting", "default", "meaning"), settings) if settings else "No settings.\n"
    return f"## {one.name}\n\n{sentence(one.summary)}\n\n{' '.join(lines)}\n\n{told}"


def reads(one: Entry) -> str:
    """Return the parts that a method reads, in words."""
    return " and ".join(part for part in PARTS if part in (one.reads or ())) or "nothing"


def reproduction(one: Entry) -> tuple[str, str]:
    """Return whether a method was reproduced and the words after that, from the paragraph of its file that says so.

    Raises:
        ValueError: There is no such paragraph, or it says something else than is foreseen.
    """
    told = re.search(r"^Reproduction: (.*?)(?:\n\n|\Z)", one.about, re.MULTILINE | re.DOTALL)
    words = " ".join(told[1].split()).removesuffix(".") if told else ""
    status = next((each for each in STATUSES if words.startswith(each)), None)
    if status is None:
        raise ValueError(f"expected 'Reproduction: ' and one of {STATUSES} in {one.name}, got {words!r}")
    return status, words.removeprefix(status)


def sentence(text: str) -> str:
    """Return text with a capital letter."""
    return text[:1].upper() + text[1:]


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    cells = [columns, ("---",) * len(columns), *rows]
    return "".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |\n" for row in cells)


def read_results() -> dict[str, dict[str, Any]]:
    """Return the summaries of those data sets that have results."""
    files = {data: ROOT / "benchmarks" / "results" / name for data, name in RESULTS.items()}
    return {data: json.loads(file.read_text())["summary"] for data, file in files.items() if file.exists()}


if __name__ == "__main__":
    PAGE.write_text(page(read_results()), encoding="utf-8")
