"""History: what a model was made to forget, request by request, as its folder or `Forgotten` remembers it.

An entry holds at least the ``request``; ``head`` is ``drop`` if the outputs of the classes were dropped. Classes and
rows have the numbers that they had then: dropped classes, and their rows, are not counted after. Of single rows
``row_names`` has hashes of their names, by which they are found in whatever is left of the data; rows without names are
known by number alone, which hold as long as there are ``train_rows`` training rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from expunge.data import Data, named, only_classes
from expunge.errors import ExpungeError, RequestError, expecting
from expunge.fingerprints import name_hash
from expunge.request import Request, find_class, find_rows
from expunge.rows import Rows, TakenRows, names_of
from expunge.settings import from_mapping

Entry = Mapping[str, Any]


def requests_in(data: Data, history: Sequence[Entry]) -> tuple[Request, ...]:
    """Return the requests of a history, classes and rows by their numbers in the data that it began with.

    Single rows that have names and are no longer in the data are left out.

    Raises:
        RequestError: An entry holds none, or one that is not of the data.
    """
    return tuple(request for _, request in _each(data, history) if request is not None)


def _each(data: Data, history: Sequence[Entry]) -> Iterator[tuple[Entry, Request | None]]:
    """Yield the entries of a history with their requests; None where all rows that it names are gone from the data."""
    classes, rows = np.arange(len(data.label_names)), np.arange(len(data.train))
    for number, entry in enumerate(history, start=1):
        try:
            with expecting("an entry with a request", RequestError):
                request = from_mapping(Request, entry["request"])
            names = [data.label_names[index] for index in classes]
            here = (
                rows[_places(entry, request, TakenRows(data.train, rows))]
                if request.rows
                else classes[[find_class(c, names) for c in request.classes]]
            )
        except (ExpungeError, IndexError) as error:
            raise RequestError(
                f"expected earlier requests of these data, got request {number} of the model's history: {error}"
            ) from error
        numbers = tuple(sorted(map(int, here)))
        if request.rows:
            yield entry, Request(rows=numbers) if numbers else None
        else:
            yield entry, Request(classes=numbers)
        if entry.get("head") == "drop":
            classes = classes[~np.isin(classes, numbers)]
            rows = rows[~np.isin(data.train.labels[rows], numbers)]


def _places(entry: Entry, request: Request, rows: Rows) -> list[int]:
    """Return where the single rows of an entry are among those that there are.

    Raises:
        RequestError: They are known by number alone, and rows have come or gone since.
    """
    names = names_of(rows)
    if names is not None and "row_names" in entry:
        wanted = set(entry["row_names"])
        return [place for place, name in enumerate(names) if name_hash(name) in wanted]
    of = entry.get("train_rows", len(rows))
    if of != len(rows):
        raise RequestError(
            f"expected the {of} training rows that its own were numbered among, got {len(rows)}: give the data as they "
            "were, forgotten rows among them"
        )
    return list(find_rows(request.rows, rows))


def classes_in(history: Sequence[Entry]) -> set[int]:
    """Return the classes that a history without dropped outputs names; what is no request in it names none."""
    requests = [entry.get("request") for entry in history]
    named_in = [request.get("classes") for request in requests if isinstance(request, Mapping)]
    return {index for classes in named_in if isinstance(classes, list) for index in classes if isinstance(index, int)}


def as_left(data: Data, history: Sequence[Entry]) -> Data:
    """Return data as a history leaves them: with its requests as earlier ones, and without classes that were dropped.

    Raises:
        RequestError: An entry is not of the data.
    """
    known = [(entry, request) for entry, request in _each(data, history) if request is not None]
    dropped = {int(index) for entry, request in known if entry.get("head") == "drop" for index in request.classes}
    left = replace(data, earlier=tuple(request for _, request in known))
    if not dropped:
        return left
    return only_classes(left, [index for index in range(len(data.label_names)) if index not in dropped])


def since(data: Data, before: Sequence[Entry], after: Sequence[Entry]) -> Sequence[Entry]:
    """Return what the history of an unlearned model has beyond its original's; nothing if it has none.

    Args:
        data: The data that both histories began with.
        before: The original's.
        after: The unlearned model's.

    Raises:
        RequestError: It does not begin with the original's.
    """
    first = after[: len(before)]
    heads = [[entry.get("head", "keep") for entry in entries] for entries in (before, first)]
    if after and (heads[0] != heads[1] or requests_in(data, before) != requests_in(data, first)):
        raise RequestError(
            "expected an unlearned model that was made from the original, got one whose history of requests does not "
            "begin with the original's: name the model that it was made from"
        )
    return after[len(before) :]


def judged(request: Request | None, data: Data, steps: Sequence[Entry], unlearned: str) -> Request:
    """Return what an audit is to look for: all that was asked between the original and the unlearned model.

    Args:
        request: What the user says that it is; None takes it from the history.
        data: The data as the original's history leaves them.
        steps: The entries between the two models; none if the unlearned model remembers nothing.
        unlearned: What to call the model.

    Raises:
        RequestError: It is another, or neither said nor remembered; or classes and single rows were asked for in turn.
    """
    if not steps:
        return (Request() if request is None else request).resolve(data.label_names, data.train)
    made_for = requests_in(data, steps)
    classes, rows = (sorted({int(i) for one in made_for for i in getattr(one, kind)}) for kind in ("classes", "rows"))
    if classes and rows:
        raise RequestError(
            "expected requests of classes or of single rows between the two models, got both: audit each beside the "
            "model before it"
        )
    once = sum(len(entry["request"].get("rows", ())) for entry in steps)
    if len(rows) < once:
        raise RequestError(
            f"expected the {once} rows that were to be forgotten in the data, got {len(rows)}: an audit looks at them, "
            "so let it run where they still are"
        )
    whole = Request(classes=tuple(classes), rows=tuple(rows))
    asked = whole if request is None else request.resolve(data.label_names, data.train)
    if set(asked.classes) != set(whole.classes) or set(asked.rows) != set(whole.rows):
        several = f" in {len(steps)} requests since the original" if len(steps) > 1 else ""
        raise RequestError(
            f"expected the request that {unlearned} was made for, {in_words(whole, data)}{several}, "
            f"got {in_words(asked, data)}"
        )
    return asked


def in_words(request: Request, data: Data) -> str:
    """Return what a request names, for messages: ``classes 'cat', 'dog'`` or ``rows 3, 4``; at most eight of them."""
    items = request.rows or [repr(data.label_names[int(index)])[:60] for index in request.classes]
    kind = "row" if request.rows else "class"
    few = ", ".join(map(str, items[:8])) + (f" and {len(items) - 8} more" if len(items) > 8 else "")
    return f"{kind}{'' if len(items) == 1 else 's' if request.rows else 'es'} {few}"


def trained_without(data: Data, history: Sequence[Entry], wanted: Sequence[Entry], place: str) -> None:
    """Refuse a retrained model whose history says that it was trained on other rows than it should be.

    One without a history says nothing of that, and passes.

    Args:
        data: The data that all histories began with.
        history: That of the retrained model.
        wanted: That of the original, and the request of the audit.
        place: What to call the model.

    Raises:
        RequestError: It was made by a method that does not train from scratch, or without other rows.
    """
    if not history:
        return
    method = history[-1].get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    if name != "retrain":
        raise RequestError(
            f"expected a model retrained without what was to be forgotten, got {place}, which was made by {name!r}: "
            "make one by `expunge forget --method retrain`, or give --references"
        )
    came, should = requests_in(data, history), requests_in(data, wanted)
    if not (named(data, *came)[0] == named(data, *should)[0]).all():
        told = [" and ".join(in_words(one, data) for one in requests) for requests in (should, came)]
        raise RequestError(f"expected a model retrained without {told[0]}, got {place}, retrained without {told[1]}")
