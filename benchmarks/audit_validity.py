"""Can the audits be trusted? What they say of models whose truth is known.

For every class and seed, against five models retrained without the class:

* a held-out retrained model in the place of the unlearned one: it has forgotten, and must pass every audit. Each of
  the retrained models is held out in turn, with five drawn from the others as references;
* ``nothing``, the original: it remembers, and must fail every level;
* ``head_mask``, which hides the output and leaves the features: it must fail every level above L0;
* ``noise``, the original with Gaussian noise on the weights as large as they are: it must fail by over-forgetting, of
  the class (``over-forgotten``) or of what was to stay (``damaged``);
* ``unsir`` and ``finetune`` with their defaults, to see where real methods fall.

python benchmarks/audit_validity.py --data digits --out benchmarks/results/audit_validity_digits.json
python benchmarks/audit_validity.py --data cifar10 --classes 3,8,0 --seeds 1 --retrained 6 \
    --out benchmarks/results/audit_validity_cifar10.json
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cifar10 import Cifar10
from expunge.audits.weight_noise import shaken
from expunge.cache import Cache
from expunge.case import Case, Method, gather
from expunge.data import split
from expunge.datasets import Dataset
from expunge.datasets.digits import Digits
from expunge.experiment import DEFAULT_AUDITS, Experiment, recipe_for, train
from expunge.finding import Finding
from expunge.forgetting import run_method
from expunge.methods.finetune import Finetune
from expunge.methods.head_mask import HeadMask
from expunge.methods.unsir import Unsir
from expunge.network import Network, rebuild
from expunge.population import grow
from expunge.request import Request
from expunge.result import environment, reached
from expunge.runtime import Runtime, open_runtime
from expunge.settings import describe, to_mapping
from expunge.training import Training

REFERENCES = 5
METHODS: dict[str, Method] = {
    "head_mask": HeadMask(),
    "head_mask at -5": HeadMask(logit=-5.0),
    "unsir": Unsir(),
    "finetune": Finetune(),
}
AUDITED = (0, 1, 2, 3)


def setting(data: str, arguments: argparse.Namespace) -> tuple[Dataset, Network, Training]:
    """Return data set, network and training of a benchmark's name."""
    if data == "digits":
        return Digits(), Network(), Training()
    cifar10 = Cifar10(train_per_class=arguments.train_per_class, test_per_class=arguments.test_per_class)
    training = Training(epochs=arguments.epochs, batch_size=128)
    return cifar10, Network(name="small_cnn", args={"width": arguments.width}), training


def audited(case: Case) -> dict[str, Any]:
    """Return what the default audits say of a case, without what only informs."""
    found = [finding for audit in DEFAULT_AUDITS if audit.level is not None for finding in audit(case)]
    return {"reached": reached(found), "findings": [short(one) for one in found if one.level is not None]}


def short(finding: Finding) -> dict[str, Any]:
    numbers = {name: digits(getattr(finding, name)) for name in ("original", "unlearned", "retrained")}
    band = [digits(end) for end in finding.band] if finding.band else None
    names = ("name", "level", "inside", "informative", "miss")
    return {name: getattr(finding, name) for name in names} | numbers | {"band": band}


