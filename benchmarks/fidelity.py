"""UNSIR against its authors' notebook: each quirk of the notebook alone, and every control in place of learned noise.

The reduced protocols take minutes on one core; that of the notebook is for a CUDA GPU.

    python benchmarks/fidelity.py --data digits --out benchmarks/results/fidelity-digits.json
    python benchmarks/fidelity.py --data cifar10 --out benchmarks/results/fidelity-cifar10.json
    python benchmarks/fidelity.py --data cifar10 --protocol notebook --out benchmarks/results/fidelity-notebook.json
"""

import argparse
import json
import statistics
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import wilcoxon
from torch import nn
from torch.nn import functional

from cifar10 import Cifar10
from expunge.access import Access
from expunge.case import Method
from expunge.data import Data, Split, split
from expunge.datasets import Dataset
from expunge.datasets.digits import Digits
from expunge.experiment import train
from expunge.methods.finetune import Finetune
from expunge.methods.unsir import Unsir
from expunge.methods.unsir_notebook import UnsirNotebook
from expunge.network import Network, rebuild
from expunge.request import Request
from expunge.result import environment
from expunge.runtime import Runtime, open_runtime
from expunge.settings import describe, to_mapping
from expunge.training import Training, predict

Key = tuple[Any, ...]
QUIRKS = ("first_images_only", "label_zero", "training_mode", "norm_summed", "first_rows")
"""All but `gradients_pile_up`, which changes no bit of the result, as ``tests/test_unsir.py`` shows."""
NOTEBOOK_SCALES = (1.0, 0.1)
"""What the learning rates of the notebook are multiplied by, where the protocol has these scales."""
CONTROLS = ("gaussian", "zeros", "retained", "none")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is trained, what is forgotten, and how."""

    dataset: Dataset
    network: Network
    training: Training
    requests: tuple[tuple[int, ...], ...]
    unsir: Unsir
    notebook: UnsirNotebook
    scales: tuple[float, ...]
    """What both learning rates are multiplied by."""
    seeds: int
    as_notebook: bool = False
    """Whether networks are trained as the notebook trains its own, and the state after impair is measured too."""


def protocols(data: str, rows: int, epochs: int) -> dict[str, Protocol]:
    """Return the protocols of a data set by name; `rows` per class and `epochs` shrink that of the notebook."""
    if data == "digits":
        reduced = Protocol(
            dataset=Digits(),
            network=Network(args={"width": 8}),
            training=Training(),
            requests=((0,), (1,), (3,), (7,), (8,)),
            unsir=Unsir(),
            notebook=UnsirNotebook(batch_size=40, noise_images=64),  # some 33 steps a pass, as it has on CIFAR-10
            scales=(1.0, 0.3, 0.1),
            seeds=3,
        )
        return {"reduced": reduced}
    small = Protocol(
        dataset=Cifar10(train_per_class=500, test_per_class=200),
        network=Network(args={"width": 8}),
        training=Training(epochs=8),
        requests=((3,), (8,), (0,)),
        unsir=Unsir(retain_rows_per_class=100),
        notebook=UnsirNotebook(batch_size=28, noise_images=32, noise_rounds=4, retain_rows_per_class=100),
        scales=(1.0, 0.1, 0.03, 0.01),
        seeds=2,
    )
    full = Protocol(
        dataset=Cifar10(train_per_class=rows, test_per_class=min(rows, 1000)),
        network=Network(name="resnet18", args={"zero_init_last": False}),
        training=Training(epochs=epochs, batch_size=256, optimizer="adam", lr=0.01, weight_decay=1e-4),
        requests=((0, 2),),
        unsir=Unsir(),
        notebook=UnsirNotebook(),
        scales=(1.0,),
        seeds=1,
        as_notebook=True,
    )
    return {"reduced": small, "notebook": full}


def methods(protocol: Protocol) -> Iterator[tuple[str, float | None, Method | None]]:
    """Yield everything under study by name, at every scale of its rates; no method for networks that are trained."""
    yield "original", None, None
    yield "retrain", None, None
    notebook, unsir = protocol.notebook, protocol.unsir
    same = {name: value for name, value in to_mapping(unsir).items() if not name.startswith("noise")}
    named: dict[str, Unsir | UnsirNotebook | Finetune] = {"unsir": unsir}
    named |= {f"unsir, {control}": replace(unsir, noise=control) for control in CONTROLS[:-1]}  # type: ignore[arg-type]
    named |= {"unsir, none (finetune)": Finetune(**same), "unsir_notebook": notebook}
    named |= {f"unsir_notebook, {quirk} off": replace(notebook, **{quirk: False}) for quirk in QUIRKS}
    named["unsir_notebook, all quirks off"] = replace(notebook, gradients_pile_up=False, **dict.fromkeys(QUIRKS, False))
    named["unsir_notebook, noise as drawn"] = replace(notebook, noise_lr=1e-9)
    if protocol.as_notebook:
        named["unsir_notebook, after impair"] = replace(notebook, repair=False)
    for scale in protocol.scales:
        for name, method in named.items():
            if isinstance(method, UnsirNotebook) and scale not in NOTEBOOK_SCALES:
                continue
            rates = {"impair_lr": method.impair_lr * scale, "repair_lr": method.repair_lr * scale}
            yield name, scale, replace(method, **rates)  # type: ignore[arg-type]


def train_as_notebook(model: nn.Module, parts: tuple[Any, Any], runtime: Runtime, training: Training) -> None:
    """Train in place on parts[0]: gradients clipped to 0.1, the rate halved when the loss on parts[1] stops falling."""
    model.to(runtime.device).train()
    optimizer = torch.optim.Adam(model.parameters(), training.lr, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    for epoch in range(training.epochs):
        for inputs, labels, _ in runtime.batches(parts[0], training.batch_size, stream=f"notebook/order/{epoch}"):
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(inputs), labels))
            nn.utils.clip_grad_value_(model.parameters(), 0.1)
            optimizer.step()
        loss = functional.cross_entropy(*predict(model, parts[1], runtime)).item()
        schedule.step(loss)
    model.zero_grad(set_to_none=True)


def make(protocol: Protocol, data: Data, parts: Split | None, runtime: Runtime, seed: int) -> nn.Module:
    """Return a network trained on all rows, or on the retained ones of some parts."""
    runtime = runtime.fresh(seed=seed)
    rows = data.train if parts is None else parts["retain"]
    watched = data.test if parts is None else parts["retain_test"]
    if not protocol.as_notebook:
        return train(protocol.network, replace(data, train=rows), protocol.training, runtime)
    with runtime.seeded("train/init"):
        model = protocol.network.build(data)
    train_as_notebook(model, (rows, watched), runtime, protocol.training)
    return model


def measure(model: nn.Module, parts: Split, runtime: Runtime) -> dict[str, float]:
    """Return accuracy and loss on both test parts, and the share of rows to be forgotten that are called class 0."""
    found = {}
    for part in ("forget_test", "retain_test"):
        logits, labels = predict(model, parts[part], runtime)
        found[part] = (logits.argmax(1) == labels).double().mean().item()
        found[f"{part}_loss"] = functional.cross_entropy(logits, labels).item()
        if part == "forget_test":
            found["called_class_0"] = (logits.argmax(1) == 0).double().mean().item()
    return found


def study(protocol: Protocol, device: str, done: Collection[Key]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one seed and request after the other, but for those that are done."""
    data = protocol.dataset.load()
    for seed in range(protocol.seeds):
        original: nn.Module | None = None
        runtime = open_runtime(device=device, seed=seed)
        for classes in protocol.requests:
            missing = [one for one in methods(protocol) if (seed, *classes, *one[:2]) not in done]
            if not missing:
                continue
            original = original or make(protocol, data, None, runtime, seed)
            parts = split(data, Request(classes=classes))
            case = {"seed": seed, "classes": list(classes)}
            rows = []
            for name, scale, method in missing:
                if method is None:
                    model = original if name == "original" else make(protocol, data, parts, runtime, seed + 1000)
                else:
                    model = method(original, Access(parts, method.reads, rebuild(original)), runtime.fresh())
                rows.append(case | {"method": name, "scale": scale, **measure(model, parts, runtime)})
            yield rows


