"""All methods of the field in one table, each as its paper sets it and each tuned with the same budget of trials.

1. Tuning. Each method is tuned (`expunge.tuning`) on one class and seed that nothing else is measured on: the same
   number of trials for all, judged without any test row, and without forgotten rows if the method may not read them.
   With ``--trials 0`` nothing is tuned.
2. Measuring. For each class and seed every method forgets the class from the same original, with its own settings and
   with the tuned ones. What comes out is judged against the band of `--references` retrained models; one more is judged
   as if it were a method. `head_mask` and the original itself are the controls that must fail.
3. With ``--request rows`` one training row in twenty, drawn at random, is to be forgotten in the place of a class, with
   each method's own settings: how to tune for that is not known without rows that no model has seen.

A method that refuses or diverges is named with its words; it is in no mean. With `--methods` only these are measured,
and what the file already says of others stays. With ``--go-on`` all that the file says stays: an interrupted command
goes on where it stopped.

    python benchmarks/methods.py --data digits --classes 1 3 8 --out benchmarks/results/methods-digits.json
    python benchmarks/methods.py --data digits --request rows --out benchmarks/results/methods-digits-rows.json
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from expunge.case import Method, open_case
from expunge.data import Split, split
from expunge.errors import ExpungeError
from expunge.forgetting import run_method
from expunge.methods.retrain import Retrain
from expunge.network import rebuild
from expunge.request import Request
from expunge.result import environment, reached
from expunge.runtime import open_runtime
from expunge.settings import build, describe, names
from expunge.tuning import tune
from unsir import CHEAP, HELD_OUT, World, open_world, plain

TUNED = ", tuned"
HELD_OUT_NAME = "held-out retrained"
LEVELS = ("L0", "L1", "L2")


def methods_for(world: World, chosen: Sequence[str]) -> dict[str, Method]:
    """Return methods with their own settings; those that train a network from scratch do so as the world does."""
    made: dict[str, Method] = {}
    for name in chosen:
        method = build("methods", {"name": name})
        made[name] = Retrain(training=world.training) if isinstance(method, Retrain) else method
    return made


def tune_all(world: World, methods: Mapping[str, Method], index: int, seed: int, trials: int) -> dict[str, Any]:
    """Return for each method its tuned settings with all trials, or why there are none."""
    parts = split(world.data, Request(classes=(index,)))
    original = world.trained(world.data.train, seed, f"original-{seed}")
    found: dict[str, Any] = {}
    for name, method in methods.items():
        began = time.monotonic()
        try:
            runtime = open_runtime(device="cpu", seed=seed)
            found[name] = asdict(tune(method, original, parts, runtime, rebuild(original), trials=trials))
        except ExpungeError as error:
            found[name] = {"refused": str(error)}
        best = found[name].get("best")
        told = found[name].get("refused") or f"trial {best}: {found[name]['trials'][best]['settings']}"
        print(f"tune {name:26} {time.monotonic() - began:6.1f} s  {told}", flush=True)
    return found


def measure(
    world: World, methods: Mapping[str, Method], request: Request, seed: int, references: int
) -> Iterator[dict[str, Any]]:
    """Forget by every method from one original, and judge what comes out; one row per method."""
    parts: Split = split(world.data, request)
    what = named(request)
    original = world.trained(world.data.train, seed, f"original-{seed}")
    numbers = [*range(references), HELD_OUT]
    retrained = [world.trained(parts["retain"], 1000 + number, f"{what}-{number}") for number in numbers]
    rows: list[dict[str, Any]] = [{"method": "original"}, {"method": HELD_OUT_NAME}]
    models = [original, retrained.pop()]
    for name, method in methods.items():
        row: dict[str, Any] = {"method": name, "request": what, "seed": seed}
        try:
            made = run_method(method, original, parts, open_runtime(device="cpu", seed=seed), rebuild(original))
        except ExpungeError as error:
            yield row | {"refused": str(error)}
            continue
        models.append(made.model)
        reads = {part: count.reads for part, count in made.access.items()}
        cost = {"seconds": made.bill.seconds["total"], "epoch_equivalents": made.bill.epoch_equivalents}
        rows.append(row | cost | {"reads": reads})
    case = open_case(parts, original, original, retrained, open_runtime(device="cpu", seed=seed), population=models)
    for row, evidence in zip(rows, case.unlearned_population, strict=True):
        judged = replace(case, unlearned=evidence, unlearned_population=())
        findings = [finding for audit in CHEAP for finding in audit(judged)]
        counted = [plain(finding) for finding in findings if finding.level is not None]
        yield {"request": what, "seed": seed} | row | {"level": reached(findings), "findings": counted}


def named(request: Request) -> str:
    """Return the word for a request in the record."""
    return "rows" if request.rows else "-".join(map(str, request.classes))


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return per method: accuracies beside retrained models, levels, the share of findings inside, and the cost."""
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name and "refused" not in row]
        refused = [row["refused"] for row in rows if row["method"] == name and "refused" in row]
        entry: dict[str, Any] = {"cases": len(own), "refused": len(refused)}
        if refused:
            entry["reason"] = refused[0]
        if own:
            entry |= _numbers(own)
        summary[name] = entry
    return summary


