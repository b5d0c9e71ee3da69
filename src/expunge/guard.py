"""Guard: whether a method has cost what was to stay, seen at once, before anyone audits or uses the new model.

The answers of the original and of the new model to the same few retained rows are compared. A method that may read
the retained rows is guarded so; of one that may not, nothing is read and nothing is known. Where too much was lost,
`run_guarded` goes back to the original and on at half the learning rates; `guarded` says what was lost, no more: an
experiment runs with the settings that its file gives.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.case import Method
from expunge.data import Split
from expunge.forgetting import Forgotten, run_method
from expunge.result import Kept, moves_weights, to_lower
from expunge.rows import TakenRows
from expunge.runtime import Runtime
from expunge.settings import describe, from_mapping, to_mapping
from expunge.training import predict

ROWS = 512
"""The most retained rows that are looked at."""
MARGIN = 0.1
"""Share of the rows that a method may lose unremarked; less is what forgetting costs, or chance."""
TRIES = 4
"""How often a method is run at most, each time at half the rates of the time before."""


def run_guarded(
    method: Method,
    model: nn.Module,
    parts: Split,
    runtime: Runtime,
    build: Callable[[], nn.Module],
    *,
    statistics: Mapping[str, Tensor] | None = None,
) -> Forgotten:
    """Let a method make a model forget; as long as that costs too much, start over at half the learning rates.

    Each start is from the original. After `TRIES` of them the last one stands, with what it lost in its events; where
    half the rates cost no less, the rates before stand, with which the method is run once more.

    Args:
        method: What to run; the settings that made the new model are in what is returned.
        model: The original; left as it is.
        parts: The data, split by the request.
        runtime: Where.
        build: Makes a network of the same architecture with fresh weights.
        statistics: What an earlier request has kept with the model.

    Raises:
        ExpungeError: As `run_method`.
    """
    before: list[tuple[float, Method]] = []

    def again(used: Method, new: nn.Module, here: Runtime) -> Method | None:
        kept, values = look(used, model, new, parts, runtime), describe(used)
        setting = to_lower(values)
        settled = len(before) == TRIES - 1 or any(used is one for _, one in before)
        if kept is None or not collapsed(kept) or setting is None or settled:
            return None
        loss = kept.before - kept.after
        if before and loss >= before[-1][0]:
            here.cost.events.append(f"{lost(kept, values)}: no less than at twice the rate, and back to that")
            return before[-1][1]
        before.append((loss, used))
        here.cost.events.append(f"{lost(kept, values)}: back to the original, and on with half of {setting}")
        return from_mapping(type(used), at_half_rate(to_mapping(used)))

    made = run_method(method, model, parts, runtime, build, again, statistics=statistics)
    return guarded(made, method, model, parts, runtime)


def guarded(forgotten: Forgotten, method: Method, model: nn.Module, parts: Split, runtime: Runtime) -> Forgotten:
    """Return what a method made, with what was kept of the answers to retained rows in its bill.

    The guard's own work and reads are not the method's, and stand in neither its operations nor its reads; its rows
    are told beside them, each read once for each of the two models.

    Args:
        forgotten: What the method made.
        method: Says whether retained rows may be read.
        model: The original.
        parts: The data, split by the request.
        runtime: Where; the rows are drawn from the stream ``guard/rows``.
    """
    kept = look(method, model, forgotten.model, parts, runtime)
    events = forgotten.bill.events
    if kept is not None and collapsed(kept):
        events = (*events, collapse(kept, forgotten.method))
    return replace(forgotten, bill=replace(forgotten.bill, kept=kept, events=events))


def look(method: Method, model: nn.Module, new: nn.Module, parts: Split, runtime: Runtime) -> Kept | None:
    """Return how many of the same few retained rows two models get right; None if the method may not read any."""
    if "retain" not in method.reads:
        return None
    retain, here = parts["retain"], replace(runtime.fresh(), journal=None, rehearsal=None)
    order = torch.randperm(len(retain), generator=here.generator("guard/rows")).numpy()
    rows = TakenRows(retain, np.sort(order[:ROWS]))
    before, after = (accuracy(one, rows, here) for one in (model, new))
    return Kept(rows=len(rows), before=before, after=after)


def accuracy(model: nn.Module, rows: TakenRows, runtime: Runtime) -> float:
    """Return the share of rows that a model gets right."""
    logits, labels = predict(model, rows, runtime)
    return (logits.argmax(1) == labels).double().mean().item()


def collapsed(kept: Kept) -> bool:
    """Return whether more was lost than the guard lets pass."""
    return kept.before - kept.after > MARGIN


def collapse(kept: Kept, method: Mapping[str, Any]) -> str:
    """Return one line: what was lost, and what to do."""
    setting = to_lower(method)
    do = f"lower {setting}" if setting else "the method has no learning rate to lower, choose another"
    return f"{lost(kept, method)}: {do}"


def lost(kept: Kept, method: Mapping[str, Any]) -> str:
    """Return in words what a method has cost."""
    return (
        f"{method['name']} lost {100 * (kept.before - kept.after):.0f} points of accuracy on {kept.rows} retained rows "
        f"({kept.before:.1%} before, {kept.after:.1%} after; {100 * MARGIN:.0f} are allowed for)"
    )


def at_half_rate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with each learning rate of the original's weights halved; see `result.to_lower`."""
    halved = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and name != "training":
            halved[name] = at_half_rate(value)
        else:
            halved[name] = value / 2 if moves_weights(name) else value
    return halved
