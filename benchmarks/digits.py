"""UNSIR on digits beside its controls: all ten classes, three seeds, and retraining measured in the same run.

python benchmarks/digits.py --out benchmarks/results/digits.json
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge.case import Method
from expunge.data import Data, Part, Split, split
from expunge.datasets.digits import Digits
from expunge.experiment import train
from expunge.forgetting import run_method
from expunge.methods.finetune import Finetune
from expunge.methods.head_mask import HeadMask
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.methods.unsir_notebook import UnsirNotebook
from expunge.network import Network, rebuild
from expunge.request import Request
from expunge.result import environment
from expunge.runtime import Runtime, open_runtime
from expunge.settings import describe
from expunge.training import Training, predict

METHODS: dict[str, Method] = {
    "retrain": Retrain(),
    "unsir": Unsir(),
    "finetune": Finetune(),
    "unsir, Gaussian noise": Unsir(noise="gaussian"),
    "unsir, zeros": Unsir(noise="zeros"),
    "unsir_notebook": UnsirNotebook(),
    "unsir_notebook, batches of 40": UnsirNotebook(batch_size=40),
    "head_mask": HeadMask(),
}
LOW = (0.002, 0.001)
LOW_RATES: dict[str, Method] = {
    f"{name}, rates {LOW[0]:g} and {LOW[1]:g}": replace(METHODS[name], impair_lr=LOW[0], repair_lr=LOW[1])  # type: ignore[type-var]
    for name in ("unsir", "finetune", "unsir, Gaussian noise", "unsir, zeros")
}
PARTS: tuple[Part, ...] = ("retain", "forget", "retain_test", "forget_test")


@dataclass
class World:
    """A trained network, where it ran, and how well it does."""

    model: nn.Module
    data: Data
    runtime: Runtime


def accuracies(model: nn.Module, parts: Split, runtime: Runtime) -> dict[str, float]:
    """Return the accuracy on every part."""
    found: dict[str, float] = {}
    for part in PARTS:
        logits, labels = predict(model, parts[part], runtime)
        found[part] = (logits.argmax(1) == labels).double().mean().item()
    return found


def measure(name: str, method: Method, world: World, classes: Sequence[int]) -> dict[str, Any]:
    """Forget classes by a method; return accuracies and cost."""
    parts = split(world.data, Request(classes=tuple(classes)))
    made = run_method(method, world.model, parts, world.runtime, rebuild(world.model))
    return {
        "method": name,
        "seed": world.runtime.seed,
        "classes": list(classes),
        "original": accuracies(world.model, parts, world.runtime),
        **accuracies(made.model, parts, world.runtime),
        "seconds": made.bill.seconds,
        "flops": made.bill.flops,
        "epoch_equivalents": made.bill.epoch_equivalents,
        "forget_reads": made.access["forget"].reads,
    }


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return per method: accuracies, the gap to retraining of the same class and seed, and the share of its time."""
    reference = {(row["seed"], *row["classes"]): row for row in rows if row["method"] == "retrain"}
    summary = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        beside = [(row, reference[row["seed"], *row["classes"]]) for row in own]
        gaps = [row["retain_test"] - retrained["retain_test"] for row, retrained in beside]
        times = [row["seconds"]["total"] / retrained["seconds"]["total"] for row, retrained in beside]
        forget = [row["forget_test"] for row in own]
        summary[name] = {
            "cases": len(own),
            "forget_test": {"mean": statistics.mean(forget), "worst": max(forget)},
            "retain_test": {
                "mean": statistics.mean(row["retain_test"] for row in own),
                "gap_mean": statistics.mean(gaps),
                "gap_worst": min(gaps),
                "gap_stdev": statistics.stdev(gaps) if len(gaps) > 1 else None,
            },
            "time_over_retraining": {"median": statistics.median(times), "worst": max(times)},
            "epoch_equivalents": statistics.mean(row["epoch_equivalents"] for row in own),
        }
    return summary


def show(summary: dict[str, dict[str, Any]]) -> None:
    """Print the summary as a table."""
    print(f"{'method':44} {'forget':>7} {'worst':>7} {'retain':>7} {'gap':>8} {'worst':>8} {'time':>7} {'epochs':>7}")
    for name, row in summary.items():
        print(
            f"{name:44} {row['forget_test']['mean']:7.4f} {row['forget_test']['worst']:7.4f} "
            f"{row['retain_test']['mean']:7.4f} {row['retain_test']['gap_mean']:+8.4f} "
            f"{row['retain_test']['gap_worst']:+8.4f} {row['time_over_retraining']['median']:7.3f} "
            f"{row['epoch_equivalents']:7.2f}"
        )


def main() -> None:
    """Measure everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    data = Digits().load()
    single, several = [], []
    for seed in range(arguments.seeds):
        runtime = open_runtime(device="cpu", seed=seed)
        world = World(train(Network(), data, Training(), runtime), data, runtime)
        for index in range(10):
            for name, method in (METHODS | LOW_RATES).items():
                single.append(measure(name, method, world, [index]))
        for classes in ([0], [1, 2], [3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9]):
            for name in ("retrain", "unsir"):
                several.append(measure(f"{name}", METHODS[name], world, classes))
    by_count = {
        str(count): summarise([row for row in several if len(row["classes"]) == count]) for count in (1, 2, 4, 7)
    }
    for count, summary in by_count.items():
        own = [row for row in several if row["method"] == "unsir" and len(row["classes"]) == int(count)]
        passes = [row["seconds"]["impair"] + row["seconds"]["repair"] for row in own]
        summary["unsir"]["impair_and_repair_seconds"] = {"mean": statistics.mean(passes), "worst": max(passes)}
    summary = summarise(single)
    show(summary)
    for count, of_count in by_count.items():
        print(f"{count} classes in one request:")
        show(of_count)
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu") | {"threads": str(torch.get_num_threads())},
        "methods": {name: describe(method) for name, method in (METHODS | LOW_RATES).items()},
        "one_class": summary,
        "several_classes": by_count,
        "rows": single + several,
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
