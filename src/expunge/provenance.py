"""Provenance: what was asked, read and paid for, as plain values that stand in a result."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from expunge.access import Count
from expunge.data import Part, Split
from expunge.forgetting import KeepOrDrop
from expunge.population import Member, mean_seconds
from expunge.result import Bill


def head_values(head: KeepOrDrop) -> dict[str, str]:
    """Return what became of the head under its key; nothing if it was kept."""
    return {} if head == "keep" else {"head": head}


def request_values(parts: Split) -> dict[str, list[int]]:
    """Return a request as plain values, classes as indices."""
    if parts.request.rows:
        return {"rows": list(parts.request.rows)}
    return {"classes": [int(index) for index in parts.request.classes]}


def entry(method: Mapping[str, Any], parts: Split, seed: int, head: KeepOrDrop) -> dict[str, Any]:
    """Return what a model folder remembers of a request; the method by its name and settings."""
    return {"request": request_values(parts), "method": dict(method), "seed": seed, **head_values(head)}


def as_reads(access: Mapping[Part, Count]) -> dict[str, dict[str, int]]:
    """Return read counts as plain values."""
    return {part: {"rows": count.rows, "reads": count.reads} for part, count in access.items()}


def with_retraining(bill: Bill, references: Sequence[Member]) -> Bill:
    """Return a bill with the mean seconds of one retraining, if any was by itself, and how many came from the cache."""
    seconds = mean_seconds(references)
    retraining = {} if seconds is None else {"retrain": seconds}
    reused = sum(reference.reused for reference in references)
    return replace(bill, seconds=bill.seconds | retraining, reused=reused)
