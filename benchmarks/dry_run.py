"""How near a dry run comes: predicted against actual seconds and peak memory, each in a process of its own.

OMP_NUM_THREADS=1 python benchmarks/dry_run.py --out benchmarks/results/dry_run.json

Seconds are those that the one thread had of a processor, in the prediction and in what came of it, so that what else
the machine does is not measured; ``--wall`` takes the wall clock for both. Most of the memory of a process of small
networks is that of the libraries, so what the work took beyond it is told too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from expunge.result import environment

NETWORKS = {"mlp": 60, "small_cnn": 12, "resnet20": 2}
"""With the epochs that make each a work of some seconds."""
DATA = ["--data", "shapes", "--device", "cpu"]
DATA += ["--set", "dataset.train_rows=1500", "--set", "dataset.test_rows=500", "--set", "dataset.size=16"]
MEASURED = """
import json, sys, time
if sys.argv.pop(1) == "processor":
    time.perf_counter = time.process_time
import torch
import expunge.datasets.shapes, expunge.dry_run
from expunge import cli
from expunge.cost import peak_memory_bytes
before = peak_memory_bytes(torch.device("cpu"))
begun, wall = time.perf_counter(), time.time()
try:
    cli.main()
except SystemExit as end:
    assert not end.code
told = {"seconds": time.perf_counter() - begun, "wall_seconds": time.time() - wall}
told |= {"bytes": peak_memory_bytes(torch.device("cpu")), "bytes_before": before}
print("MEASURED " + json.dumps(told))
"""


def call(clock: str, words: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command in a process of its own; return what it printed and what it took."""
    ran = subprocess.run(  # noqa: S603  the command is our own
        [sys.executable, "-c", MEASURED, clock, "--json", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    printed, measured = ran.stdout.strip().split("MEASURED ")
    return json.loads(printed), json.loads(measured)


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
