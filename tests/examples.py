"""A result made by hand: ten digits, the threes forgotten by UNSIR, five retrained networks."""

import base64
import io
import math
from dataclasses import replace
from typing import Any

from PIL import Image

from expunge.finding import Finding, Series, finding
from expunge.result import Answers, Bill, FeatureMap, Picture, Plane, Result, Views, reached

DIGITS = tuple(str(digit) for digit in range(10))
EXPERIMENT: dict[str, Any] = {
    "dataset": {"name": "digits"},
    "network": {"name": "small_cnn", "pretrained": False},
    "training": {"epochs": 20, "batch_size": 64, "lr": 0.001},
    "request": {"classes": [3]},
    "method": {"name": "unsir", "noise": "learned", "noise_steps": 40, "impair_lr": 0.02, "repair_lr": 0.01},
    "audits": [{"name": "accuracy"}, {"name": "relearning", "max_epochs": 10}],
    "references": 5,
    "population": 0,
    "seed": 0,
}


def example_findings() -> tuple[Finding, ...]:
    """Return findings as a good run gives them: levels 0, 1 and 3 inside."""
    return (
        finding(
            "accuracy/retain_test",
            original=0.981,
            unlearned=0.972,
            retrained=[0.978, 0.969, 0.981, 0.975, 0.972],
            level=0,
            meaning="Share of unseen rows of the classes to keep that the model gets right.",
            series=per_class(),
        ),
        finding(
            "accuracy/forget_test",
            original=0.986,
            unlearned=0.0,
            retrained=[0.0] * 5,
            level=0,
            meaning="Share of unseen rows of the classes to forget that the model still gets right.",
            interval=(0.0, 0.095),
        ),
        finding(
            "accuracy/worst_retained_class",
            original=0.941,
            unlearned=0.914,
            retrained=[0.914, 0.886, 0.943, 0.914, 0.9],
            level=0,
            meaning="Accuracy on unseen rows of the kept class that the model is worst at.",
            note="the unlearned model's is '8'",
        ),
        finding(
            "prediction/total_variation/forget_test",
            original=0.953,
            unlearned=0.142,
            retrained=[0.118, 0.096, 0.155, 0.131, 0.109],
            level=1,
            meaning="How far the model's answers to rows to be forgotten differ from those of retrained models.",
            series=destinations(),
        ),
        finding(
            "prediction/entropy/forget_test",
            original=0.041,
            unlearned=0.93,
            retrained=[0.81, 0.77, 0.92, 0.85, 0.88],
            level=1,
            meaning="How undecided the model is about rows to be forgotten.",
        ),
        finding(
            "membership/loss/auc",
            original=0.541,
            unlearned=0.522,
            retrained=[0.515, 0.531, 0.509, 0.526, 0.519],
            level=None,
            meaning="How well the model's error ranks rows to forget apart from unseen rows of the same class.",
            note="36 rows in forget_test, fewer than 100",
        ),
        finding(
            "relearning/area",
            original=0.986,
            unlearned=0.71,
            retrained=[0.68, 0.72, 0.7, 0.69, 0.66],
            level=3,
            meaning="How much the model knows of what it had to forget, on average while it learns it again.",
            series=relearning(),
        ),
        finding(
            "weights/distance",
            original=0.0,
            unlearned=0.412,
            retrained=[1.31, 1.34, 1.29, 1.36, 1.33],
            level=None,
            meaning="How far the weights are from the original's, as a share of the original's size.",
            series=layers(),
        ),
    )


def example_result(**changes: Any) -> Result:
    """Return the example with some fields changed; the level is what its findings reach unless it is given."""
    findings = changes.get("findings", example_findings())
    example = Result(
        experiment=EXPERIMENT,
        label_names=DIGITS,
        rows={"retain": 1291, "forget": 146, "retain_test": 323, "forget_test": 37},
        findings=findings,
        cost=Bill(
            seconds={"noise": 0.21, "impair": 0.11, "repair": 0.08, "total": 0.42, "retrain": 3.94},
            flops=1_250_000_000,
            epoch_equivalents=2.31,
            peak_memory_bytes=412_000_000,
        ),
        access={
            "retain": {"rows": 1291, "reads": 2582},
            "forget": {"rows": 0, "reads": 0},
            "retain_test": {"rows": 0, "reads": 0},
            "forget_test": {"rows": 0, "reads": 0},
        },
        level=reached(findings),
        images=(Picture(kind="noise", label="3", png=noise()),),
        environment={"expunge": "0.1.0", "torch": "2.11.0", "python": "3.12.4", "device": "cpu"},
        views=example_views(),
    )
    return replace(example, **changes)


