"""A comparison made up: twenty methods and two controls in thirty worlds, ten classes by three seeds."""

import random
from typing import Any

from examples import DIGITS, EXPERIMENT
from expunge.comparison.record import Comparison
from expunge.comparison.summary import compare
from expunge.finding import Finding, finding
from expunge.result import Bill, Result, reached

NAMES = (
    "unsir", "unsir_notebook", "finetune", "gradient_ascent", "neggrad_plus", "random_labels",
    "successive_random_labels", "fisher", "ssd", "lfssd", "catastrophic_forgetting_k", "exact_unlearning_k",
    "dissolve", "dissolve_data_free", "scrub", "salun", "bad_teacher", "boundary", "amnesiac", "influence",
)  # fmt: skip
"""Of methods, not all of which there are."""
PLACES = (
    ("accuracy/retain_test", 0, 0.98, 0.97),
    ("accuracy/forget_test", 0, 0.98, 0.0),
    ("accuracy/worst_retained_class", 0, 0.93, 0.92),
    ("prediction/total_variation/forget_test", 1, 0.95, 0.12),
    ("prediction/entropy/forget_test", 1, 0.04, 0.85),
    ("prediction/alignment/forget_test", 1, 0.1, 0.88),
    ("probe/forget_test/head", 2, 1.0, 0.94),
    ("prototypes/balanced/10", 2, 0.98, 0.7),
    ("similarity/original/head", 2, 1.0, 0.55),
    ("similarity/retrained/head", 2, 0.53, 0.78),
    ("head/norm", 2, 1.04, 0.6),
    ("relearning/area", 3, 0.99, 0.6),
    ("few_shot/area/10_shots", 3, 0.41, 0.1),
    ("inversion/plain/original", 3, 1.0, 0.04),
    ("weights/distance", None, 0.0, 1.3),
)
"""Name, level, number of the original and of retrained networks."""


def made_up_findings(skill: float, draw: random.Random) -> tuple[Finding, ...]:
    """Return findings of a method of a skill: 0 leaves all as in the original, 1 gets all as in retrained networks."""
    return tuple(
        finding(
            name,
            original=original,
            unlearned=original
            + (retrained - original) * min(1.0, max(0.0, draw.gauss(skill, 0.12 if 0.1 < skill < 0.99 else 0.002))),
            retrained=[retrained + draw.gauss(0, 0.01) for _ in range(5)],
            level=level,
            meaning="Made up.",
        )
        for name, level, original, retrained in PLACES
    )


def made_up_comparison(names: tuple[str, ...] = NAMES, classes: int = 10, seeds: int = 3) -> Comparison:
    """Return methods whose skill and cost are drawn once, in worlds that each add their own luck."""
    draw = random.Random(0)  # noqa: S311  # nothing here is secret
    skills = {name: (draw.uniform(0.4, 0.98), 10 ** draw.uniform(-2.2, -0.1)) for name in names}
    skills |= {"head_mask": (0.05, 0.0005), "retrain": (1.0, 1.0)}
    worlds = [(index, seed) for index in range(classes) for seed in range(seeds)]
    return compare(
        {
            f"{name}/{index}/{seed}": _result({"name": name, "lr": 0.01}, index, seed, skill, time, draw)
            for name, (skill, time) in skills.items()
            for index, seed in worlds
        }
    )


def _result(method: dict[str, Any], index: int, seed: int, skill: float, time: float, draw: random.Random) -> Result:
    findings = made_up_findings(skill, draw)
    seconds = 4 * time * draw.uniform(0.8, 1.25)
    return Result(
        experiment=EXPERIMENT | {"request": {"classes": [index]}, "seed": seed, "method": method},
        label_names=DIGITS,
        rows={"retain": 1291, "forget": 146, "retain_test": 323, "forget_test": 37},
        findings=findings,
        cost=Bill(
            seconds={"total": seconds, "retrain": 4.0},
            flops=int(1e9 * time),
            epoch_equivalents=27 * time,
            peak_memory_bytes=412_000_000,
        ),
        access=None,
        level=reached(findings),
        images=(),
        environment={},
    )
