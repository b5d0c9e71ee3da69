"""Data: what there is to learn from, and the four parts that a request makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer

from expunge.errors import DataError, RequestError
from expunge.request import Request
from expunge.rows import RelabelledRows, Rows, TakenRows, compact

Part = Literal["retain", "forget", "retain_test", "forget_test"]
PARTS: tuple[Part, ...] = get_args(Part)


MOST_CLASSES = 2**20
"""Classes that labels without names may stand for: beyond, a label is a number of something else."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How images of any size are brought to the size of an input, in the words of timm's ``config.json``."""

    interpolation: str = "bilinear"
    """Pillow's filter."""
    crop_pct: float = 1.0
    """Size of an input as a share of the size that images are scaled to before the middle is cut out."""
    crop_mode: str = "center"
    """What is scaled to that size: ``center`` the shorter side, ``border`` the longer one, ``squash`` both."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A labelled set in two halves, as a data set's file returns it."""

    train: Rows
    test: Rows
    """May be empty where nothing is audited."""
    label_names: tuple[str, ...]
    """One name per class; its length is the number of classes."""
    input_size: tuple[int, ...]
    """Shape of one input, e.g. (channels, height, width)."""
    mean: tuple[float, ...] = ()
    """Mean per channel that the inputs were normalised with; empty if they were not."""
    std: tuple[float, ...] = ()
    """Standard deviation per channel that the inputs were normalised with; empty if they were not."""
    scaling: Scaling = Scaling()
    """How images were brought to the size of an input; the default leaves one of that size as it is."""
    encoding: Mapping[str, Any] = field(default_factory=dict)
    """How rows became inputs, where the training rows decided it: JSON for its folder; see `datasets.Encoded`."""
    earlier: tuple[Request, ...] = ()
    """What the model at hand was made to forget before, classes as indices: what these name is in no part."""

    def __post_init__(self) -> None:
        if len(self.train) == 0:
            raise DataError("expected training rows, got none")
        for name, rows in (("train", self.train), ("test", self.test)):
            if len(rows) == 0:
                continue
            labels = rows.labels
            lowest, highest = int(labels.min()), int(labels.max())
            if lowest < 0 or highest >= len(self.label_names):
                raise DataError(
                    f"expected {name} labels from 0 to {len(self.label_names) - 1}, got {lowest} to {highest}"
                )


def numbered(labels: Int64[np.ndarray, " rows"]) -> tuple[str, ...]:
    """Return the names of classes that have none: their indices, from 0 to the highest label.

    Raises:
        DataError: A label is too high to be the index of a class.
    """
    highest = int(labels.max(initial=0))
    if highest >= MOST_CLASSES:
        raise DataError(f"expected labels that are class indices below {MOST_CLASSES}, got {highest}")
    return tuple(str(index) for index in range(highest + 1))


@dataclass(frozen=True, kw_only=True)
class Split:
    """The data in four parts: training and test rows, to retain and to forget."""

    request: Request
    """The request with every class and row as an index."""
    label_names: tuple[str, ...]
    input_size: tuple[int, ...]
    parts: Mapping[Part, Rows]
    earlier: tuple[Request, ...] = ()
    """Earlier requests, classes as indices: what they name is in no part."""
    earlier_rows: int = 0
    """Training rows that earlier requests name."""

    def __getitem__(self, part: Part) -> Rows:
        return self.parts[part]


def split(data: Data, request: Request, *, absent: bool = False) -> Split:
    """Split data by a request.

    For a request of classes, a test row belongs to ``forget_test`` if its class does. For single rows the test
    set has nothing to forget: ``forget_test`` is empty. What an earlier request names is in no part.

    Args:
        data: What to split.
        request: What is to be forgotten.
        absent: Whether the rows of a class to forget may be gone already.

    Raises:
        RequestError: The request names an unknown class, a class without training rows, a row out of range, what an
            earlier request names, or leaves nothing to retain.
    """
    request = request.resolve(data.label_names, data.train)
    train, test = data.train.labels, data.test.labels
    (gone, gone_test), (forget, forget_test) = named(data, *data.earlier), named(data, request)
    if request.rows:
        rows = [int(row) for row in request.rows]
        if min(rows) < 0 or max(rows) >= len(train):
            raise RequestError(f"expected training rows from 0 to {len(train) - 1}, got {min(rows)} to {max(rows)}")
        again = int((forget & gone).sum())
        if again:
            raise RequestError(
                f"expected rows that no earlier request names, got {again} that one does: leave them out, or start "
                "from the model before it"
            )
    for index in request.classes:
        name, of_class = data.label_names[int(index)], train == index
        if not of_class.any() and not absent:
            raise RequestError(f"expected a class with training rows, got class {index} ({name!r}) with none")
        if of_class.any() and gone[of_class].all():
            raise RequestError(
                f"expected a class that no earlier request names, got class {index} ({name!r}): leave it out, or "
                "start from the model before it"
            )
    retain, retain_test = ~(forget | gone), ~(forget_test | gone_test)
    if not retain.any():
        raise RequestError(f"expected rows to retain, got all {int((~gone).sum())} training rows to forget")
    if len(test) and not retain_test.any():
        raise RequestError(
            f"expected test rows of retained classes, got all {int((~gone_test).sum())} test rows to forget"
        )
    masks: dict[Part, tuple[Rows, Bool[np.ndarray, " rows"]]] = {
        "retain": (data.train, retain),
        "forget": (data.train, forget & ~gone),
        "retain_test": (data.test, retain_test),
        "forget_test": (data.test, forget_test & ~gone_test),
    }
    return Split(
        request=request,
        label_names=data.label_names,
        input_size=data.input_size,
        parts={part: TakenRows(rows, np.flatnonzero(mask)) for part, (rows, mask) in masks.items()},
        earlier=data.earlier,
        earlier_rows=int(gone.sum()),
    )


