"""How near a dry run comes: predicted against actual seconds and peak memory, each in a process of its own.

OMP_NUM_THREADS=1 python benchmarks/dry_run.py --out benchmarks/results/dry_run.json

Seconds are those that the one thread had of a processor, in the prediction and in what came of it, so that what else
the machine does is not measured; ``--wall`` takes the wall clock for both. Most of the memory of a process of small
networks is that of the libraries, so what the work took beyond it is told too.
"""

import argparse
import io
import json
import multiprocessing
import os
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import expunge.datasets.shapes  # what a forked process has imported already costs it no time
import expunge.dry_run  # noqa: F401
from expunge import cli
from expunge.cost import peak_memory_bytes
from expunge.result import environment

NETWORKS = {"mlp": 60, "small_cnn": 8, "resnet20": 2}
"""With the epochs that make each a work of some seconds."""
DATA = ["--data", "shapes", "--device", "cpu"]
DATA += ["--set", "dataset.train_rows=1500", "--set", "dataset.test_rows=500", "--set", "dataset.size=16"]
Told = tuple[dict[str, Any], dict[str, Any]]


def measure(clock: str, words: list[str]) -> Told:
    """Run a command here; return what it printed and what it took."""
    cpu = torch.device("cpu")
    ticking, before = time.perf_counter if clock == "wall" else time.process_time, peak_memory_bytes(cpu)
    with patch("sys.argv", ["expunge", "--json", *words]), patch("time.perf_counter", ticking):
        begun, wall, printed = ticking(), time.time(), io.StringIO()
        with redirect_stdout(printed):
            try:
                cli.main()
            except SystemExit as end:
                if end.code:
                    raise RuntimeError(f"expected exit code 0, got {end.code}: {words}") from None
        took = {"seconds": ticking() - begun, "wall_seconds": time.time() - wall}
    return json.loads(printed.getvalue()), took | {"bytes": peak_memory_bytes(cpu), "bytes_before": before}


def call(clock: str, words: list[str]) -> Told:
    """Run a command in a process of its own; return what it printed and what it took."""
    pool = multiprocessing.get_context("fork").Pool(1)
    told: Told = pool.apply(measure, (clock, words))
    pool.close()  # it ends by itself: the command has its own way with signals
    pool.join()
    return told


def compare(clock: str, network: str, name: str, words: list[str]) -> dict[str, Any]:
    """Predict a command, run it, and return both beside each other."""
    printed, dry = call(clock, [*words, "--dry-run"])
    forecast, actual = printed["forecast"], call(clock, words)[1]
    row = {
        "network": network,
        "command": name,
        "dry_run_seconds": dry["seconds"],
        "predicted_seconds": forecast["seconds"]["total"],
        "actual_seconds": actual["seconds"],
        "actual_wall_seconds": actual["wall_seconds"],
        "predicted_bytes": forecast["peak_memory_bytes"],
        "actual_bytes": actual["bytes"],
        "predicted_bytes_beyond_libraries": forecast["peak_memory_bytes"] - dry["bytes_before"],
        "actual_bytes_beyond_libraries": actual["bytes"] - actual["bytes_before"],
        "load_average": os.getloadavg()[0],
    }
    for what in ("seconds", "bytes", "bytes_beyond_libraries"):
        row[f"{what}_ratio"] = row[f"predicted_{what}"] / row[f"actual_{what}"]
    return row


def main() -> None:
    """Predict, run, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--methods", nargs="+", default=["unsir"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clock, rows = "wall" if arguments.wall else "processor", []
    with tempfile.TemporaryDirectory() as folder:
        for network, epochs in NETWORKS.items():
            model = f"{folder}/{network}"
            train = ["train", *DATA, "--network", network, "--set", f"epochs={epochs}", "--out", model]
            commands = {"train": train}
            for method in arguments.methods:
                forget = ["forget", model, *DATA, "--classes", "1", "--method", method]
                commands[f"forget, {method}"] = [*forget, "--out", f"{model}-{method}"]
            for name, words in commands.items():
                rows.append(compare(clock, network, name, words))
                print(json.dumps(rows[-1]), flush=True)
    worst = {
        what: max(max(row[f"{what}_ratio"], 1 / row[f"{what}_ratio"]) for row in rows) for what in ("seconds", "bytes")
    }
    told = {"threads": torch.get_num_threads(), "clock": clock, "worst_factor": worst}
    record = {**told, "environment": environment("cpu"), "rows": rows}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