def _numbers(own: list[dict[str, Any]]) -> dict[str, Any]:
    found = [{one["name"]: one for one in row["findings"]} for row in own]
    forgotten = "accuracy/forget_test" if "accuracy/forget_test" in found[0] else "accuracy/forget"
    gaps = [one["accuracy/retain_test"]["unlearned"] - one["accuracy/retain_test"]["retrained"] for one in found]
    forget = [one[forgotten]["unlearned"] for one in found]
    judged = [one["inside"] for row in own for one in row["findings"] if one["inside"] is not None]
    epochs = [row["epoch_equivalents"] for row in own if "epoch_equivalents" in row]
    return {
        "retain_gap": {"mean": statistics.mean(gaps), "worst": min(gaps)},
        forgotten.rsplit("/", 1)[-1]: {"mean": statistics.mean(forget), "worst": max(forget)},
        "retrained_" + forgotten.rsplit("/", 1)[-1]: statistics.mean(one[forgotten]["retrained"] for one in found),
        "levels": {level: sum(row["level"] == level for row in own) for level in ("none", *LEVELS)},
        "inside": statistics.mean(judged),
        "epoch_equivalents": statistics.mean(epochs) if epochs else None,
        "seconds": statistics.mean(row["seconds"] for row in own) if epochs else None,
    }


def show(summary: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the summary as a table, the share of findings inside first."""
    print(f"{'method':34} {'forget':>7} {'gap':>8} {'worst':>8} {'inside':>7} {'epochs':>7}  levels")
    for name, row in sorted(summary.items(), key=lambda item: -item[1].get("inside", -1)):
        if not row["cases"]:
            print(f"{name:34} refused: {row['reason'][:90]}", flush=True)
            continue
        forget = row.get("forget_test") or row["forget"]
        epochs = "-" if row["epoch_equivalents"] is None else f"{row['epoch_equivalents']:.3f}"
        print(
            f"{name:34} {forget['mean']:7.4f} {row['retain_gap']['mean']:+8.4f} {row['retain_gap']['worst']:+8.4f} "
            f"{row['inside']:7.3f} {epochs:>7}  {row['levels']}"
            + (f" refused {row['refused']}" * bool(row["refused"])),
            flush=True,
        )


def earlier(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the file says and is not measured anew."""
    if not (arguments.methods or arguments.go_on) or not arguments.out.exists():
        return {"command": [], "methods": {}, "tuning": {}, "rows": []}
    record = json.loads(arguments.out.read_text())
    if arguments.go_on:
        return {**record, "command": [record["command"]]}
    again = {*arguments.methods, *(name + TUNED for name in arguments.methods)}
    left = {
        part: {name: one for name, one in record[part].items() if name not in again} for part in ("methods", "tuning")
    }
    rows = [row for row in record["rows"] if row["method"] not in again]
    return {"command": [record["command"]], **left, "rows": rows}


def requests(arguments: argparse.Namespace, world: World) -> list[Request]:
    """Return what is to be forgotten: each class by itself, or one row in twenty."""
    if arguments.request == "classes":
        return [Request(classes=(index,)) for index in arguments.classes]
    count = len(world.data.train)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(arguments.tuning_seed))
    return [Request(rows=tuple(sorted(order[: count // 20].tolist())))]


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "cifar10"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=names("methods"), help="only these; all if left out")
    parser.add_argument("--go-on", action="store_true", help="measure what the file does not have yet")
    parser.add_argument("--request", choices=("classes", "rows"), default="classes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 3, 8])
    parser.add_argument("--tuning-class", type=int, default=5)
    parser.add_argument("--tuning-seed", type=int, default=100)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--network", default="small_cnn")
    parser.add_argument("--width", type=int)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="32-true", help="of training originals and retrained models")
    parser.add_argument("--keep", type=Path, help="folder where trained models are kept and found again")
    return parser.parse_args()


def main() -> None:
    """Tune, measure, and write the record after every request and seed anew."""
    arguments = parse()
    if arguments.request == "classes" and arguments.tuning_class in arguments.classes:
        sys.exit("expected a tuning class that nothing is measured on")
    world = open_world(arguments)
    methods = methods_for(world, arguments.methods or names("methods"))
    kept = earlier(arguments)
    tuned: dict[str, Any] = kept["tuning"]
    if arguments.request == "classes" and arguments.trials:
        left = {name: method for name, method in methods.items() if name not in kept["tuning"]}
        tuned = kept["tuning"] | tune_all(world, left, arguments.tuning_class, arguments.tuning_seed, arguments.trials)
    ready = {
        name + TUNED: build("methods", tuned[name]["method"])
        for name in methods
        if name in tuned and tuned[name].get("best")
    }
    rows: list[dict[str, Any]] = kept["rows"]
    known = {(row["method"], row["request"], row["seed"]) for row in rows}
    for request in requests(arguments, world):
        for seed in arguments.seeds:
            left = {
                name: method for name, method in (methods | ready).items() if (name, named(request), seed) not in known
            }
            if not left:
                continue
            measured = measure(world, left, request, seed, arguments.references)
            rows += [row for row in measured if (row["method"], row["request"], row["seed"]) not in known]
            summary = summarise(rows)
            record = {
                "command": "; ".join([*kept["command"], "python " + " ".join(sys.argv)]),
                "environment": environment("cpu") | {"threads": str(torch.get_num_threads())},
                "methods": kept["methods"] | {name: describe(method) for name, method in (methods | ready).items()},
                "tuning": tuned,
                "summary": summary,
                "rows": rows,
            }
            arguments.out.write_text(json.dumps(record) + "\n")
            show(summary)


if __name__ == "__main__":
    main()