def digits(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")


def world(
    experiment: Experiment, original: nn.Module, runtime: Runtime, retrained: int, cache: Cache | None
) -> Iterator[dict[str, Any]]:
    """Yield what the audits say of every candidate of one class and seed."""
    data = experiment.dataset.load()
    parts = split(data, experiment.request)
    members = grow(recipe_for(experiment, original, data, parts), retrained, runtime, cache=cache)
    honest = [gather(f"retrained {number}", one.model, parts, runtime) for number, one in enumerate(members, start=1)]
    case = Case(
        split=parts,
        original=gather("original", original, parts, runtime),
        unlearned=honest[0],
        retrained=tuple(honest[:REFERENCES]),
        runtime=runtime,
    )
    about = {"seed": runtime.seed, "class": experiment.request.classes[0]}
    chance = np.random.default_rng(runtime.seed)
    for number, one in enumerate(honest):
        others = [other for other in honest if other is not one]
        drawn = chance.choice(len(others), REFERENCES, replace=False)
        held_out = replace(case, unlearned=one, retrained=tuple(others[index] for index in sorted(drawn)))
        yield about | {"candidate": "retrained", "number": number, **audited(held_out)}
    made = {
        name: run_method(method, original, parts, runtime, rebuild(original)).model for name, method in METHODS.items()
    }
    made["noise"] = shaken(original, 1.0, runtime.generator("noise"))
    for name, model in made.items():
        unlearned = gather(name, model, parts, runtime)
        yield about | {"candidate": name, **audited(replace(case, unlearned=unlearned))}
    yield about | {"candidate": "nothing", **audited(replace(case, unlearned=case.original))}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return per candidate: how often each audit and each level passes, all of them do, and how misses are named."""
    summary = {}
    for name in dict.fromkeys(row["candidate"] for row in rows):
        own = [row["findings"] for row in rows if row["candidate"] == name]
        audits = sorted({finding["name"].split("/")[0] for findings in own for finding in findings})
        misses = sorted({finding["miss"] for findings in own for finding in findings if finding["miss"]})
        summary[name] = {
            "cases": len(own),
            "passes_all": share(not fails(findings) for findings in own),
            "passes_level": {f"L{level}": share(not fails(findings, level) for findings in own) for level in AUDITED},
            "passes_audit": {audit: share(not fails(findings, audit=audit) for findings in own) for audit in audits},
            "misses": {
                miss: share(any(one["miss"] == miss for one in findings) for findings in own) for miss in misses
            },
        }
    return summary


def fails(findings: list[dict[str, Any]], level: int | None = None, audit: str | None = None) -> bool:
    """Return whether a finding of a level and an audit, or of any, is outside its band."""
    chosen = [one for one in findings if level in (None, one["level"]) and audit in (None, one["name"].split("/")[0])]
    return any(one["inside"] is False for one in chosen)


def share(passed: Iterable[bool]) -> float:
    values = list(passed)
    return sum(values) / len(values)


def uninformative(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return, of every finding that counts, in what share of the worlds the original is in the band too."""
    own = [row["findings"] for row in rows if row["candidate"] == "nothing"]
    names = sorted({finding["name"] for findings in own for finding in findings})
    found = {
        name: [one["informative"] is False for findings in own for one in findings if one["name"] == name]
        for name in names
    }
    return {name: share(values) for name, values in found.items() if any(values)}


def show(summary: dict[str, Any]) -> None:
    """Print which share of the cases passes."""
    print(f"{'candidate':16} {'cases':>5} {'all':>6} " + " ".join(f"    L{level}" for level in AUDITED))
    for name, row in summary.items():
        levels = " ".join(f"{passes:6.2f}" for passes in row["passes_level"].values())
        print(f"{name:16} {row['cases']:5d} {row['passes_all']:6.2f} {levels}  {row['misses']}")


def as_text(record: dict[str, Any]) -> str:
    """Return a record as JSON with each of its rows on one line."""
    head = json.dumps({key: value for key, value in record.items() if key != "rows"}, indent=1)
    lines = ",\n".join(json.dumps(row) for row in record["rows"])
    return head.removesuffix("\n}") + ',\n "rows": [\n' + lines + "\n]}\n"


def before(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an interrupted run with the same settings, to go on from."""
    if not path.exists():
        return []
    record = json.loads(path.read_text())
    same = all(record.get(name) == json.loads(json.dumps(value)) for name, value in about.items())
    found: list[dict[str, Any]] = record["rows"] if same else []
    return found


def main() -> None:
    """Audit everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["digits", "cifar10"], required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", default="0,1,2,3,4,5,6,7,8,9")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--retrained", type=int, default=8, help="retrained models of each class and seed")
    parser.add_argument("--cache", type=Path, help="folder to keep retrained models in")
    parser.add_argument("--train-per-class", type=int, default=1000, help="of CIFAR-10")
    parser.add_argument("--test-per-class", type=int, default=300, help="of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=12, help="on CIFAR-10")
    parser.add_argument("--width", type=int, default=16, help="of the network on CIFAR-10")
    arguments = parser.parse_args()
    dataset, network, training = setting(arguments.data, arguments)
    cache = Cache(arguments.cache) if arguments.cache else None
    about = {
        "dataset": {key: value for key, value in describe(dataset).items() if key != "folder"},
        "network": to_mapping(network),
        "training": to_mapping(training),
        "audits": [describe(audit) for audit in DEFAULT_AUDITS],
        "references": REFERENCES,
        "retrained": arguments.retrained,
        "methods": {name: describe(method) for name, method in METHODS.items()},
    }
    rows = before(arguments.out, about)
    for seed in range(arguments.seeds):
        runtime = open_runtime(device="auto", seed=seed)
        original = train(network, dataset.load(), training, runtime)
        for index in (int(word) for word in arguments.classes.split(",")):
            if any((row["seed"], row["class"]) == (seed, index) for row in rows):
                continue
            experiment = Experiment(
                dataset=dataset, network=network, training=training, request=Request(classes=(index,)), seed=seed
            )
            rows += world(experiment, original, runtime, arguments.retrained, cache)
            print(f"seed {seed}, class {index}", flush=True)
            show(summarise(rows))
            record = {
                "command": "python " + " ".join(sys.argv),
                "environment": environment(str(runtime.device)) | {"threads": str(torch.get_num_threads())},
                **about,
                "summary": summarise(rows),
                "not_informative": uninformative(rows),
                "rows": rows,
            }
            arguments.out.write_text(as_text(record))


if __name__ == "__main__":
    main()
