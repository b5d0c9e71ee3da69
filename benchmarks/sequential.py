"""Ten requests of one class each, one after another, on `shapes` with 100 classes: do all ten stay forgotten?

Each request starts from the model that the one before left, and the rows of classes forgotten before are gone: no later
request has them to retain. After the tenth, every one of the ten is looked at by itself, and what is kept is held
against networks retrained from scratch without the ten, and against one request that names all ten. Methods have their
defaults; nothing is chosen here.

    python benchmarks/sequential.py --out benchmarks/results/sequential.json
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.case import Method
from expunge.data import Data, Part, Split, split
from expunge.datasets.shapes import Shapes
from expunge.forgetting import run_method
from expunge.methods.finetune import Finetune
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.network import Network, rebuild
from expunge.request import Request
from expunge.result import environment
from expunge.runtime import Runtime, open_runtime
from expunge.settings import describe, to_mapping
from expunge.training import Training, fit, predict

DATASET = Shapes(classes=100, size=12, train_rows=10_000, test_rows=5_000, noise=0.1)
NETWORK = Network(name="small_cnn", args={"width": 16})
TRAINING = Training(epochs=15)
REQUESTS = 10
METHODS: dict[str, Method] = {"unsir": Unsir(), "finetune": Finetune()}
FORGOTTEN: tuple[Part, ...] = ("forget", "forget_test")
Row = dict[str, Any]


def hits(model: nn.Module, parts: Split, part: Part, runtime: Runtime) -> tuple[np.ndarray, np.ndarray]:
    """Return for every row of a part whether the model is right, and its label."""
    logits, labels = predict(model, parts[part], runtime)
    return (logits.argmax(1) == labels).numpy(), labels.numpy()


def look(model: nn.Module, parts: Split, runtime: Runtime) -> Row:
    """Return accuracies on each class of the request and on all others, split as the whole request splits them."""
    found: Row = {}
    for part in FORGOTTEN:
        right, labels = hits(model, parts, part, runtime)
        found[part] = {str(index): float(right[labels == index].mean()) for index in parts.request.classes}
    found["retain_test"] = float(hits(model, parts, "retain_test", runtime)[0].mean())
    return found


def one_by_one(method: Method, original: nn.Module, data: Data, classes: list[int], runtime: Runtime) -> Row:
    """Forget classes one after another; return what the model is like after each request."""
    whole = split(data, Request(classes=tuple(classes)))
    model, left, steps = original, data, []
    for number, index in enumerate(classes, start=1):
        parts = split(left, Request(classes=(index,)))
        forgotten = run_method(method, model, parts, runtime.fresh(seed=1000 * runtime.seed + number), rebuild(model))
        model, left = forgotten.model, replace(left, train=parts["retain"])
        steps.append({"class": index, "flops": forgotten.bill.flops} | look(model, whole, runtime))
    return {"after_each_request": steps, "flops": sum(step["flops"] for step in steps), **look(model, whole, runtime)}


def at_once(method: Method, original: nn.Module, data: Data, classes: list[int], runtime: Runtime) -> Row:
    """Forget classes by one request."""
    whole = split(data, Request(classes=tuple(classes)))
    forgotten = run_method(method, original, whole, runtime.fresh(), rebuild(original))
    return {"flops": forgotten.bill.flops, **look(forgotten.model, whole, runtime)}


def measure(seed: int) -> dict[str, Row]:
    """Train, forget ten classes in every way, and retrain without them."""
    data = DATASET.load()
    classes = [int(index) for index in np.random.default_rng(seed).permutation(DATASET.classes)[:REQUESTS]]
    runtime = open_runtime(device="cpu", seed=seed)
    with runtime.seeded("train/init"):
        original = NETWORK.build(data)
    fit(original, data.train, runtime, TRAINING, stage="train")
    whole = split(data, Request(classes=tuple(classes)))
    rows: dict[str, Row] = {}

    def note(name: str, row: Row) -> None:
        rows[name] = row
        row["gap"] = row["retain_test"] - rows["retrain"]["retain_test"]
        row["flops_over_retraining"] = row["flops"] / rows["retrain"]["flops"]
        print(
            f"{seed} {name:22} forget_test mean {statistics.mean(row['forget_test'].values()):.4f} "
            f"worst {max(row['forget_test'].values()):.4f}  retain_test {row['retain_test']:.4f} "
            f"gap {row['gap']:+.4f}  operations {row['flops_over_retraining']:.2f}",
            flush=True,
        )

    note("retrain", at_once(Retrain(training=TRAINING), original, data, classes, runtime))
    note("original", {"flops": runtime.cost.flops, **look(original, whole, runtime)})
    for name, method in METHODS.items():
        note(f"{name}, one by one", one_by_one(method, original, data, classes, runtime))
        note(f"{name}, at once", at_once(method, original, data, classes, runtime))
    return rows


def main() -> None:
    """Measure every seed and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = {str(seed): measure(seed) for seed in range(arguments.seeds)}
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dataset": to_mapping(DATASET),
        "network": to_mapping(NETWORK),
        "training": to_mapping(TRAINING),
        "methods": {name: describe(method) for name, method in METHODS.items()},
        "seeds": seeds,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
