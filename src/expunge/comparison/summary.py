"""Comparing: from results to a comparison. Pure: results in, numbers out. No torch."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import median

from expunge.comparison.cells import Cells, Method, shared, sort
from expunge.comparison.record import CONTROLS, Comparison, Pair, Place, Spread, Standing, Tally
from expunge.comparison.statistics import World, differences, estimate, holm, signed_rank
from expunge.finding import Finding
from expunge.result import Result

METHODS_TO_RANK = 2
SEEDS_TO_RANK = 3


def passed(result: Result) -> float | None:
    """Return the share of what can tell forgetting that a result passes, from 0 to 1.

    Of the findings that count for a level and have a band, those count that the original fails: being inside is then
    something that forgetting has done. The others, which doing nothing passes, count only where the model is outside,
    as harm. Doing nothing has 0. None if no finding counts.
    """
    judged = [one for one in result.findings if one.level is not None and one.inside is not None]
    telling = [one.inside for one in judged if one.informative is not False or not one.inside]
    return sum(map(bool, telling)) / len(telling) if telling else None


def kept(result: Result) -> float | None:
    """Return the accuracy on unseen rows to keep less that of retrained models, from -1 to 1; None if not known."""
    found = next((one for one in result.findings if one.name == "accuracy/retain_test"), None)
    return None if found is None else _gap(found)


def ratio(result: Result) -> float | None:
    """Return the time of forgetting as a share of the time of retraining; None if either is not known."""
    seconds = result.cost.seconds if result.cost else {}
    total, retrain = seconds.get("total"), seconds.get("retrain")
    return total / retrain if total is not None and retrain else None


QUANTITIES: dict[str, Callable[[Result], float | None]] = {"passed": passed, "kept": kept, "time": ratio}
LIMITS = {"passed": (0.0, 1.0), "kept": (-1.0, 1.0), "time": (0.0, math.inf)}
COSTS: dict[str, Callable[[Result], float | None]] = {
    "seconds": lambda result: result.cost.seconds.get("total") if result.cost else None,
    "flops": lambda result: float(result.cost.flops) if result.cost else None,
    "epoch_equivalents": lambda result: result.cost.epoch_equivalents if result.cost else None,
    "time": ratio,
}


def compare(results: Mapping[str, Result]) -> Comparison:
    """Put results side by side.

    Args:
        results: By where each comes from, for messages.

    Raises:
        DataError: There are none, they are not of one data set, network, training, audits and number of references, or
            one method has two results in one world.
    """
    setting, names = shared(results)
    cells, methods = sort(results)
    own = {label: cells[label] for label in cells if _control(methods[label]) is None}
    pairs = _pairs(own)
    common = _common(own)
    ranking, ranked = _ranking(len(own), len({world.seed for world in common}), len(common))
    standings = [_standing(label, methods[label], cells[label], pairs if ranked else None) for label in cells]
    return Comparison(
        setting=setting,
        label_names=names,
        worlds=_places(cells, methods),
        standings=tuple(sorted(standings, key=lambda one: _order(one, ranked))),
        pairs=tuple(pairs),
        ranked=ranked,
        ranking=ranking,
        expunge=", ".join(sorted({one.environment.get("expunge", "") for one in results.values()} - {""})),
    )


def _control(method: Method) -> str | None:
    return CONTROLS.get(str(method.get("name"))) if method else None


def _common(own: Mapping[str, Cells]) -> set[World]:
    """Return the worlds in which every method has something that tells forgetting."""
    each = [set(_values(one, passed)) for one in own.values()]
    return set.intersection(*each) if each else set()


def _ranking(methods: int, seeds: int, worlds: int) -> tuple[str, bool]:
    """Return by what methods are ranked, or why they are not; and whether they are."""
    lacking = []
    if methods < METHODS_TO_RANK:
        lacking.append(f"{methods} method{'' if methods == 1 else 's'}, {METHODS_TO_RANK} are needed")
    if not worlds:
        lacking.append("there is no world in which every method was judged (two or more references judge)")
    elif seeds < SEEDS_TO_RANK:
        lacking.append(f"{seeds} seed{'' if seeds == 1 else 's'}, {SEEDS_TO_RANK} are needed")
    if lacking:
        return f"not ranked: {'; '.join(lacking)}", False
    return (
        f"ranked by the share of telling findings passed, over {seeds} seeds and {worlds} worlds; "
        "methods share a rank where the interval of their difference over seeds holds 0 or is not known"
    ), True


def _pairs(own: Mapping[str, Cells]) -> list[Pair]:
    found = []
    for quantity in QUANTITIES:
        values = {label: _values(one, QUANTITIES[quantity]) for label, one in own.items()}
        for first, second in combinations(values, 2):
            between = differences(values[first], values[second])
            found.append((first, second, quantity, estimate(between), signed_rank(between)))
    corrected = holm([p for *_, p in found])
    return [
        Pair(first=first, second=second, quantity=quantity, difference=difference, p=p, apart=difference.apart)
        for (first, second, quantity, difference, _), p in zip(found, corrected, strict=True)
    ]


def _standing(label: str, method: Method, cells: Cells, pairs: Sequence[Pair] | None) -> Standing:
    control = _control(method)
    rank = None
    if pairs is not None and control is None:
        rank = 1 + sum(_beats(pair, label) for pair in pairs if pair.quantity == "passed" and pair.apart)
    costs = {name: [*_values(cells, cost).values()] for name, cost in COSTS.items()}
    return Standing(
        label=label,
        method=method,
        control=control,
        rank=rank,
        worlds=len(cells),
        levels=dict(sorted(Counter(result.level for result in cells.values()).items())),
        quantities={name: estimate(_values(cells, quantity), LIMITS[name]) for name, quantity in QUANTITIES.items()},
        findings=tuple(_tally(name, cells) for name in _finding_names(cells)),
        cost={
            name: Spread(
                median=median(numbers) if numbers else None,
                low=min(numbers, default=None),
                high=max(numbers, default=None),
            )
            for name, numbers in costs.items()
        },
    )


def _beats(pair: Pair, label: str) -> bool:
    """Return whether the other of a pair is the better one."""
    mean = pair.difference.mean or 0.0
    return (pair.first == label and mean < 0) or (pair.second == label and mean > 0)


def _order(standing: Standing, ranked: bool) -> tuple[bool, int, float, str]:
    mean = standing.quantities["passed"].mean
    return standing.control is not None, standing.rank or 0, -(mean or 0.0) if ranked else 0.0, standing.label


def _values(cells: Cells, quantity: Callable[[Result], float | None]) -> dict[World, float]:
    return {world: value for world, result in cells.items() if (value := quantity(result)) is not None}


def _finding_names(cells: Cells) -> list[str]:
    return list(dict.fromkeys(one.name for result in cells.values() for one in result.findings))


def _tally(name: str, cells: Cells) -> Tally:
    found = {world: one for world, result in cells.items() for one in result.findings if one.name == name}
    gaps = {world: gap for world, one in found.items() if (gap := _gap(one)) is not None}
    levels = [one.level for one in found.values() if one.level is not None]
    worst = max(gaps, key=lambda world: abs(gaps[world]), default=None)
    return Tally(
        name=name,
        level=min(levels, default=None),
        unlearned=estimate({world: one.unlearned for world, one in found.items() if one.unlearned is not None}),
        gap=estimate(gaps),
        inside=sum(one.inside is True for one in found.values()),
        judged=sum(one.inside is not None for one in found.values()),
        worst=worst.name if worst else None,
    )


def _gap(one: Finding) -> float | None:
    return None if one.unlearned is None or one.retrained is None else one.unlearned - one.retrained


def _places(cells: Mapping[str, Cells], methods: Mapping[str, Method]) -> tuple[Place, ...]:
    worlds = sorted({world for one in cells.values() for world in one}, key=lambda world: (world.seed, world.name))
    places = []
    for world in worlds:
        here = {label: one[world] for label, one in cells.items() if world in one}
        names = {str((methods[label] or {}).get("name")): result for label, result in here.items()}
        places.append(
            Place(
                name=world.name,
                request=next(iter(here.values())).experiment["request"],
                seed=world.seed,
                levels={label: result.level for label, result in here.items()},
                missing=tuple(name for name in CONTROLS if name not in names),
                faults=tuple(fault for name in CONTROLS if name in names and (fault := _fault(name, names[name]))),
            )
        )
    return tuple(places)


def _fault(name: str, result: Result) -> str | None:
    """Return how a control went wrong, or None if it did not."""
    if name == "head_mask":
        high = result.level not in ("none", "L0")
        said = f"head_mask, which forgets nothing, reaches {result.level}, so a level up to {result.level} says nothing"
        return said if high else None
    outside = sorted((one.level, one.name) for one in result.findings if one.level is not None and one.inside is False)
    if not outside:
        return None
    few = ", ".join(name for _, name in outside[:3]) + (f" and {len(outside) - 3} more" if len(outside) > 3 else "")
    return f"a held-out retrained network is outside the bands of {few}, so no verdict from L{outside[0][0]} up holds"
