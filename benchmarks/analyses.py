"""The analyses that the UNSIR paper makes, on data that anyone has: one record and one figure each.

Each is a function of its name, on digits unless it says otherwise: classes 3 and 8, two seeds, default settings but
for what it varies. Digits forget at the default rates whatever the noise, so that what varies the noise is run at a
tenth of them as well.

    python benchmarks/analyses.py rates penalty            # some
    python benchmarks/analyses.py all --out benchmarks/results/analyses --figures docs/figures
"""

import argparse
import io
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from expunge.access import Access
from expunge.audits.prediction import entropy, mean_distribution, total_variation
from expunge.audits.relearning import relearn, steps_until
from expunge.audits.weights import distances, norms, tensors
from expunge.case import Method
from expunge.data import Data, Part, split
from expunge.datasets.digits import Digits
from expunge.datasets.shapes import Shapes
from expunge.errors import DivergedError, SettingsError
from expunge.experiment import train
from expunge.methods.finetune import Finetune
from expunge.methods.head_mask import HeadMask
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.network import Network, copy_of, find_head, rebuild
from expunge.request import Request
from expunge.result import environment
from expunge.rows import JoinedRows, Rows, TensorRows
from expunge.runtime import Runtime, open_runtime
from expunge.settings import to_mapping
from expunge.training import Training, adam, predict
from figures import bars, lines

SEEDS, CLASSES = (0, 1), (3, 8)
NETWORK = Network(args={"width": 8})
RATES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0)
PENALTIES = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6)
PASSES = (0, 1, 2, 3, 4, 6)
LOW = Unsir(impair_lr=0.002, repair_lr=0.001)
Record = dict[str, Any]
Figure = str | bytes


@dataclass(frozen=True)
class World:
    """A trained network, its data, and where it ran."""

    model: nn.Module
    data: Data
    runtime: Runtime
    training: Training


@cache
def world(seed: int) -> World:
    """Return the network of digits of a seed."""
    runtime, data = open_runtime(device="cpu", seed=seed), Digits().load()
    return World(train(NETWORK, data, Training(), runtime), data, runtime, Training())


def forget(method: Method, there: World, classes: Sequence[int], model: nn.Module | None = None) -> nn.Module:
    """Return what a method makes of the world's network, or of another one of its architecture."""
    start = there.model if model is None else model
    parts = split(there.data, Request(classes=tuple(classes)))
    return method(start, Access(parts, method.reads, rebuild(start)), there.runtime.fresh())


def retrained(there: World, classes: Sequence[int]) -> nn.Module:
    """Return a network trained without the classes, from random weights of its own."""
    seeded = replace(there, runtime=there.runtime.fresh(seed=there.runtime.seed + 1000))
    return forget(Retrain(training=there.training), seeded, classes)


def accuracy(model: nn.Module, rows: Rows, runtime: Runtime) -> float:
    """Return the share of rows that the model gets right."""
    logits, labels = predict(model, rows, runtime)
    return (logits.argmax(1) == labels).double().mean().item()


def both(model: nn.Module, there: World, classes: Sequence[int]) -> Record:
    """Return the accuracy on the test rows to forget and to keep."""
    parts = split(there.data, Request(classes=tuple(classes)))
    names: tuple[Part, ...] = ("forget_test", "retain_test")
    return {part: accuracy(model, parts[part], there.runtime) for part in names}


def sweep(values: Sequence[float], method: Callable[[float, World], Method]) -> list[Record]:
    """Return, per value, the mean accuracies over seeds and classes; of runs that diverged only how many there were."""
    found = []
    for value in values:
        cases, diverged = [], 0
        for seed in SEEDS:
            for index in CLASSES:
                try:
                    made = forget(method(value, world(seed)), world(seed), [index])
                except DivergedError:
                    diverged += 1
                else:
                    cases.append(both(made, world(seed), [index]))
        means = {key: statistics.mean(one[key] for one in cases) if cases else None for key in NAMES}
        found.append({"value": value, **means, "diverged": diverged, "cases": cases})
    return found


NAMES = ("forget_test", "retain_test")


def curves(sweeps: Mapping[str, list[Record]]) -> dict[str, list[float | None]]:
    """Return the lines of some sweeps: what is left of the class, and what is kept."""
    return {f"{name}: {key}": [row[key] for row in found] for name, found in sweeps.items() for key in NAMES}


