"""The audits of populations on real ones: held-out retrained networks must pass, those that forgot nothing must fail.

python benchmarks/population_audits.py --out benchmarks/results/population_audits.json

For each network, seed and request: retrained networks as references, and in the place of the unlearned ones as many
further retrained networks, networks unlearned by each method, and originals that nothing was done to. The audits of
single models ask the first few of each population, beside few references.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge.audits.klom import Klom
from expunge.audits.neurips_score import NeuripsScore
from expunge.audits.rmia import Rmia
from expunge.audits.three_sample import ThreeSample
from expunge.audits.u_lira import ULira
from expunge.cache import Cache
from expunge.case import Audit, Case, Evidence, Method, open_case
from expunge.data import split
from expunge.datasets.digits import Digits
from expunge.methods.finetune import Finetune
from expunge.methods.head_mask import HeadMask
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.network import Network
from expunge.population import Recipe, grow
from expunge.request import Request
from expunge.result import environment
from expunge.runtime import open_runtime
from expunge.settings import describe, to_mapping
from expunge.training import Training

NETWORKS = {
    "mlp": Network(name="mlp", args={"width": 32}),
    "small_cnn": Network(name="small_cnn", args={"width": 4}),
}
SEEDS = {"mlp": 2, "small_cnn": 1}
ROWS = Request(rows=tuple(range(0, 1440, 12)))
"""Single rows of all classes, as many as the audits of single models need."""
REQUESTS = {f"class {index}": Request(classes=(index,)) for index in (0, 3, 8)} | {"120 rows": ROWS}
CLASS_METHODS: dict[str, Method] = {"unsir": Unsir(), "head_mask": HeadMask()}
ROW_METHODS: dict[str, Method] = {"finetune": Finetune()}
POPULATION_AUDITS: tuple[Audit, ...] = (Klom(), ULira(), NeuripsScore())
SINGLE_AUDITS: tuple[Audit, ...] = (Rmia(), ThreeSample())
HELD_OUT, NOTHING = "held-out retrained", "nothing done"


@dataclass(frozen=True)
class Sizes:
    """How much to measure."""

    models: int
    single: int
    references: int
    training: Training


def populations(
    network: Network, request: Request, seed: int, sizes: Sizes, cache: Cache
) -> tuple[Case, dict[str, tuple[Evidence, ...]]]:
    """Return a case with its references, and the evidence of each population that is to take the unlearned's place."""
    data, runtime = Digits().load(), open_runtime(device="cpu", seed=seed)
    with runtime.seeded("train/init"):
        built = network.build(data)
    recipe = Recipe(
        network=built,
        dataset=Digits(),
        data=data,
        parts=split(data, request),
        training=sizes.training,
        method=Retrain(training=sizes.training),
        stacked=64,
    )

    def models(method: Method | None, count: int) -> list[nn.Module]:
        return [one.model for one in grow(replace(recipe, method=method), count, runtime, cache=cache)]

    retrained = models(recipe.method, 2 * sizes.models)
    methods = ROW_METHODS if request.rows else CLASS_METHODS
    made = {HELD_OUT: retrained[sizes.models :]}
    made |= {name: models(method, sizes.models) for name, method in methods.items()}
    made |= {NOTHING: models(None, sizes.models)}
    everything = [model for population in made.values() for model in population]
    first = made[NOTHING][0]
    case = open_case(recipe.parts, first, first, retrained[: sizes.models], runtime, population=everything)
    found = iter(case.unlearned_population)
    return case, {name: tuple(next(found) for _ in population) for name, population in made.items()}


def measure(case: Case, made: dict[str, tuple[Evidence, ...]], sizes: Sizes) -> list[dict[str, Any]]:
    """Return the findings of every population, and of single models how many are inside."""
    rows: list[dict[str, Any]] = []
    for name, population in made.items():
        whole = replace(case, unlearned_population=population)
        for audit in POPULATION_AUDITS:
            found = audit(whole)
            rows += [
                {"population": name, "finding": one.name, "number": one.unlearned, "floor": one.retrained,
                 "band": one.band, "inside": int(one.inside is True), "judged": int(one.inside is not None)}
                for one in found
            ]  # fmt: skip
        few = case.retrained[: sizes.references]
        singles = [
            replace(case, original=original, unlearned=unlearned, retrained=few)
            for original, unlearned in zip(made[NOTHING][: sizes.single], population, strict=False)
        ]
        for audit in SINGLE_AUDITS:
            for each in zip(*(audit(one) for one in singles), strict=True):
                judged = [one.inside for one in each if one.inside is not None]
                rows.append(
                    {"population": name, "finding": each[0].name, "number": [one.unlearned for one in each],
                     "band": each[0].band, "informative": each[0].informative,
                     "inside": sum(judged), "judged": len(judged)}
                )  # fmt: skip
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """Return for classes and for rows, per finding and population, how many of those judged are inside."""
    summary: dict[str, dict[str, dict[str, str]]] = {}
    for kind in ("classes", "rows"):
        own = [row for row in rows if row["request"].endswith("rows") is (kind == "rows")]
        for finding in dict.fromkeys(row["finding"] for row in own):
            for population in dict.fromkeys(row["population"] for row in own):
                same = [row for row in own if (row["finding"], row["population"]) == (finding, population)]
                inside, judged = (sum(row[key] for row in same) for key in ("inside", "judged"))
                told = f"{inside}/{judged}" if judged else "only informs"
                summary.setdefault(kind, {}).setdefault(finding, {})[population] = told
    return summary


def show(summary: dict[str, dict[str, dict[str, str]]]) -> None:
    """Print how many of those judged are inside."""
    for kind, findings in summary.items():
        names = list(next(iter(findings.values())))
        print(f"{'inside / judged, ' + kind:28}" + "".join(f"{name:>20}" for name in names))
        for finding, told in findings.items():
            print(f"{finding:28}" + "".join(f"{told[name]:>20}" for name in names))


def main() -> None:
    """Measure everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--single", type=int, default=4)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    chosen = parser.parse_args()
    sizes = Sizes(chosen.models, chosen.single, chosen.references, Training(epochs=chosen.epochs))
    cache, rows = Cache.default(), []
    for network in chosen.networks:
        for seed in range(SEEDS[network]):
            for told, request in REQUESTS.items():
                began = time.perf_counter()
                case, made = populations(NETWORKS[network], request, seed, sizes, cache)
                grown = time.perf_counter()
                found = measure(case, made, sizes)
                rows += [{"network": network, "seed": seed, "request": told} | row for row in found]
                print(f"{network} {seed} {told}: {grown - began:.0f} s, audits {time.perf_counter() - grown:.0f} s",
                      file=sys.stderr, flush=True)  # fmt: skip
                write(chosen.out, rows, sizes)  # what is done stays done
    show(summarise(rows))


def write(out: Path, rows: Sequence[dict[str, Any]], sizes: Sizes) -> None:
    """Write the record of what is measured so far."""
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu") | {"threads": str(torch.get_num_threads())},
        "models": sizes.models,
        "references_of_single_audits": sizes.references,
        "training": to_mapping(sizes.training),
        "audits": [describe(audit) for audit in (*POPULATION_AUDITS, *SINGLE_AUDITS)],
        "methods": {name: describe(method) for name, method in (CLASS_METHODS | ROW_METHODS).items()},
        "summary": summarise(rows),
        "rows": rows,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
