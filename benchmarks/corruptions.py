"""Corruptions of digits: does what is done about them show, and does doing nothing fail where a retrained model passes?

python benchmarks/corruptions.py --out benchmarks/results/corruptions.json
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge.case import open_case
from expunge.corruption import Task, make_task
from expunge.corruptions.backdoor import Backdoor
from expunge.corruptions.canaries import Canaries
from expunge.corruptions.interclass_confusion import InterclassConfusion
from expunge.datasets.digits import Digits
from expunge.experiment import DEFAULT_REQUEST, retrain, train
from expunge.forgetting import run_method
from expunge.methods.finetune import Finetune
from expunge.network import Network, rebuild
from expunge.result import environment
from expunge.runtime import Runtime, open_runtime
from expunge.settings import describe, to_mapping
from expunge.training import Training

CORRUPTIONS: tuple[Backdoor | InterclassConfusion | Canaries, ...] = (InterclassConfusion(), Backdoor(), Canaries())
TOLD = (1.0, 0.5)
"""The share of the manipulated rows that a method is told of."""


def models_of(tasks: dict[float, Task], original: nn.Module, runtime: Runtime, references: int) -> dict[str, nn.Module]:
    """Return what is to be scored, by name: the original, and what each method makes when told of each share."""
    whole = tasks[1.0].whole
    made = {
        "nothing done": original,
        "retrain, held out": retrain(original, whole, Training(), runtime, references + 1).model,
    }
    for share, task in tasks.items():
        forgotten = run_method(Finetune(), original, task.asked, runtime, rebuild(original))
        made[f"finetune, told of {share:.0%}"] = forgotten.model
        if share < 1:
            made[f"retrain, told of {share:.0%}"] = retrain(
                original, task.asked, Training(), runtime, references + 1
            ).model
    return made


def measure(corruption: Backdoor | InterclassConfusion | Canaries, seed: int, references: int) -> list[dict[str, Any]]:
    """Train on corrupted digits, unlearn in every way, and score each model beside retrained ones."""
    runtime = open_runtime(device="cpu", seed=seed)
    data = Digits().load()
    tasks = {share: make_task(data, DEFAULT_REQUEST, replace(corruption, known=share), runtime) for share in TOLD}
    task, corrupted = tasks[1.0], corruption.corrupt(data, runtime)
    original = train(Network(), task.data, Training(), runtime)
    retrained = [
        retrain(original, task.whole, Training(), runtime, number).model for number in range(1, references + 1)
    ]
    rows = []
    for name, model in models_of(tasks, original, runtime, references).items():
        case = open_case(task.whole, original, model, retrained, runtime)
        found = corruption.score(case, corrupted)
        numbers = {
            one.name: {"value": one.unlearned, "retrained": one.retrained, "band": one.band, "inside": one.inside}
            for one in found
        }
        rows.append(
            {
                "corruption": describe(corruption)["name"],
                "seed": seed,
                "method": name,
                "manipulated_rows": len(corrupted.rows),
                "passes": all(one.inside for one in found),
                "findings": numbers,
            }
        )
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return per corruption and method: how many seeds pass, and the mean and range of every number over them."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        summary.setdefault(row["corruption"], {}).setdefault(row["method"], {})
    for corruption, methods in summary.items():
        for method, told in methods.items():
            own = [row for row in rows if (row["corruption"], row["method"]) == (corruption, method)]
            told["seeds"], told["passes"] = len(own), sum(row["passes"] for row in own)
            for name in own[0]["findings"]:
                values = [row["findings"][name]["value"] for row in own]
                told[name] = {"mean": statistics.mean(values), "least": min(values), "most": max(values)}
    return summary


def show(summary: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the means as one table per corruption."""
    for corruption, methods in summary.items():
        names = [name for name in next(iter(methods.values())) if "/" in name]
        heads = [name.split("/")[1] for name in names]
        print(f"\n{corruption:24} {'passes':>7} " + " ".join(f"{head:>15}" for head in heads))
        for method, told in methods.items():
            means = " ".join(f"{told[name]['mean']:15.3f}" for name in names)
            print(f"{method:24} {told['passes']:3} of {told['seeds']} {means}")


def main() -> None:
    """Measure everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--references", type=int, default=5)
    arguments = parser.parse_args()
    rows = [
        row
        for corruption in CORRUPTIONS
        for seed in range(arguments.seeds)
        for row in measure(corruption, seed, arguments.references)
    ]
    summary = summarise(rows)
    show(summary)
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu") | {"threads": str(torch.get_num_threads())},
        "references": arguments.references,
        "corruptions": {describe(one)["name"]: describe(one) for one in CORRUPTIONS},
        "methods": {"finetune": describe(Finetune()), "training": to_mapping(Training())},
        "summary": summary,
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
