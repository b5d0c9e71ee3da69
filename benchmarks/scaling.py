"""What a request costs as it names more classes, and as the training set grows while the retain subset stays.

A request is `split` and `run_method`: choosing rows, learning noise, impair, repair, and all checks. The images are
the procedural `shapes`, drawn when asked for, with 100 classes. The network has random weights: cost does not depend
on what it knows. Sizes take their turn within every repeat, and are timed by the processor time of this process;
operations are counted exactly. Memory is the most that a process of its own had in use, one process per size.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from expunge.cost import peak_memory_bytes
from expunge.data import Data, split
from expunge.datasets.shapes import Shapes
from expunge.forgetting import run_method
from expunge.methods.unsir import Unsir
from expunge.network import Network, rebuild
from expunge.request import Request
from expunge.result import environment
from expunge.runtime import open_runtime
from expunge.settings import describe, to_mapping

CLASSES, COUNTS = 100, (1, 5, 10, 20, 40)
ROWS = (10_000, 100_000, 1_000_000)
NETWORK = Network(name="small_cnn", args={"width": 8})
METHOD = Unsir(retain_rows_per_class=ROWS[0] // CLASSES)
Measured = dict[str, Any]


def shapes(rows: int) -> Shapes:
    return Shapes(classes=CLASSES, size=12, train_rows=rows, test_rows=1000)


def ask(data: Data, classes: int) -> Measured:
    """Make a fresh network forget so many classes; return what that took."""
    runtime = open_runtime(device="cpu")
    with runtime.seeded("train/init"):
        model = NETWORK.build(data)
    begun = time.process_time()
    parts = split(data, Request(classes=tuple(range(classes))))
    forgotten = run_method(METHOD, model, parts, runtime, rebuild(model))
    seconds = time.process_time() - begun
    return {
        "processor_seconds": seconds,
        "operations": forgotten.bill.flops,
        "wall_seconds_by_stage": forgotten.bill.seconds,
        "retain_rows": forgotten.access["retain"].rows,
        "retain_reads": forgotten.access["retain"].reads,
        "forget_reads": forgotten.access["forget"].reads,
    }


def compare(cases: dict[int, tuple[Data, int]], repeats: int) -> dict[str, Measured]:
    """Ask every case in turn, `repeats` times; return each beside the first case, which is the unit."""
    runs: dict[int, list[Measured]] = {case: [] for case in cases}
    first = next(iter(cases))
    ask(*cases[first])  # to warm up
    for repeat in range(repeats):
        for case in sorted(cases, reverse=repeat % 2 == 1):
            runs[case].append(ask(*cases[case]))
    table = {}
    for case, found in runs.items():
        pairs = zip(found, runs[first], strict=True)
        ratios = [one["processor_seconds"] / unit["processor_seconds"] for one, unit in pairs]
        table[str(case)] = {
            "processor_ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
            "operations_ratio": found[0]["operations"] / runs[first][0]["operations"],
            "runs": found,
        }
    return table


def memory(rows: int) -> dict[str, int]:
    """Return the bytes that a process of its own needs to forget a class: in all, and beyond what imports need."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory-of", str(rows)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    found: dict[str, int] = json.loads(output)
    return found


def memory_here(rows: int) -> dict[str, int]:
    before = peak_memory_bytes(torch.device("cpu"))
    ask(shapes(rows).load(), 1)
    peak = peak_memory_bytes(torch.device("cpu"))
    return {"peak": peak, "beyond_imports": peak - before}


def show(title: str, table: dict[str, Measured]) -> None:
    print(f"{title:>14} {'time':>7} {'spread':>15} {'operations':>11} {'memory':>7}")
    for case, row in table.items():
        ratio = row["processor_ratio"]
        share = f"{row['memory_ratio']:7.3f}" if "memory_ratio" in row else f"{'':7}"
        print(
            f"{case:>14} {ratio['median']:7.3f} {ratio['least']:7.3f} {ratio['most']:7.3f} "
            f"{row['operations_ratio']:11.3f} {share}",
            flush=True,
        )


def main() -> None:
    """Measure everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", type=int, help="print what one request of a set of so many rows needs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of is not None:
        print(json.dumps(memory_here(arguments.memory_of)))
        return
    if arguments.out is None:
        parser.error("expected --out")
    busy = os.getloadavg()[0]
    smallest = shapes(ROWS[0]).load()
    by_classes = compare({count: (smallest, count) for count in COUNTS}, arguments.repeats)
    show("classes", by_classes)
    by_rows = compare({rows: (shapes(rows).load(), 1) for rows in ROWS}, arguments.repeats)
    needed = {rows: memory(rows) for rows in ROWS}
    for rows, found in needed.items():
        by_rows[str(rows)] |= {"memory_bytes": found, "memory_ratio": found["peak"] / needed[ROWS[0]]["peak"]}
    show("training rows", by_rows)
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": {"before": busy, "after": os.getloadavg()[0]},
        "dataset": to_mapping(shapes(ROWS[0])),
        "network": to_mapping(NETWORK),
        "method": describe(METHOD),
        "by_classes": by_classes,
        "by_rows": by_rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
