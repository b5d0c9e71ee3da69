"""Guard: whether a method has cost what was to stay, seen at once, before anyone audits or uses the new model.

The answers of the original and of the new model to the same few retained rows are compared. A method that may read
the retained rows is guarded so; of one that may not, nothing is read and nothing is known. The guard puts nothing
right: it says what was lost and which setting to lower.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from expunge.case import Method
from expunge.data import Split
from expunge.forgetting import Forgotten
from expunge.result import Kept, to_lower
from expunge.rows import TakenRows
from expunge.runtime import Runtime
from expunge.training import predict

ROWS = 512
"""The most retained rows that are looked at."""
MARGIN = 0.1
"""Share of the rows that a method may lose unremarked; less is what forgetting costs, or chance."""


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
    if "retain" not in method.reads:
        return forgotten
    retain, here = parts["retain"], replace(runtime.fresh(), journal=None, rehearsal=None)
    order = torch.randperm(len(retain), generator=here.generator("guard/rows")).numpy()
    rows = TakenRows(retain, np.sort(order[:ROWS]))
    before, after = (accuracy(one, rows, here) for one in (model, forgotten.model))
    kept = Kept(rows=len(rows), before=before, after=after)
    events = forgotten.bill.events
    if before - after > MARGIN:
        events = (*events, collapse(kept, forgotten.method))
    return replace(forgotten, bill=replace(forgotten.bill, kept=kept, events=events))


def accuracy(model: nn.Module, rows: TakenRows, runtime: Runtime) -> float:
    """Return the share of rows that a model gets right."""
    logits, labels = predict(model, rows, runtime)
    return (logits.argmax(1) == labels).double().mean().item()


def collapse(kept: Kept, method: dict[str, object]) -> str:
    """Return one line: what was lost, and what to do."""
    setting = to_lower(method)
    do = f"lower {setting}" if setting else "the method has no learning rate to lower, choose another"
    return (
        f"{method['name']} lost {100 * (kept.before - kept.after):.0f} points of accuracy on {kept.rows} retained rows "
        f"({kept.before:.1%} before, {kept.after:.1%} after; {100 * MARGIN:.0f} are allowed for): {do}"
    )
