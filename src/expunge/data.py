"""Data: what there is to learn from, what is to be forgotten, and the four parts that this makes of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int64, Integer

from expunge.errors import DataError, RequestError, did_you_mean
from expunge.rows import RelabelledRows, Rows, TakenRows, compact, names_of

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
    earlier: tuple["Request", ...] = ()
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
class Request:
    """What to forget: whole classes, or single training rows.

    Classes and rows are indices or names; `split` resolves names against the data.
    """

    classes: tuple[int | str, ...] = ()
    """Classes to forget, each an index or a name."""
    rows: tuple[int | str, ...] = ()
    """Single training rows to forget, each an index, or a name where the data have such (of images, their files)."""

    def __post_init__(self) -> None:
        if bool(self.classes) == bool(self.rows):
            raise RequestError("expected either classes or rows to forget, got " + ("both" if self.rows else "none"))
        for what, items in (("class", self.classes), ("row", self.rows)):
            if len(set(items)) < len(items):
                raise RequestError(f"expected each {what} once, got {list(items)}")

    def resolve(self, label_names: Sequence[str], train: Rows) -> "Request":
        """Return the same request with every class and row as an index.

        Raises:
            RequestError: A class or row is unknown or ambiguous, one is named twice, or no class would be left.
        """
        if self.rows:
            return Request(rows=find_rows(self.rows, train))
        classes = sorted(find_class(item, label_names) for item in self.classes)
        if len(set(classes)) < len(classes):
            raise RequestError(f"expected each class once, got {list(self.classes)}")
        if len(classes) == len(label_names):
            raise RequestError(f"expected at least one class to retain, got all {len(label_names)} to forget")
        return Request(classes=tuple(classes))


def parse_request(classes: Sequence[str], rows: str | None) -> Request:
    """Return a request from words of the command line: ``["3,ship"]``, and ``"17,ship/4.png"`` or ``"@FILE"``.

    Raises:
        RequestError: A word is empty, the file cannot be read, or the request is empty or double.
    """
    listed = [] if rows is None else _lines(Path(rows[1:])) if rows.startswith("@") else rows.split(",")
    named = [word.strip() for word in listed]
    if any(not word for word in named):
        raise RequestError(f"expected rows separated by commas, got {rows!r}")
    words = [word.strip() for item in classes for word in item.split(",")]
    if any(not word for word in words):
        raise RequestError(f"expected classes separated by commas, got {','.join(classes)!r}")
    return Request(classes=tuple(words), rows=tuple(int(word) if word.isdecimal() else word for word in named))


def _lines(file: Path) -> list[str]:
    """Return the lines of a file, without empty ones."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RequestError(f"expected a row on each line of {file}, got: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"expected a row on each line of {file}, got a file that is no text") from error
    return [line for line in lines if line.strip()]


def find_rows(items: Sequence[int | str], train: Rows) -> tuple[int, ...]:
    """Return the indices of training rows given by index or name.

    Raises:
        RequestError: A name is unknown, or a row is named twice.
    """
    if all(isinstance(item, int) for item in items):
        return tuple(map(int, items))
    names, word = names_of(train), next(item for item in items if isinstance(item, str))
    if names is None:
        raise RequestError(f"expected rows of these data by number, since they have no names, got {word!r}")
    places = {name: index for index, name in enumerate(names)}
    if unknown := [item for item in items if isinstance(item, str) and item not in places]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise RequestError(
            f"expected training rows by number or name, such as {names[0]!r}, got {unknown[0]!r}{more}: no such file, "
            "or one that is held out for testing"
        )
    found = tuple(item if isinstance(item, int) else places[item] for item in items)
    if len(set(found)) < len(found):
        raise RequestError(f"expected each row once, got one by name and by number among {len(items)}")
    return found


def find_class(item: int | str, label_names: Sequence[str]) -> int:
    """Return the index of a class given by its index or name, or by ``#3`` for an index where names are numbers.

    Raises:
        RequestError: The class is unknown, or a name and an index of different ones.
    """
    digits = str(item).removeprefix("#")
    is_number = re.fullmatch("-?[0-9]+", digits) is not None
    meant = {index for index, name in enumerate(label_names) if name == item}
    if is_number and 0 <= int(digits) < len(label_names):
        meant.add(int(digits))
    if len(meant) > 1:
        choices = " or ".join(f"#{index} ({label_names[index]!r})" for index in sorted(meant))
        raise RequestError(f"expected one class, got {item!r}, a name and an index of different ones: write {choices}")
    if not meant:
        known = f" (indices: 0 to {len(label_names) - 1})" if is_number else did_you_mean(str(item), label_names)
        raise RequestError(f"expected a class of the data, got {item!r}{known}")
    return meant.pop()


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