def rates() -> tuple[Record, Figure]:
    """Impair and repair learning rate, 0.001 to 1: one varied and the other at its default, and both as 2 to 1."""
    found = {
        "both": sweep(RATES, lambda rate, _: Unsir(impair_lr=rate, repair_lr=rate / 2)),
        "impair": sweep(RATES, lambda rate, _: Unsir(impair_lr=rate)),
        "repair": sweep(RATES, lambda rate, _: Unsir(repair_lr=rate)),
    }
    return {"sweeps": found}, lines("Learning rates of impair and repair", "learning rate", RATES, curves(found))


def penalty() -> tuple[Record, Figure]:
    """Weight of the noise's size, 0 to 10, at the default rates and at a tenth of them."""
    found = {
        "default rates": sweep(PENALTIES, lambda weight, _: Unsir(noise_penalty=weight)),
        "tenth": sweep(PENALTIES, lambda weight, _: replace(LOW, noise_penalty=weight)),
    }
    return {"sweeps": found}, lines("Weight of the size of the noise", "noise_penalty", PENALTIES, curves(found))


def share() -> tuple[Record, Figure]:
    """Share of the retained rows that the method sees, 1 % to 60 %."""

    def method(part: float, there: World) -> Unsir:
        return Unsir(retain_rows_per_class=max(1, round(part * len(there.data.train) / 10)))

    found = {"unsir": sweep(SHARES, method)}
    return {"sweeps": found}, lines("Share of retained rows", "share of retained rows", SHARES, curves(found))


def repairs() -> tuple[Record, Figure]:
    """Passes of repair at the paper's constant rate, none to six: does the class heal, too?"""
    found = {
        "default rates": sweep(PASSES, lambda n, _: Unsir(repair_epochs=int(n), repair_schedule="constant")),
        "tenth": sweep(PASSES, lambda n, _: replace(LOW, repair_epochs=int(n), repair_schedule="constant")),
    }
    return {"sweeps": found}, lines("Repeated repair", "passes of repair", PASSES, curves(found))


def sequential() -> tuple[Record, Figure]:
    """Four requests one after another, beside one request for all so far and retraining without all so far."""
    order, rows = (3, 8, 0, 6), list[Record]()
    for seed in SEEDS:
        there = world(seed)
        model = there.model
        for done in range(1, len(order) + 1):
            # what earlier requests forgot is not retained: the rows of every class asked for so far are gone
            gone = order[:done]
            left = replace(there, data=without(there.data, order[: done - 1]))
            model = forget(Unsir(), left, [gone[-1]], model)
            made = {"one after another": model, "at once": forget(Unsir(), there, gone)}
            made["retrained"] = retrained(there, gone)
            for name, one in made.items():
                rows.append({"seed": seed, "requests": done, "how": name, **both(one, there, gone)})

    def mean(how: str, key: str) -> list[float | None]:
        return [
            statistics.mean(row[key] for row in rows if (row["how"], row["requests"]) == (how, done))
            for done in range(1, len(order) + 1)
        ]

    hows = dict.fromkeys(row["how"] for row in rows)
    drawn = {f"{how}: {key}": mean(how, key) for key in NAMES for how in hows}
    means = {"order": order, "means": drawn, "rows": rows}
    return means, lines("Requests one after another", "requests so far", range(1, len(order) + 1), drawn)


def without(data: Data, classes: Sequence[int]) -> Data:
    """Return data whose training rows are not of these classes."""
    if not classes:
        return data
    return replace(data, train=split(data, Request(classes=tuple(classes)))["retain"])


def layers() -> tuple[Record, Figure]:
    """How far each layer moved from the original and how far it is from a retrained network's."""
    rows: dict[str, list[list[float]]] = {}
    for there, index in cases():
        original, other = tensors(there.model), tensors(retrained(there, [index]))
        unlearned, control = (tensors(forget(method, there, [index])) for method in (Unsir(), Finetune()))
        for name, pair in {
            "unsir from original": (original, unlearned),
            "finetune from original": (original, control),
            "retrained from original": (original, other),
            "unsir from retrained": (other, unlearned),
        }.items():
            moved = distances(*pair) or []
            rows.setdefault(name, []).append([one / norm for one, norm in zip(moved, norms(pair[0]), strict=True)])
    shown = [name for name, weight in tensors(world(0).model).items() if weight.ndim > 1]
    at = [list(tensors(world(0).model)).index(name) for name in shown]
    means = {name: [statistics.mean(one[place] for one in found) for place in at] for name, found in rows.items()}
    figure = bars("Distance of each layer's weights", "layer", shown, dict(means), "L2 distance, relative")
    return {"layers": shown, "means": means}, figure