def example_views() -> Views:
    """Return where 37 threes go, and maps of them among twenty rows of each other digit."""
    labels = (*(3,) * 37, *(digit for digit in range(10) if digit != 3 for _ in range(20)))

    def plane(turn: float) -> Plane:
        places = [(digit + turn, 300 + 90 * (place % 7)) for place, digit in enumerate(labels)]
        x, y = (tuple(round(far * wave(angle)) for angle, far in places) for wave in (math.cos, math.sin))
        return Plane(x=x, y=y, spread=0.42)

    return Views(
        part="forget_test",
        answers=(
            Answers(
                label=3,
                original=(0, 0, 0, 37, 0, 0, 0, 0, 0, 0),
                unlearned=(0, 1, 8, 0, 0, 11, 0, 2, 8, 7),
                retrained=(0.2, 0.8, 7.0, 0.0, 0.0, 11.0, 0.0, 2.0, 9.0, 7.0),
            ),
        ),
        features=FeatureMap(
            part="forget_test",
            forgotten=37,
            labels=labels,
            original=plane(0.0),
            unlearned=plane(0.3),
            retrained=plane(0.5),
        ),
    )


def changed(name: str, **changes: Any) -> tuple[Finding, ...]:
    """Return the example's findings with fields of one of them changed."""
    return tuple(replace(each, **changes) if each.name == name else each for each in example_findings())


def per_class(names: tuple[str, ...] = DIGITS, forgotten: int = 3) -> Series:
    """Return accuracies per class, with the forgotten one at nothing."""

    def row(seed: int, *, knows: bool) -> tuple[float, ...]:
        return tuple(
            0.0 if index == forgotten and not knows else 1 - 0.09 * abs(math.sin(1.7 * index + seed))
            for index in range(len(names))
        )

    return Series(
        x=names,
        axis="accuracy of each class on test rows",
        original=row(0, knows=True),
        unlearned=row(1, knows=False),
        retrained=tuple(row(seed, knows=False) for seed in range(2, 7)),
    )


def destinations() -> Series:
    """Return where the threes go; each row adds up to 1."""
    return Series(
        x=DIGITS,
        axis="mean probability of each class over forget_test",
        original=(0.0, 0.0, 0.01, 0.97, 0.0, 0.01, 0.0, 0.0, 0.0, 0.01),
        unlearned=(0.01, 0.03, 0.2, 0.0, 0.0, 0.3, 0.0, 0.06, 0.2, 0.2),
        retrained=(
            (0.0, 0.02, 0.25, 0.0, 0.0, 0.28, 0.0, 0.05, 0.2, 0.2),
            (0.01, 0.04, 0.15, 0.0, 0.0, 0.35, 0.0, 0.05, 0.2, 0.2),
            (0.0, 0.02, 0.2, 0.0, 0.0, 0.23, 0.0, 0.05, 0.3, 0.2),
        ),
    )


def relearning() -> Series:
    """Return how the threes come back over sixty steps."""
    steps = range(0, 61, 2)

    def curve(start: float, speed: float) -> tuple[float, ...]:
        return tuple(0.98 - (0.98 - start) * math.exp(-step / speed) for step in steps)

    return Series(
        x=tuple(str(step) for step in steps),
        axis="accuracy on forget_test after each step of relearning",
        original=curve(0.97, 5),
        unlearned=curve(0.0, 14),
        retrained=tuple(curve(0.0, speed) for speed in (14, 16, 17, 19, 21)),
    )


def layers() -> Series:
    """Return weight distances of six layers."""
    return Series(
        x=("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "head.weight", "head.bias"),
        axis="relative distance of each layer",
        original=(0.0,) * 6,
        unlearned=(0.22, 0.35, 0.31, 0.4, 0.55, 0.61),
        retrained=((1.3, 1.1, 1.35, 1.2, 1.4, 1.3), (1.28, 1.2, 1.33, 1.25, 1.43, 1.2)),
    )


def noise() -> str:
    """Return eight tiles of something like noise, as PNG in base64."""
    image = Image.new("L", (73, 10), 255)
    for x in range(73):
        for y in range(10):
            if x % 9 and y % 9:
                image.putpixel((x, y), (x * x * 37 + y * y * 91 + x * y * 53) % 256)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
