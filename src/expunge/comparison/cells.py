"""Cells: results sorted by method and by world, after a check that they can be compared. No torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.comparison.statistics import World
from expunge.errors import DataError
from expunge.result import Result

Cells = dict[World, Result]
"""The results of one method, by world, in the order of seeds."""
Method = dict[str, Any] | None
"""Name and settings of a method; None if the models were made elsewhere."""
APART = ("request", "seed", "method")
"""What may differ in the results of one comparison."""


def world_name(request: Mapping[str, Any], seed: int) -> str:
    """Return the name of a world, ``class-3-seed-0``; of a long request its number of items and a hash of them."""
    kind = "rows" if request.get("rows") else "classes"
    items = [str(item) for item in request.get(kind) or ()]
    if kind == "classes" and len(items) == 1:
        return f"class-{items[0]}-seed-{seed}"
    short = "-".join(items)
    if len(short) > 40:
        short = f"{len(items)}-{hashlib.sha256(short.encode()).hexdigest()[:8]}"
    return f"{kind}-{short}-seed-{seed}"


def shared(results: Mapping[str, Result]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings and class names that all results share.

    Args:
        results: By where each comes from, for messages.

    Raises:
        DataError: There are none, or they share too little to be compared.
    """
    if not results:
        raise DataError("expected results to compare, got none")
    (source, first), *others = results.items()
    for where, result in results.items():
        if not isinstance(result.experiment.get("request"), Mapping) or not isinstance(
            result.experiment.get("seed"), int
        ):
            raise DataError(f"expected a result that says what was forgotten and the seed, got {where} without")
    setting = {key: value for key, value in first.experiment.items() if key not in APART}
    for where, other in others:
        for key in sorted({*setting, *other.experiment} - set(APART)):
            one, two = setting.get(key), other.experiment.get(key)
            if one != two:
                raise DataError(
                    f"expected results of one {key}, got {_say(one, two)} in {source} and {_say(two, one)} in {where}: "
                    "compare them apart"
                )
        if other.label_names != first.label_names:
            raise DataError(f"expected results with the same class names, got others in {source} and in {where}")
    return setting, first.label_names


def _say(one: Any, other: Any) -> str:
    """Return a value in a few words: of a table, what differs from the other one."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        one = {key: value for key, value in one.items() if other.get(key) != value} or dict(one)
    text = json.dumps(one)
    return text if len(text) <= 80 else f"{text[:79]}…"


def sort(results: Mapping[str, Result]) -> tuple[dict[str, Cells], dict[str, Method]]:
    """Return results by label of their method and by world, and the methods by label.

    Raises:
        DataError: A method has two results in one world.
    """
    found = {json.dumps(result.experiment.get("method"), sort_keys=True) for result in results.values()}
    methods = {text: json.loads(text) for text in sorted(found)}
    labels = dict(zip(methods, label_methods(list(methods.values())), strict=True))
    cells: dict[str, Cells] = {labels[text]: {} for text in methods}
    for where, result in results.items():
        told = result.experiment
        label = labels[json.dumps(told.get("method"), sort_keys=True)]
        world = World(name=world_name(told["request"], told["seed"]), seed=told["seed"])
        if world in cells[label]:
            raise DataError(f"expected one result of {label} in {world.name}, got a second in {where}: leave one out")
        cells[label][world] = result
    return (
        {
            label: dict(sorted(one.items(), key=lambda item: (item[0].seed, item[0].name)))
            for label, one in cells.items()
        },
        {labels[text]: method for text, method in methods.items()},
    )


def label_methods(methods: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Return a label for each method: its name, with the settings that tell it from others of that name."""
    labels = []
    for method in methods:
        if method is None:
            labels.append("made elsewhere")
            continue
        same = [other for other in methods if other is not None and other.get("name") == method.get("name")]
        keys = sorted({key for other in same for key in other})
        telling = [key for key in keys if len({json.dumps(other.get(key)) for other in same}) > 1]
        settings = " ".join(f"{key}={_plain(method.get(key))}" for key in telling)
        labels.append(f"{method.get('name')} {settings}".strip())
    return labels


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