def named(data: Data, *requests: Request) -> tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " test_rows"]]:
    """Return which training and which test rows some requests name, classes as indices."""
    train, test = np.zeros(len(data.train), dtype=bool), np.zeros(len(data.test), dtype=bool)
    for request in requests:
        train |= np.isin(np.arange(len(train)), [int(row) for row in request.rows]) | np.isin(
            data.train.labels, request.classes
        )
        test |= np.isin(data.test.labels, request.classes)
    return train, test


def renumbered(data: Data, label_names: tuple[str, ...]) -> Data:
    """Return the same rows with each class at the place that its name, which no other has, takes among these."""
    places = np.array([label_names.index(name) for name in data.label_names])

    def again(rows: Rows) -> Rows:
        return RelabelledRows(rows, places[rows.labels])

    return replace(data, train=again(data.train), test=again(data.test), label_names=label_names)


def only_classes(data: Data, kept: Sequence[int]) -> Data:
    """Return the rows of some classes alone, given in ascending order, which become the classes 0 and up.

    Earlier requests are told in the new numbers of classes and rows, as far as anything of what they name is left.
    """
    places, row_places = np.full(len(data.label_names), -1), np.full(len(data.train), -1)
    places[kept] = np.arange(len(kept))
    rows_kept = np.flatnonzero(np.isin(data.train.labels, kept))
    row_places[rows_kept] = np.arange(len(rows_kept))

    def only(rows: Rows) -> Rows:
        chosen = TakenRows(rows, np.flatnonzero(np.isin(rows.labels, kept)))
        return RelabelledRows(chosen, places[chosen.labels])

    def anew(numbers: Sequence[int | str], places: Int64[np.ndarray, " numbers"]) -> tuple[int, ...]:
        found = (int(places[int(number)]) for number in numbers)
        return tuple(place for place in found if place >= 0)

    earlier = [(anew(request.classes, places), anew(request.rows, row_places)) for request in data.earlier]

    return replace(
        data,
        train=only(data.train),
        test=only(data.test),
        label_names=tuple(data.label_names[index] for index in kept),
        earlier=tuple(Request(classes=classes, rows=rows) for classes, rows in earlier if classes or rows),
    )


def subset(rows: Rows, per_class: int, generator: torch.Generator) -> Rows:
    """Return a random choice of at most `per_class` rows of every class, without reading any."""
    return TakenRows(rows, choose(rows.labels, per_class, generator))


def choose(
    labels: Int64[np.ndarray, " rows"], per_class: int, generator: torch.Generator
) -> Int64[np.ndarray, " chosen"]:
    """Return the indices, in ascending order, of a random choice of at most `per_class` rows of every class."""
    order = torch.randperm(len(labels), generator=generator).numpy()
    return np.sort(order[first(compact(labels)[order], per_class)])


def first(labels: Integer[np.ndarray, " rows"], per_class: int) -> Int64[np.ndarray, " chosen"]:
    """Return the indices, in ascending order, of the first rows of every class, at most `per_class` of each."""
    # sorting is linear in the rows for 16-bit integers; a search for one class after another is rows times classes
    small = compact(labels)
    by_class = np.argsort(small, kind="stable")
    edges = np.flatnonzero(np.diff(small[by_class])) + 1
    bounds = [0, *edges.tolist(), len(small)]
    return np.sort(np.concatenate([by_class[start : min(start + per_class, end)] for start, end in pairwise(bounds)]))
