"""Comparing a population of unlearned models with one of retrained models, beside what chance alone gives.

Two populations differ a little even when both are retrained models. How much is measured by cutting the retrained ones
in two at random, several times, and comparing the halves. The unlearned models are compared with such halves in equal
numbers, so that both numbers suffer equally from how few models there are.

The band is that of a permutation test: populations of the same size drawn at random from all models together, unlearned
and retrained. If it made no difference which a model is, the unlearned models would be one more such draw.
"""

import functools
import math
from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding, Ideal, Interval, retrained_band

Compare = Callable[[Sequence[Evidence], Sequence[Evidence]], float]
"""A number of the first models beside the second; the second are retrained."""
COMMAND = "list the audit and population = N in an experiment, and `expunge population build EXPERIMENT.toml`"

CONFIDENCE = 0.99
"""Of one band: audits of populations are few, and are asked for by name."""


def compared(
    case: Case,
    name: str,
    compare: Compare,
    *,
    part: Part,
    models: int,
    splits: int,
    level: int,
    meaning: str,
    better: Ideal,
    limits: Interval,
) -> Finding:
    """Return the finding of two populations; without models or rows enough its numbers are None and its note says so.

    Args:
        case: What to look at.
        name: Audit and quantity; also the random stream of the halves.
        compare: The number.
        part: Whose rows it needs.
        models: The least number of unlearned models; twice as many retrained ones are needed.
        splits: How often models are drawn.
        level: Level that it counts for.
        meaning: One plain sentence.
        better: Which way is further from failing: "lower" if nothing is too low, "higher" if nothing is too high.
        limits: The least and the most that the number can be.
    """
    unlearned, retrained = case.unlearned_population, case.retrained
    missing = case.missing(part) or (case.closed() if part.startswith("forget") else None)
    size = min(len(unlearned), len(retrained) // 2)
    number, floors, mixed, notes = None, [], [], []
    if not retrained:
        notes.append("no reference")
    if missing:
        notes.append(missing)
    elif size < models:
        notes.append(
            f"needs {models} unlearned and {2 * models} retrained models, got {len(unlearned)} and {len(retrained)}: "
            + COMMAND
        )
    else:
        generator = case.runtime.generator(name)
        numbers = []
        for _ in range(splits):
            first, second = _draw(retrained, size, generator)
            chosen = _draw(unlearned, size, generator)[0]
            floors.append(compare(first, second))
            numbers.append(compare(chosen, second))
            mixed.append(compare(*_draw([*unlearned, *retrained], size, generator)))
        number = fmean(numbers)
        notes.append(f"{size} models against {size}; retrained is one half of the retrained models against the other")
    band = retrained_band(mixed, CONFIDENCE, limits=limits)
    if band is not None and better != "retrained":
        most = limits[1] if math.isfinite(limits[1]) else max(band[1], number or 0.0)
        band = (limits[0], band[1]) if better == "lower" else (band[0], most)
    return Finding(
        name=name,
        level=None if missing else level,
        original=None,
        unlearned=number,
        retrained=fmean(floors) if floors else None,
        band=band,
        inside=None if band is None or number is None else band[0] <= number <= band[1],
        better="retrained",
        meaning=meaning,
        note="; ".join(notes),
    )


def _draw(models: Sequence[Evidence], size: int, generator: torch.Generator) -> tuple[list[Evidence], list[Evidence]]:
    order = torch.randperm(len(models), generator=generator).tolist()
    return [models[index] for index in order[:size]], [models[index] for index in order[size : 2 * size]]


def margins(models: Sequence[Evidence], part: Part) -> Float[Tensor, "models rows"]:
    """Return each row's logit-scaled confidence under each model: its label's logit minus the logsumexp of the others.

    It is the logarithm of the odds of the label, log p - log(1 - p), without its cancellation when p is near 0 or 1.
    """
    return torch.stack([_margin(evidence, part) for evidence in models])


def margins_once(part: Part) -> Callable[[Sequence[Evidence]], Float[Tensor, "models rows"]]:
    """Return `margins` of a part as a function that works out those of each model once."""
    once = functools.cache(lambda evidence: _margin(evidence, part))
    return lambda models: torch.stack([once(evidence) for evidence in models])


def _margin(evidence: Evidence, part: Part) -> Float[Tensor, " rows"]:
    logits, labels = evidence.logits[part].double(), evidence.labels[part][:, None]
    rest = logits.scatter(1, labels, -math.inf).logsumexp(dim=1)
    return logits.gather(1, labels).squeeze(1) - rest
