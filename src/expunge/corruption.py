"""Corruption: training rows that are manipulated on purpose, so that what a model must forget is known for certain.

An original is trained on the corrupted data, a method is told of the manipulated rows (or of the share `known` of
them: corrective unlearning, Goel et al., TMLR 2024, https://arxiv.org/abs/2402.14015), and the model that it makes is
scored on all of them. References are retrained without any manipulated row, whatever the method was told of.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64

from expunge.case import Case, Evidence
from expunge.data import Data, Split, split
from expunge.errors import DataError
from expunge.finding import Finding, Meaning
from expunge.request import Request
from expunge.rows import Indices, Rows, TakenRows
from expunge.runtime import Runtime
from expunge.training import predict

Labels = Int64[np.ndarray, " rows"]


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Data with manipulated training rows, and the truth about them."""

    data: Data
    """As it was, but for the manipulated training rows."""
    rows: Indices
    """Indices of the manipulated training rows, in ascending order."""
    known: Int64[np.ndarray, " known"]
    """Those of them that a method is told of, in ascending order."""
    truth: Labels
    """The labels of the manipulated rows before, in the order of `rows`."""

    @property
    def manipulated(self) -> Rows:
        """The manipulated training rows, with the labels that were put on them."""
        return TakenRows(self.data.train, self.rows)


def with_train(data: Data, train: Rows, rows: Indices, *, known: Int64[np.ndarray, " known"]) -> Corrupted:
    """Return data with other training rows, of which only these differ from the data's."""
    return Corrupted(data=replace(data, train=train), rows=rows, known=known, truth=data.train.labels[rows])


@runtime_checkable
class Corruption(Protocol):
    """A way to manipulate training rows, and to see what a model has kept of it: a frozen dataclass of settings."""

    def corrupt(self, data: Data, runtime: Runtime) -> Corrupted:
        """Return the data with some training rows manipulated; test rows stay as they are.

        Raises:
            DataError: The data are not of the kind that can be manipulated so.
        """

    def score(self, case: Case, corrupted: Corrupted) -> list[Finding]:
        """Return findings of level 0 whose ideal is a model retrained without the manipulated rows."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The data of an experiment, and what is to be forgotten."""

    data: Data
    asked: Split
    """Split by what the method is told to forget."""
    whole: Split
    """Split by all that should be forgotten: what references are trained without and audits look for."""
    corrupted: Corrupted | None
    """What was manipulated; None if nothing was, and then `asked` and `whole` are one."""


def make_task(data: Data, request: Request, corruption: Corruption | None, runtime: Runtime) -> Task:
    """Return the task of forgetting a request, or with a corruption the rows that it manipulates.

    Raises:
        RequestError: The request cannot be honoured.
        DataError: The data cannot be corrupted so.
    """
    if corruption is None:
        parts = split(data, request)
        return Task(data=data, asked=parts, whole=parts, corrupted=None)
    corrupted = corruption.corrupt(data, runtime)
    asked, whole = (
        split(corrupted.data, Request(rows=tuple(int(row) for row in rows)))
        for rows in (corrupted.known, corrupted.rows)
    )
    return Task(data=corrupted.data, asked=asked, whole=whole, corrupted=corrupted)


def draw(rows: Indices, count: int, generator: torch.Generator) -> Int64[np.ndarray, " drawn"]:
    """Return a random choice of so many of the rows, in ascending order."""
    return np.sort(rows[torch.randperm(len(rows), generator=generator).numpy()[:count]])


def draw_share(rows: Indices, share: float, generator: torch.Generator) -> Int64[np.ndarray, " drawn"]:
    """Return a random choice of a share of the rows, at least one, in ascending order.

    Raises:
        DataError: There are no rows.
    """
    if not len(rows):
        raise DataError("expected training rows to manipulate, got none")
    return draw(rows, max(1, round(share * len(rows))), generator)


def share_named(evidence: Evidence, rows: Rows, labels: Labels, runtime: Runtime) -> float | None:
    """Return the share of rows, from 0 to 1, that a model gives these labels; None without rows."""
    if not len(rows):
        return None
    logits, _ = predict(evidence.model, rows, runtime)
    return float((logits.argmax(dim=1) == torch.from_numpy(labels)).double().mean())


def measure_share(
    case: Case, name: str, rows: Rows, labels: Labels, *, meaning: str, higher: Meaning | None = None
) -> Finding:
    """Return the finding of level 0 of the share of rows that each model gives these labels.

    Without rows it is not known and only informs.
    """
    return case.measure(
        name,
        lambda evidence: share_named(evidence, rows, labels, case.runtime),
        level=0 if len(rows) else None,
        meaning=meaning,
        higher=higher,
        note=None if len(rows) else "no rows to measure it on",
        limits=(0.0, 1.0),
        step=1 / max(1, len(rows)),
    )


def memorised(case: Case, corrupted: Corrupted, name: str) -> Finding:
    """Return the finding of the manipulated rows that keep the label put on them."""
    rows = corrupted.manipulated
    meaning = "Share of the manipulated training rows that the model still gives the label that was put on them."
    return measure_share(case, f"{name}/memorised", rows, rows.labels, meaning=meaning, higher="memory")
