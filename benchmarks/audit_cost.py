"""What the default audits of the demo cost: seconds of the evidence, and of the audits of each level.

python benchmarks/audit_cost.py --out benchmarks/results/audit_cost.json
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from expunge.case import open_case
from expunge.data import split
from expunge.experiment import DEFAULT_AUDITS, Experiment, recipe_for, train
from expunge.forgetting import run_method
from expunge.network import rebuild
from expunge.population import grow
from expunge.result import environment
from expunge.runtime import open_runtime

LEVELS = {"L0 to L2": (0, 1, 2), "L0 to L3": (0, 1, 2, 3), "all": (0, 1, 2, 3, None)}


def main() -> None:
    """Time every audit and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    experiment = Experiment()
    runtime = open_runtime(device="cpu", seed=experiment.seed)
    data = experiment.dataset.load()
    parts = split(data, experiment.request)
    original = train(experiment.network, data, experiment.training, runtime)
    unlearned = run_method(experiment.method, original, parts, runtime, rebuild(original)).model
    retrained = [
        member.model for member in grow(recipe_for(experiment, original, data, parts), experiment.references, runtime)
    ]
    rounds: list[dict[str, float]] = []
    busy: list[float] = []
    for _ in range(arguments.repeats):
        busy.append(os.getloadavg()[0])
        begun = time.perf_counter()
        case = open_case(parts, original, unlearned, retrained, runtime)
        seconds = {"evidence": time.perf_counter() - begun}
        for audit in DEFAULT_AUDITS:
            begun = time.perf_counter()
            audit(case)
            seconds[type(audit).__module__.rsplit(".", 1)[-1]] = time.perf_counter() - begun
        rounds.append(seconds)
    levels = {type(audit).__module__.rsplit(".", 1)[-1]: audit.level for audit in DEFAULT_AUDITS}
    totals: dict[str, Any] = {}
    for name, chosen in LEVELS.items():
        sums = [sum(value for audit, value in one.items() if levels.get(audit, 0) in chosen) for one in rounds]
        totals[name] = {"median": statistics.median(sums), "least": min(sums), "most": max(sums)}
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu") | {"threads": str(torch.get_num_threads()), "cores": str(os.cpu_count())},
        "models": 2 + experiment.references,
        "seconds_with_evidence": totals,
        "seconds_of_each": {name: [one[name] for one in rounds] for name in rounds[0]},
        "load_average_before_each_repeat": busy,
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(totals, indent=1))


if __name__ == "__main__":
    main()
