"""Request: what is to be forgotten, in the words of whoever asks, found in the data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from expunge.errors import RequestError, did_you_mean
from expunge.rows import Rows, names_of


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
        if len(set(self.rows)) < len(self.rows):
            raise RequestError(f"expected each row once, got {list(self.rows)}")

    def resolve(self, label_names: Sequence[str], train: Rows) -> "Request":
        """Return the same request with every class and row as an index.

        Raises:
            RequestError: A class or row is unknown or ambiguous, one is named twice, or no class would be left.
        """
        if self.rows:
            return Request(rows=find_rows(self.rows, train))
        classes = sorted(find_class(item, label_names) for item in _joined(self.classes, label_names))
        if len(set(classes)) < len(classes):
            raise RequestError(f"expected each class once, got {list(self.classes)}")
        if len(classes) == len(label_names):
            raise RequestError(f"expected at least one class to retain, got all {len(label_names)} to forget")
        return Request(classes=tuple(classes))


def parse_request(classes: Sequence[str], rows: str | None) -> Request:
    """Return a request from words of the command line: ``["3,ship"]``, and ``"17,ship/4.png"`` or ``"@FILE"``.

    A class whose own name has commas is put together again when the request is resolved.

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


def _joined(items: Sequence[int | str], label_names: Sequence[str]) -> Sequence[int | str]:
    """Return items with the pieces of names that have commas joined, if all are classes then; else as they are."""
    names = {*label_names}
    alone = [item in names or str(item).removeprefix("#").isdecimal() for item in items]
    if all(alone):
        return items
    whole = {re.sub(r"\s*,\s*", ",", name.strip()): name for name in label_names if "," in name}
    longest = max((name.count(",") + 1 for name in whole), default=1)
    found: list[list[int | str] | None] = [*[None] * len(items), []]  # of the items from each place on
    for start in reversed(range(len(items))):
        for end in range(start + 1, min(start + longest, len(items)) + 1):
            single = alone[start] and end == start + 1
            name = items[start] if single else whole.get(",".join(map(str, items[start:end])))
            rest = found[end]
            if name is not None and rest is not None:
                found[start] = [name, *rest]
                break
    return items if found[0] is None else found[0]


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
