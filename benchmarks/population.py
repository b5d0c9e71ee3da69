"""A population of small networks on digits: one after another, in processes side by side, and stacked.

python benchmarks/population.py --out benchmarks/results/population.json
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from expunge.data import split
from expunge.datasets.digits import Digits
from expunge.methods.retrain import Retrain
from expunge.network import Network
from expunge.population import Recipe, Workers, grow
from expunge.request import Request
from expunge.result import environment
from expunge.runtime import open_runtime
from expunge.settings import to_mapping
from expunge.training import Training

NETWORKS = {
    "mlp, width 32": Network(name="mlp", args={"width": 32}),
    "small_cnn, width 4": Network(name="small_cnn", args={"width": 4}),
}


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(network: Network, models: int, training: Training, repeats: int, jobs: int) -> dict[str, Any]:
    """Train the same population in each way, the ways in turn within every repeat."""
    data = Digits().load()
    runtime = open_runtime(device="cpu")
    parts = split(data, Request(classes=(3,)))
    recipe = Recipe(
        network=network.build(data),
        dataset=Digits(),
        data=data,
        parts=parts,
        training=training,
        method=Retrain(training=training),
    )
    stack = replace(recipe, stacked=models)
    ways: dict[str, Callable[[], object]] = {
        "stacked": lambda: grow(stack, models, runtime),
        "one after another": lambda: grow(recipe, models, runtime),
        f"{jobs} processes": lambda: grow(recipe, models, runtime, workers=Workers(jobs=jobs)),
    }
    for way in ways.values():
        way()  # imports, compiled kernels, started processes
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    busy: list[float] = []
    for _ in range(repeats):
        busy.append(os.getloadavg()[0])
        for name, way in ways.items():
            seconds[name].append(timed(way))
    ratios = {
        name: [other / stacked for other, stacked in zip(seconds[name], seconds["stacked"], strict=True)]
        for name in ways
        if name != "stacked"
    }
    return {
        "seconds": seconds,
        "times_as_fast_stacked": {
            name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
            for name, values in ratios.items()
        },
        "load_average_before_each_repeat": busy,
    }


def main() -> None:
    """Measure every network and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    training = Training(epochs=arguments.epochs)
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "models": arguments.models,
        "training": to_mapping(training),
        "networks": {
            name: measure(network, arguments.models, training, arguments.repeats, arguments.jobs)
            for name, network in NETWORKS.items()
        },
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, found in record["networks"].items():
        print(name, json.dumps(found["times_as_fast_stacked"]))


if __name__ == "__main__":
    main()