def key_of(row: dict[str, Any]) -> Key:
    """Return what tells a row from all others."""
    return *case_of(row), row["method"], row["scale"]


def case_of(row: dict[str, Any]) -> tuple[int, ...]:
    """Return the seed and the classes of a row."""
    return row["seed"], *row["classes"]


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return per method and scale: means over cases, per request the forget accuracy, the gap to retraining."""
    retrained = {case_of(row): row for row in rows if row["method"] == "retrain"}
    learned = {(row["scale"], *case_of(row)): row for row in rows if row["method"] == "unsir"}
    summary = []
    for scale, name in dict.fromkeys((row["scale"], row["method"]) for row in rows):
        own = [row for row in rows if (row["scale"], row["method"]) == (scale, name) and case_of(row) in retrained]
        told: dict[str, Any] = {"method": name, "scale": scale, "cases": len(own)}
        for key in ("forget_test", "retain_test", "forget_test_loss", "called_class_0"):
            told[key] = statistics.mean(row[key] for row in own)
        told["gap"] = statistics.mean(row["retain_test"] - retrained[case_of(row)]["retain_test"] for row in own)
        told["forget_test_worst"] = max(row["forget_test"] for row in own)
        told["by_request"] = {
            ",".join(map(str, classes)): statistics.mean(row["forget_test"] for row in own if row["classes"] == classes)
            for classes in sorted({tuple(row["classes"]): row["classes"] for row in own}.values())
        }
        if name in {f"unsir, {control}" for control in CONTROLS} | {"unsir, none (finetune)"}:
            told["less_than_learned"] = compare([(learned[scale, *case_of(row)], row) for row in own])
        summary.append(told)
    return summary


def compare(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return how much more a control leaves than learned noise, case by case, with Wilcoxon's two-sided p-value."""
    differences = [control["forget_test"] - learned["forget_test"] for learned, control in pairs]
    return {
        "mean": statistics.mean(differences),
        "control_leaves_more": sum(one > 0 for one in differences),
        "control_leaves_less": sum(one < 0 for one in differences),
        "p": float(wilcoxon(differences).pvalue) if any(differences) else None,
    }


