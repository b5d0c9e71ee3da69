"""Provenance: what was asked, read and paid for, as plain values that stand in a result."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from expunge.access import Count
from expunge.data import Part, Split
from expunge.fingerprints import name_hash
from expunge.forgetting import KeepOrDrop
from expunge.population import Member, mean_seconds
from expunge.request import Request
from expunge.result import Bill
from expunge.rows import names_of


def head_values(head: KeepOrDrop) -> dict[str, str]:
    """Return what became of the head under its key; nothing if it was kept."""
    return {} if head == "keep" else {"head": head}


def request_values(request: Request) -> dict[str, list[int]]:
    """Return a request of classes by index, or of rows, as plain values."""
    if request.rows:
        return {"rows": [int(index) for index in request.rows]}
    return {"classes": [int(index) for index in request.classes]}


def earlier_values(parts: Split) -> dict[str, Any]:
    """Return earlier requests, and how many training rows they name, under their key; nothing if there are none."""
    if not parts.earlier:
        return {}
    return {"earlier": {"requests": list(map(request_values, parts.earlier)), "rows": parts.earlier_rows}}


def entry(method: Mapping[str, Any], parts: Split, seed: int, head: KeepOrDrop) -> dict[str, Any]:
    """Return what a model folder remembers of a request; the method by its name and settings."""
    told = {"request": request_values(parts.request), "method": dict(method), "seed": seed, **head_values(head)}
    if parts.request.rows:
        told["train_rows"] = len(parts["retain"]) + len(parts["forget"]) + parts.earlier_rows
        if (names := names_of(parts["forget"])) is not None:
            told["row_names"] = list(map(name_hash, names))
    return told | earlier_values(parts)


def as_reads(access: Mapping[Part, Count]) -> dict[str, dict[str, int]]:
    """Return read counts as plain values."""
    return {part: {"rows": count.rows, "reads": count.reads} for part, count in access.items()}


def with_retraining(bill: Bill, references: Sequence[Member]) -> Bill:
    """Return a bill with the mean seconds of one retraining, if any was by itself, and how many came from the cache."""
    seconds = mean_seconds(references)
    retraining = {} if seconds is None else {"retrain": seconds}
    reused = sum(reference.reused for reference in references)
    return replace(bill, seconds=bill.seconds | retraining, reused=reused)
