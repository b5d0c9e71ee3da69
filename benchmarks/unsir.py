"""UNSIR, its controls and `dissolve` side by side, under the audits of levels 0 to 3, beside models retrained anew.

For each class and seed every method forgets the class from the same original; all draw as many retained rows. What
comes out is judged against the band of `--references` retrained models; one more, with a seed of its own, is judged as
if it were a method: an audit that it fails by more than chance is unfair.

    python benchmarks/unsir.py --data digits --seeds 1 2 3 --out benchmarks/results/unsir-digits.json
    python benchmarks/unsir.py --data cifar10 --classes 3 8 --rows 12000 --test-rows 3000 --epochs 7 --width 24 \
        --precision bf16-mixed --out benchmarks/results/unsir-cifar10.json

Classes 4, 1, 6 and 9 of digits and 6 of CIFAR-10 are those that settings of `dissolve` were chosen on.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cifar10 import Cifar10
from expunge.audits.accuracy import Accuracy
from expunge.audits.few_shot import FewShot
from expunge.audits.head import Head
from expunge.audits.information import Information
from expunge.audits.membership import Membership
from expunge.audits.prediction import Prediction
from expunge.audits.probe import Probe
from expunge.audits.prototypes import Prototypes
from expunge.audits.relearning import Relearning
from expunge.audits.similarity import Similarity
from expunge.case import Audit, Method, open_case
from expunge.data import Data, Split, split
from expunge.datasets.digits import Digits
from expunge.datasets.shapes import Shapes
from expunge.errors import DivergedError
from expunge.finding import Finding
from expunge.forgetting import epoch_flops, run_method
from expunge.methods.dissolve import Dissolve
from expunge.methods.dissolve_data_free import DissolveDataFree
from expunge.methods.finetune import Finetune
from expunge.methods.head_mask import HeadMask
from expunge.methods.unsir import Unsir
from expunge.methods.unsir_notebook import UnsirNotebook
from expunge.network import Network, rebuild
from expunge.request import Request
from expunge.result import environment
from expunge.rows import Rows
from expunge.runtime import open_runtime
from expunge.settings import describe
from expunge.training import Training, fit

CHEAP: tuple[Audit, ...] = (
    Accuracy(),
    Prediction(),
    Membership(),
    Probe(),
    Prototypes(),
    Similarity(),
    Information(),
    Head(),
)
RECOVERY: tuple[Audit, ...] = (FewShot(), Relearning())
HELD_OUT = 99
"""Number of the retrained model that is judged and is no reference."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Data, a network and how it is trained."""

    name: str
    data: Data
    network: Network
    training: Training
    precision: str
    keep: Path | None

    def trained(self, rows: Rows, seed: int, name: str) -> nn.Module:
        """Return a network trained on rows, or the one that was kept under this name."""
        runtime = open_runtime(device="cpu", seed=seed, precision=self.precision)
        with runtime.seeded("train/init"):
            model = self.network.build(self.data)
        path = self.keep / f"{self.name}-{name}.safetensors" if self.keep else None
        if path is None or not path.exists():
            # half the time on CPUs that have bfloat16
            model.to(memory_format=torch.channels_last)
            fit(model, rows, runtime, self.training, stage="train")
            model.to(memory_format=torch.contiguous_format)
            if path is None:
                return model
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
        model.load_state_dict(load_file(path))
        return model


