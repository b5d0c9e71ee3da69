"""Faults: kill commands at random moments and fill the disk, and see that nothing is lost.

python tests/faults.py --out benchmarks/results/faults.json

Every command is first run undisturbed. Then it is run again and again, killed at a random moment or at a random file
operation each time, and at last let come to its end: it must make the same weights, or the same findings, bit for bit.
After every kill whatever stands at its output is loaded: it must be what was there before, or the new result, whole.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import expunge.datasets.shapes  # what a forked process has imported already costs it no time
import expunge.stages  # noqa: F401
from expunge import cli
from expunge.checkpoint import load_model
from expunge.files import file_hash, settle
from expunge.journal import EVERY
from expunge.result import Result, environment, read

DATA = "--data shapes --set dataset.classes=4 --set dataset.size=8 --set dataset.train_rows=160 --device cpu"
DATA += " --set dataset.test_rows=80 --set dataset.noise=0.3"
EPOCHS = 30
COMMANDS = {
    "train": f"train {DATA} --set epochs={EPOCHS} --set network.args.width=8 --out OUT",
    "retrain": f"forget original {DATA} --classes 1 --method retrain --out OUT",
    "unsir": f"forget original {DATA} --classes 1 --method unsir --set repair_epochs=20 --out OUT",
    "audit": f"audit original unlearned {DATA} --classes 1 --references 2 --out OUT",
}


def attempt(
    words: Sequence[str], *, every: float = 0.02, kill_after: float | None = None, kill_at: int | None = None,
    largest: int | None = None,
) -> tuple[int, str]:  # fmt: skip
    """Run a command in a forked process, which has everything imported; return its exit code and what it said.

    Args:
        words: The command.
        every: Seconds between two states of its progress.
        kill_after: Seconds after which it is killed.
        kill_at: Or the file operation (sync or rename) before which it kills itself.
        largest: The most bytes that a file may have: the disk is full beyond.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(theirs, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ[EVERY] = str(every)
        if kill_at is not None:
            _kill_at(kill_at)
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        sys.argv = ["expunge", "-q", *words]
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        try:
            cli.main()
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)
        os._exit(99)
    os.close(theirs)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with open(ours, encoding="utf-8") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def _kill_at(number: int) -> None:
    """Let this process kill itself before its file operation of that number."""
    left = [number]

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **options)

        return call

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, counted(getattr(os, name)))