def show(summary: Sequence[dict[str, Any]]) -> None:
    """Print the summary as a table."""
    print(f"{'scale':>5} {'method':42} {'cases':>5} {'forget':>7} {'worst':>7} {'retain':>7} {'gap':>8} {'as 0':>6}")
    for row in summary:
        print(
            f"{row['scale'] or '':>5} {row['method']:42} {row['cases']:5} {row['forget_test']:7.3f} "
            f"{row['forget_test_worst']:7.3f} {row['retain_test']:7.3f} {row['gap']:+8.3f} "
            f"{row['called_class_0']:6.3f}  " + " ".join(f"{k}:{v:.3f}" for k, v in row["by_request"].items())
        )


def earlier(path: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an interrupted run with the same settings, of which those of whole requests were written."""
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    same = all(found[key] == record[key] for key in ("dataset", "network", "training", "methods"))
    return list(found["rows"]) if same else []


def main() -> None:
    """Run a protocol; the record is written after every request, and an interrupted run can go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "cifar10"), required=True)
    parser.add_argument("--protocol", choices=("reduced", "notebook"), default="reduced")
    parser.add_argument("--resume", action="store_true", help="go on with the record that an interrupted run left")
    parser.add_argument("--seeds", type=int, default=None, help="seeds, those of the protocol unless given")
    parser.add_argument("--device", default=None, help="cpu, or auto for the notebook's protocol, unless given")
    parser.add_argument("--rows", type=int, default=5000, help="training rows per class of the notebook's protocol")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of training of the notebook's protocol")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    known = protocols(arguments.data, arguments.rows, arguments.epochs)
    if arguments.protocol not in known:
        parser.error("expected --data cifar10 for --protocol notebook, got digits")
    protocol = known[arguments.protocol]
    protocol = replace(protocol, seeds=arguments.seeds or protocol.seeds)
    device = arguments.device or ("auto" if protocol.as_notebook else "cpu")
    dataset = to_mapping(protocol.dataset)
    dataset.pop("folder", None)
    record: dict[str, Any] = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment(device) | {"threads": str(torch.get_num_threads())},
        "dataset": dataset | {"name": arguments.data},
        "network": to_mapping(protocol.network),
        "training": to_mapping(protocol.training),
        "methods": {name: describe(method) for name, scale, method in methods(protocol) if scale == 1},
    }
    rows = earlier(arguments.out, record) if arguments.resume else []
    for found in study(protocol, device, {key_of(row) for row in rows}):
        rows += found
        record |= {"summary": summarise(rows), "rows": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"seed {found[0]['seed']}, classes {found[0]['classes']}", flush=True)
    show(summarise(rows))


if __name__ == "__main__":
    main()