def open_world(arguments: argparse.Namespace) -> World:
    """Return the world that the arguments ask for."""
    args = {"width": arguments.width} if arguments.width else {}
    training = Training(epochs=arguments.epochs, batch_size=arguments.batch_size)
    if arguments.data == "digits":
        data = Digits().load()
    elif arguments.data == "shapes100":
        data = Shapes(classes=100, train_rows=arguments.rows, test_rows=arguments.test_rows).load()
    else:
        data = Cifar10(train_per_class=arguments.rows // 10, test_per_class=arguments.test_rows // 10).load()
    network = Network(name=arguments.network, args=args)
    keep: Path | None = arguments.keep
    return World(
        name=arguments.data,
        data=data,
        network=network,
        training=training,
        precision=arguments.precision,
        keep=keep,
    )


def methods_for(data: Data) -> dict[str, Method]:
    """Return what is compared, each with as many retained rows per class as `dissolve` takes by default.

    The notebook's batch is such that a pass has about the 33 steps that it has on CIFAR-10.
    """
    settings = Dissolve()
    largest = int(np.bincount(data.train.labels).max())
    count = max(settings.fewest_rows, round(settings.retain_share * largest))
    unsir = Unsir(retain_rows_per_class=count)
    return {
        "finetune": Finetune(retain_rows_per_class=count),
        "unsir, Gaussian noise": replace(unsir, noise="gaussian"),
        "unsir_notebook": UnsirNotebook(
            retain_rows_per_class=count, batch_size=max(8, round(count * (len(data.label_names) - 1) / 33))
        ),
        "unsir": unsir,
        "dissolve": settings,
        "dissolve_data_free": DissolveDataFree(),
        "head_mask": HeadMask(),
    }


def plain(finding: Finding) -> dict[str, Any]:
    """Return what counts of a finding."""
    names = ("name", "level", "original", "unlearned", "retrained", "band", "inside", "informative")
    return {name: getattr(finding, name) for name in names}


def compare(world: World, index: int, seed: int, references: int, audits: Sequence[Audit]) -> list[dict[str, Any]]:
    """Forget one class by every method, and judge what comes out; one row per method."""
    parts: Split = split(world.data, Request(classes=(index,)))
    original = world.trained(world.data.train, seed, f"original-{seed}")
    numbers = [*range(references), HELD_OUT]
    retrained = [world.trained(parts["retain"], 1000 + number, f"{index}-{number}") for number in numbers]
    runtime = open_runtime(device="cpu", seed=seed)
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    models = [original, retrained.pop()]
    each = epoch_flops(original, world.data.input_size, len(parts["retain"])) * world.training.epochs
    rows.append({"method": "original", "flops": 0, "epoch_equivalents": 0.0, "seconds": 0.0})
    whole = epoch_flops(original, world.data.input_size, len(world.data.train))
    rows.append({"method": "retrain", "flops": each, "epoch_equivalents": each / whole})
    for name, method in methods_for(world.data).items():
        try:
            made = run_method(method, original, parts, runtime, rebuild(original))
        except DivergedError as error:
            refused.append({"method": name, "class": index, "seed": seed, "refused": str(error)})
            continue
        models.append(made.model)
        rows.append(
            {
                "method": name,
                "flops": made.bill.flops,
                "epoch_equivalents": made.bill.epoch_equivalents,
                "seconds": made.bill.seconds["total"],
                "reads": {part: count.reads for part, count in made.access.items()},
            }
        )
    case = open_case(parts, original, original, retrained, runtime, population=models)
    for row, evidence in zip(rows, case.unlearned_population, strict=True):
        judged = replace(case, unlearned=evidence, unlearned_population=())
        row |= {"class": index, "seed": seed, "over_retraining": row["flops"] / each}
        findings = [finding for audit in audits for finding in audit(judged)]
        row["findings"] = [plain(finding) for finding in findings if finding.level is not None]
    return rows + refused


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return per method: accuracies, the gap to retraining, the share of findings inside, and the cost.

    What a method refused to do counts in `refused` alone.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name and "refused" not in row]
        refused = sum(row["method"] == name for row in rows) - len(own)
        if not own:
            summary[name] = {"cases": 0, "refused": refused}
            continue
        found = [{one["name"]: one for one in row["findings"]} for row in own]
        gaps = [one["accuracy/retain_test"]["unlearned"] - one["accuracy/retain_test"]["retrained"] for one in found]
        levels = {
            f"L{level}": [
                one["inside"]
                for row in own
                for one in row["findings"]
                if one["level"] == level and one["inside"] is not None
            ]
            for level in range(4)
        }
        up_to_two = [inside for level in ("L0", "L1", "L2") for inside in levels[level]]
        outside: dict[str, int] = {}
        for row in own:
            for one in row["findings"]:
                if one["inside"] is False and one["level"] is not None:
                    outside[one["name"]] = outside.get(one["name"], 0) + 1
        forget = [one["accuracy/forget_test"]["unlearned"] for one in found]
        summary[name] = {
            "cases": len(own),
            "refused": refused,
            "forget_test": {"mean": statistics.mean(forget), "worst": max(forget)},
            "retain_gap": {"mean": statistics.mean(gaps), "worst": min(gaps)},
            "inside": statistics.mean(up_to_two),
            "inside_by_level": {level: statistics.mean(values) for level, values in levels.items() if values},
            "outside": dict(sorted(outside.items(), key=lambda item: -item[1])),
            "epoch_equivalents": statistics.mean(row["epoch_equivalents"] for row in own),
            "flops": statistics.mean(row["flops"] for row in own),
            "over_retraining": statistics.mean(row["over_retraining"] for row in own),
        }
    return summary


def show(summary: dict[str, dict[str, Any]]) -> None:
    """Print the summary as a table."""
    print(f"{'method':24} {'forget':>7} {'gap':>8} {'worst':>8} {'inside':>7} {'epochs':>7} {'/retrain':>9}")
    for name, row in summary.items():
        if not row["cases"]:
            print(f"{name:24} refused {row['refused']} times", flush=True)
            continue
        print(
            f"{name:24} {row['forget_test']['mean']:7.4f} {row['retain_gap']['mean']:+8.4f} "
            f"{row['retain_gap']['worst']:+8.4f} {row['inside']:7.3f} {row['epoch_equivalents']:7.3f} "
            f"{row['over_retraining']:9.4f}  outside: {row['outside']}",
            flush=True,
        )


def main() -> None:
    """Measure everything and write the record, after every class anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "cifar10", "shapes100"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--network", default="small_cnn")
    parser.add_argument("--width", type=int)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--test-rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="32-true", help="of training originals and retrained models")
    parser.add_argument("--keep", type=Path, help="folder where trained models are kept and found again")
    parser.add_argument("--recovery", action="store_true", help="also the audits of level 3, which train every model")
    arguments = parser.parse_args()
    world = open_world(arguments)
    audits = (*CHEAP, *RECOVERY) if arguments.recovery else CHEAP
    rows: list[dict[str, Any]] = []
    for index in arguments.classes:
        for seed in arguments.seeds:
            rows += compare(world, index, seed, arguments.references, audits)
        summary = summarise(rows)
        print(f"up to class {index}:")
        show(summary)
        record = {
            "command": "python " + " ".join(sys.argv),
            "environment": environment("cpu") | {"threads": str(torch.get_num_threads())},
            "methods": {name: describe(method) for name, method in methods_for(world.data).items()},
            "summary": summary,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
