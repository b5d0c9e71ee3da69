"""How near a dry run comes: predicted against actual seconds and peak memory, each in a process of its own.

python benchmarks/dry_run.py --out benchmarks/results/dry_run.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from expunge.result import environment

NETWORKS = {"mlp": 60, "small_cnn": 4, "resnet20": 1}
"""With the epochs that make each a work of some seconds."""
DATA = ["--data", "shapes", "--device", "cpu"]
DATA += ["--set", "dataset.train_rows=1500", "--set", "dataset.test_rows=500", "--set", "dataset.size=16"]
ACTUAL = """
import sys, time, json
import expunge.datasets.shapes, expunge.stages
from expunge import cli
from expunge.cost import peak_memory_bytes
import torch
begun = time.perf_counter()
try:
    cli.main()
except SystemExit as end:
    assert not end.code
told = {"seconds": time.perf_counter() - begun, "bytes": peak_memory_bytes(torch.device("cpu"))}
print("MEASURED " + json.dumps(told))
"""


def call(words: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command in a process of its own; return what it printed and what it took."""
    ran = subprocess.run(  # noqa: S603  the command is our own
        [sys.executable, "-c", ACTUAL, "--json", *words], check=True, capture_output=True, text=True
    )
    printed, measured = ran.stdout.strip().split("MEASURED ")
    return json.loads(printed), json.loads(measured)


def main() -> None:
    """Predict, run, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for network, epochs in NETWORKS.items():
            model = f"{folder}/{network}"
            train = ["train", *DATA, "--network", network, "--set", f"epochs={epochs}", "--out", model]
            forget = ["forget", model, *DATA, "--classes", "1", "--method", "retrain", "--out", f"{model}-less"]
            for words in (train, forget):
                predicted = call([*words, "--dry-run"])[0]["forecast"]
                actual = call(words)[1]
                row = {
                    "network": network,
                    "command": words[0],
                    "predicted_seconds": predicted["seconds"]["total"],
                    "actual_seconds": actual["seconds"],
                    "predicted_bytes": predicted["peak_memory_bytes"],
                    "actual_bytes": actual["bytes"],
                    "load_average": os.getloadavg()[0],
                }
                row["seconds_ratio"] = row["predicted_seconds"] / row["actual_seconds"]
                row["bytes_ratio"] = row["predicted_bytes"] / row["actual_bytes"]
                rows.append(row)
                print(json.dumps(row), flush=True)
    record = {"environment": environment("cpu"), "rows": rows}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