class Ground:
    """A folder with an original and an unlearned model, in which commands are disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.chdir(folder)
        os.environ["EXPUNGE_CACHE"] = str(folder / "cache")
        for name, out in (("train", "original"), ("unsir", "unlearned")):
            code, said = attempt(self.words(name, out), every=30)
            assert code == 0, said
        self.before = hashes(folder / "original")
        self._plain: dict[str, tuple[str, float, int]] = {}
        self._earlier: dict[str, Path] = {}

    def words(self, name: str, out: str, *more: str) -> list[str]:
        """Return a command as words."""
        return [*COMMANDS[name].replace("OUT", out).split(), *more]

    def undisturbed(self, name: str) -> tuple[str, float, int]:
        """Return what a command makes when nothing happens, its seconds, and the bytes of the largest file."""
        if name not in self._plain:
            self.clear("plain")
            begun = time.perf_counter()
            code, said = attempt(self.words(name, "plain"), every=30)
            seconds = time.perf_counter() - begun
            assert code == 0, said
            plain = self.folder / "plain"
            largest = max(path.stat().st_size for path in (plain, *plain.rglob("*")) if path.is_file())
            self._plain[name] = made(plain), seconds, largest
        return self._plain[name]

    def earlier(self, name: str, out: str) -> str:
        """Put a result of another seed at an output, to be overwritten; return what it is."""
        self.clear(out)
        kept = self.folder / f"earlier-{name}"
        if name not in self._earlier:
            code, said = attempt(self.words(name, kept.name, "--seed", "5"), every=30)
            assert code == 0, said
            self._earlier[name] = kept
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        if kept.is_dir():
            shutil.copytree(kept, self.folder / out)
        else:
            shutil.copy2(kept, self.folder / out)
        return made(self.folder / out)

    def clear(self, out: str) -> None:
        """Remove an output, its progress and the cache."""
        for path in (self.folder / out, self.folder / f".{out}-progress", self.folder / "cache"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def killed(self, name: str, kills: int, chance: random.Random, *, overwrite: bool) -> dict[str, Any]:
        """Kill a command so many times, then let it end; return what was seen."""
        expected, seconds, _ = self.undisturbed(name)
        out = self.folder / "killed"
        self.clear("killed")
        words = self.words(name, "killed", *(["--overwrite"] if overwrite else []))
        old = self.earlier(name, "killed") if overwrite else None
        done = resumed = 0
        while done < kills:
            moment: dict[str, Any] = {"kill_after": chance.uniform(0.0, seconds)}
            if chance.random() < 0.5:
                moment = {"kill_at": chance.randint(1, 24)}
            code, said = attempt(words, **moment)
            resumed += (self.folder / ".killed-progress").exists()
            settle(out)
            if out.exists():
                assert made(out) in (expected, old), f"{name}: a damaged or other result after {moment}"
            if code == 0 or (out.exists() and made(out) == expected):  # it was faster than the kill
                done += code != 0
                if not overwrite:
                    self.clear("killed")
                continue
            assert code == -signal.SIGKILL, (code, said)
            done += 1
        code, said = attempt(words, every=30)
        assert code == 0, said
        assert made(out) == expected, f"{name}: other weights than those of the undisturbed run"
        left = [path.name for path in self.folder.iterdir() if path.name.startswith(".killed")]
        assert not left, f"{name}: leftovers {left}"
        assert hashes(self.folder / "original") == self.before
        return {"command": name, "overwrite": overwrite, "kills": done, "with_progress": resumed, "equal": True}

    def full(self, name: str, point: float) -> dict[str, Any]:
        """Let the disk be full at a share of the largest file, over an earlier result; return what was seen."""
        expected, _, size = self.undisturbed(name)
        old = self.earlier(name, "full")
        words = self.words(name, "full", "--overwrite")
        code, said = attempt(words, largest=int(point * size))
        assert code == 2, (code, said)
        assert said.count("\n") == 1, said
        assert made(self.folder / "full") == old
        code, said = attempt(words, every=30)
        assert code == 0, said
        assert made(self.folder / "full") == expected
        left = [path.name for path in self.folder.iterdir() if path.name.startswith(".full")]
        assert not left, left
        return {"command": name, "point": point, "earlier_result_whole": True}


def made(out: Path) -> str:
    """Return a hash of what a command made: its weights, or its findings. It is read whole."""
    if out.is_dir():
        return load_model(out).hash
    return json.dumps([vars(finding) for finding in read(Result, out).findings], default=str)


def hashes(folder: Path) -> dict[str, tuple[str, int]]:
    """Return hash and time of change of every file."""
    return {path.name: (file_hash(path), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


def main() -> None:
    """Disturb all commands and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=120)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    torch.set_num_threads(1)
    chance = random.Random(arguments.seed)  # noqa: S311  no secret hangs on it
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        rounds, kills = [], 0
        while kills < arguments.kills:
            for name in COMMANDS:
                rounds.append(ground.killed(name, 4, chance, overwrite=chance.random() < 0.5))
                kills += 4
                print(json.dumps(rounds[-1]), flush=True)
        full = [ground.full(("train", "retrain")[number % 2], (number + 0.5) / 20) for number in range(20)]
        os.chdir(home)
    record = {
        "command": "python tests/faults.py",
        "seed": arguments.seed,
        "kills": kills,
        "kills_that_left_progress": sum(one["with_progress"] for one in rounds),
        "full_disks": len(full),
        "environment": environment("cpu"),
        "rounds": rounds,
        "full": full,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({key: record[key] for key in ("kills", "kills_that_left_progress", "full_disks")}))


if __name__ == "__main__":
    main()