def cases() -> Iterator[tuple[World, int]]:
    """Yield every seed's world with every class."""
    for seed in SEEDS:
        for index in CLASSES:
            yield world(seed), index


def models(there: World, index: int) -> dict[str, nn.Module]:
    """Return the networks that are held against each other."""
    made = {"original": there.model, "unsir": forget(Unsir(), there, [index])}
    made |= {"finetune": forget(Finetune(), there, [index]), "head_mask": forget(HeadMask(), there, [index])}
    return made | {"retrained": retrained(there, [index])}


def prediction() -> tuple[Record, Figure]:
    """Where test rows of a forgotten 3 and 8 go: mean distribution, its distance from retraining's, entropy."""
    rows, drawn = list[Record](), dict[str, list[float]]()
    for there, index in cases():
        parts = split(there.data, Request(classes=(index,)))
        logits = {
            name: predict(one, parts["forget_test"], there.runtime)[0] for name, one in models(there, index).items()
        }
        means = {name: mean_distribution(values) for name, values in logits.items()}
        for name, values in logits.items():
            distance, undecided = total_variation(means[name], means["retrained"]), entropy(values).mean().item()
            row = {"seed": there.runtime.seed, "class": index, "model": name, "mean": means[name].tolist()}
            rows.append(row | {"total_variation": distance, "entropy": undecided})
        if (there.runtime.seed, index) == (0, 3):
            drawn = {name: values.tolist() for name, values in means.items()}
    summary = {
        name: {
            key: statistics.mean(row[key] for row in rows if row["model"] == name)
            for key in ("total_variation", "entropy")
        }
        for name in drawn
    }
    figure = bars("Where forgotten threes go (seed 0)", "class", range(10), drawn, "mean probability")
    return {"summary": summary, "rows": rows}, figure


def relearning() -> tuple[Record, Figure]:
    """How fast the class comes back: steps of Adam (0.001, batches of 64) on all rows to 95 % of the original."""
    found: dict[str, list[list[float]]] = {}
    steps: dict[str, list[float | None]] = {}
    for there, index in cases():
        parts = split(there.data, Request(classes=(index,)))
        everything = JoinedRows(parts["retain"], parts["forget"])
        target = 0.95 * accuracy(there.model, parts["forget_test"], there.runtime)
        for name, model in models(there, index).items():
            training = adam(epochs=10, batch_size=64, lr=1e-3)
            curve = relearn(model, everything, parts["forget_test"], there.runtime, training, stage="relearning")
            found.setdefault(name, []).append(curve)
            steps.setdefault(name, []).append(steps_until(curve, target))
    means: dict[str, list[float | None]] = {
        name: [statistics.mean(point) for point in zip(*each, strict=True)] for name, each in found.items()
    }
    figure = lines("Relearn time", "steps of training on all rows", range(len(means["unsir"])), means)
    return {"steps": steps, "means": means}, figure


def ten() -> tuple[Record, Figure]:
    """1, 2, 4 and 7 of 10 classes in one request: digits."""
    groups = ((0,), (1, 2), (3, 4, 5, 6), (3, 4, 5, 6, 7, 8, 9))
    return counted([world(seed) for seed in SEEDS], groups, "Classes of ten in one request")


def hundred() -> tuple[Record, Figure]:
    """1, 20 and 40 of 100 classes in one request: procedural shapes, drawn once."""
    data, runtime = Shapes(classes=100, train_rows=4000, test_rows=2000, noise=0.1).load(), open_runtime(device="cpu")
    held = replace(data, train=in_memory(data.train), test=in_memory(data.test))
    training = Training(epochs=20)
    there = World(train(Network(args={"width": 16}), held, training, runtime), held, runtime, training)
    groups = ((0,), tuple(range(20)), tuple(range(40)))
    return counted([there], groups, "Classes of a hundred in one request")


