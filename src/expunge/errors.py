"""The exceptions of expunge: everything that a caller can put right.

ExpungeError
├── SettingsError      a setting is unknown or out of range
├── DataError          the data cannot be used
├── RequestError       the request cannot be honoured
├── AccessError        a method asked for a part that it did not declare
├── ModelError         the model cannot be used: shape, weights, missing head
├── OutputError        a result cannot be written, or would overwrite one
├── DivergedError      training produced numbers that are not finite, or losses beyond every bound
└── StoppedError       the user has stopped the work

Each message says what was expected, what came, and where useful what to do. The command line prints it on
one line and exits with 2, or with 130 if the user has stopped it.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ExpungeError(Exception):
    """The root: catch this to catch all."""


class SettingsError(ExpungeError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(ExpungeError):
    """The data cannot be used: empty, mislabelled, of another shape."""


class RequestError(ExpungeError):
    """The request cannot be honoured: unknown class, nothing left to retain, a method that does not apply."""


class AccessError(ExpungeError):
    """A method asked for a part of the data that it did not declare."""


class ModelError(ExpungeError):
    """The model cannot be used: missing or damaged folder, other shapes, weights that are not finite."""


class OutputError(ExpungeError):
    """A result cannot be written, or would overwrite one."""


class DivergedError(ExpungeError):
    """Training produced a loss or weights that are not finite, or a loss beyond every bound."""


class StoppedError(ExpungeError):
    """The user has stopped the work with Ctrl-C or SIGTERM; says whether and how it can go on."""


@contextmanager
def expecting(wanted: str, refusal: type[ExpungeError]) -> Iterator[None]:
    """Tell whatever a library raises for a file or a setting in one line: what was expected, and what it says.

    For calls of libraries that read what a stranger may have written: how they fail for damaged bytes is documented
    nowhere, and changes with their versions.

    Args:
        wanted: What was expected, ``"expected rows in FILE"``.
        refusal: Which exception to raise.

    Raises:
        ExpungeError: `refusal`, from what was raised; what is an ExpungeError already is handed on.
    """
    try:
        yield
    except ExpungeError:
        raise
    except Exception as error:
        raise refusal(f"{wanted}, got: {str(error) or type(error).__name__}") from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'unsir'?)"`` for the nearest known word, or the known words when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})"
