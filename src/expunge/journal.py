"""Journal: what a command has done so far, kept beside its output, so that the same command goes on after a kill.

Beside the output OUT stands, from the first half minute of work to its end, the folder ``.OUT-progress``:

- ``key.json``: everything that decides the result. Progress under any other key is of no use and is removed.
- ``NAME.safetensors``: the state of one piece of work, tensors and a record in JSON, with the hash of both. One with
  another hash is damaged, and is as if it were not there.

A command has no list of what is done. It does all again from the start, and whoever does a piece of work that takes
long asks the journal first: for a finished one the state at its end is taken, for an unfinished one the last state.
Everything else is done again and, being a function of settings, data and seed, comes out as it did.
"""

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from expunge.errors import OutputError, StoppedError
from expunge.files import lock, new_file, write_text
from expunge.fingerprints import tensors_hash

EVERY = "EXPUNGE_SAVE_EVERY"
"""Environment variable: seconds between two states of a piece of work; 30 if it is not set."""
KEY = "key.json"


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a piece of work stands."""

    done: int
    """Steps done."""
    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]
    """Whatever else JSON can hold."""


@dataclass(kw_only=True)
class Journal:
    """The progress of one command. It writes nothing before the first `every` seconds are over."""

    folder: Path
    key: Callable[[], Mapping[str, Any]]
    """Gives everything that decides the result; called only when there is progress to compare or to write."""
    every: float
    """Seconds between two states of a piece of work."""
    tell: Callable[[str], None]
    """Says a line to the user."""
    writes: bool = True
    """Whether this process writes; of several, one does."""
    in_any: Callable[[bool], bool] = bool
    """Tells whether something holds in any of several processes, which all ask at once."""
    stop: bool = False
    """Whether this process has been asked to stop: work that is under way saves and raises KeyboardInterrupt."""
    working: bool = False
    """Whether a piece of work is under way that asks `stops` now and then."""
    _opened: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _seen: Counter[str] = field(default_factory=Counter)
    _lock: int | None = None

    def name(self, *what: Any) -> str:
        """Return the name of the next piece of work of a kind; the same work at another time gets another."""
        kind = json.dumps(what, sort_keys=True)
        self._seen[kind] += 1
        return hashlib.sha256(f"{kind} {self._seen[kind]}".encode()).hexdigest()[:16]

    def find(self, name: str) -> State | None:
        """Return the last state of a piece of work; None if there is none that is whole."""
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                told = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dictionary
        except (SafetensorError, OSError):
            told = {}
        if told.get("hash") != _hash(tensors if told else {}, told.get("state", "")):
            self.tell(f"progress in {path} is damaged: that work is done again")
            return None
        state = json.loads(told["state"])
        return State(done=state["done"], tensors=tensors, record=state["record"])

    def due(self) -> bool:
        """Return whether it is time for an unfinished piece of work to be saved."""
        return time.monotonic() - self._saved >= self.every

    def due_at_end(self) -> bool:
        """Return whether a finished piece of work is worth saving: not in a short command, nor if it took no time."""
        now = time.monotonic()
        return now - self._opened >= self.every and now - self._saved >= self.every / 10

    def save(self, name: str, state: State) -> None:
        """Keep the state of a piece of work in place of its earlier one.

        Raises:
            OutputError: It cannot be written.
        """
        if not self.writes:
            return
        self._begin()
        tensors = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.tensors.items()}
        told = json.dumps({"done": state.done, "record": state.record})
        with new_file(self._path(name)) as staging:
            try:
                save_file(tensors, staging, metadata={"state": told, "hash": _hash(tensors, told)})
            except SafetensorError as error:
                raise OutputError(f"expected to write progress into {self.folder}, got: {error}") from error
        self._saved = time.monotonic()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Let a request to stop wait for the work inside, which asks `stops` and ends by itself."""
        self.working = True
        try:
            yield
        finally:
            self.working = False
        if self.stops():
            raise KeyboardInterrupt

    def stops(self) -> bool:
        """Return whether to stop here: one alone would leave the others waiting, so all processes ask at once."""
        return self.in_any(self.stop)

    def remembered(self, value: Callable[[], str], *what: Any) -> str:
        """Return a text that a piece of work makes, from the journal if it is there."""
        name = self.name(*what)
        state = self.find(name)
        if state is not None:
            return str(state.record["text"])
        text = value()
        if self.due_at_end():
            self.save(name, State(done=1, tensors={}, record={"text": text}))
        return text

    def _begin(self) -> None:
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._hold()
            write_text(self.folder / KEY, _text(self.key()), overwrite=True)

    def _hold(self) -> None:
        self._lock = lock(self.folder)
        if self._lock is None:
            raise OutputError(f"expected no other process at work on the same output, got one that holds {self.folder}")

    def open(self) -> None:
        """Look for progress of an earlier attempt, and remove what is of another command or data.

        Of several processes the one that writes does, and the others go by what it leaves.

        Raises:
            OutputError: Another command works on the same output.
        """
        if self.writes and self.folder.is_dir():
            self._look()
        self.in_any(False)  # until then the others wait

    def _look(self) -> None:
        self._hold()
        path = self.folder / KEY
        found = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if found == _text(self.key()):
            self.tell(f"going on from the progress in {self.folder}")
            return
        self.tell(f"progress in {self.folder} is {_other(found, self.key())}: starting afresh")
        self.remove()

    def close(self) -> None:
        """Let other processes have the progress."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Remove all progress; of several processes, the one that writes does."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


@contextmanager
def journal_of(
    out: Path,
    key: Callable[[], Mapping[str, Any]],
    tell: Callable[[str], None],
    *,
    writes: bool = True,
    in_any: Callable[[bool], bool] = bool,
) -> Iterator[Journal]:
    """Give the journal of a command that makes `out`; at the end its progress is removed, unless there was an error.

    While it is open, Ctrl-C and SIGTERM wait for the end of a step and save; a second one does not wait.

    Raises:
        OutputError: Another process works on the same output.
        StoppedError: The user has stopped it; says how to go on.
    """
    folder = out.absolute().with_name(f".{out.name}-progress")
    every = float(os.environ.get(EVERY, 30))
    journal = Journal(folder=folder, key=key, every=every, tell=tell, writes=writes, in_any=in_any)
    journal.open()
    try:
        with _waiting(journal):
            yield journal
        journal.remove()
    except KeyboardInterrupt:
        how = "repeat the same command to go on from there" if folder.exists() else "there was no progress to keep"
        raise StoppedError(f"interrupted: {how}") from None
    finally:
        journal.close()


@contextmanager
def _waiting(journal: Journal) -> Iterator[None]:
    """Let signals that ask to stop wait for the end of a step."""

    def ask(number: int, frame: Any) -> None:
        if journal.stop or not journal.working:
            raise KeyboardInterrupt
        journal.stop = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hash(tensors: Mapping[str, Tensor], told: str) -> str:
    return hashlib.sha256((tensors_hash(tensors) + told).encode()).hexdigest()


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, indent=1, sort_keys=True) + "\n"


def _other(found: str, key: Mapping[str, Any]) -> str:
    """Say in words what progress is of, since it is not of this key."""
    try:
        told = json.loads(found)
    except ValueError:
        return "damaged"
    wanted = json.loads(_text(key))
    names = sorted(name for name in {*told, *wanted} if told.get(name) != wanted.get(name))
    return f"of another {', '.join(names)}"