def in_memory(rows: Rows) -> TensorRows:
    """Return rows that are drawn once, not anew in every pass."""
    return TensorRows(*rows.batch(torch.arange(len(rows)).numpy()))


def counted(worlds: Sequence[World], groups: Sequence[tuple[int, ...]], title: str) -> tuple[Record, Figure]:
    """Return accuracies by the number of classes in one request."""
    rows: list[Record] = []
    for there in worlds:
        for group in groups:
            made = {"original": there.model, "unsir": forget(Unsir(), there, group)}
            made |= {"finetune": forget(Finetune(), there, group), "retrained": retrained(there, group)}
            for name, model in made.items():
                row = {"seed": there.runtime.seed, "classes": len(group), "model": name}
                rows.append(row | both(model, there, group))

    def mean(name: str, count: int, key: str) -> float:
        return statistics.mean(float(row[key]) for row in rows if (row["model"], row["classes"]) == (name, count))

    names = dict.fromkeys(row["model"] for row in rows)
    means = {f"{name}: {key}": [mean(name, len(group), key) for group in groups] for key in NAMES for name in names}
    shown = {name: list[float | None](values) for name, values in means.items() if name != "retrained: forget_test"}
    return {"means": means, "rows": rows}, lines(title, "classes", [len(group) for group in groups], shown)


def gradcam() -> tuple[Record, Figure]:
    """Where the network looks when shown a forgotten 3: Grad-CAM of its label, by captum.

    Raises:
        SettingsError: captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise SettingsError(f"expected captum for Grad-CAM, got: {error}: pip install 'expunge[study]'") from None
    there = world(0)
    parts = split(there.data, Request(classes=(3,)))
    images, labels = parts["forget_test"].batch(torch.arange(8).numpy())
    tiles, inside = [images], {}
    for name, model in models(there, 3).items():
        if name in ("original", "unsir", "retrained"):
            viewed = copy_of(model).eval()
            maps = LayerGradCam(viewed, last_convolution(viewed)).attribute(
                images, target=labels, relu_attributions=True
            )
            heat = functional.interpolate(maps.detach(), size=images.shape[-2:], mode="bilinear", align_corners=False)
            tiles.append(heat)
            ink = (images > images.mean()).float()
            inside[name] = ((heat * ink).sum() / heat.sum()).item() if heat.sum() > 0 else None
    return {"heat_on_ink": inside, "rows_of_the_figure": ["images", *inside]}, pictures(tiles)


def last_convolution(model: nn.Module) -> nn.Module:
    """Return the last convolution before the head."""
    find_head(model, 10)
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]


def pictures(tiles: Sequence[Tensor]) -> bytes:
    """Return a PNG with one row of images per tensor, each image over its own full range."""
    large = functional.interpolate(torch.cat(list(tiles)), scale_factor=6, mode="nearest")
    grid = make_grid(large, nrow=len(tiles[0]), normalize=True, scale_each=True, padding=2, pad_value=1.0)
    buffer = io.BytesIO()
    to_pil_image(grid).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


ANALYSES: dict[str, Callable[[], tuple[Record, Figure]]] = {
    function.__name__: function
    for function in (
        rates,
        penalty,
        share,
        repairs,
        sequential,
        layers,
        prediction,
        relearning,
        ten,
        hundred,
        gradcam,
    )
}


def main() -> None:
    """Run the analyses asked for; each writes its record and its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=("all", *ANALYSES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/analyses"))
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name in ANALYSES if "all" in arguments.names else arguments.names:
        try:
            found, figure = ANALYSES[name]()
        except SettingsError as error:
            print(f"{name}: left out: {error}")
            continue
        about = {
            "command": f"python benchmarks/analyses.py {name}",
            "analysis": (ANALYSES[name].__doc__ or "").split("\n")[0],
            "environment": environment("cpu") | {"threads": str(torch.get_num_threads())},
            "unsir": to_mapping(Unsir()),
        }
        (arguments.out / f"{name}.json").write_text(json.dumps(about | found, indent=1) + "\n")
        if isinstance(figure, bytes):
            (arguments.figures / f"unsir-{name}.png").write_bytes(figure)
        else:
            (arguments.figures / f"unsir-{name}.svg").write_text(figure)
        print(f"{name}: done", flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
