"""Fuzz: give the product thousands of damaged and hostile inputs, and see that each is accepted or refused in one line.

python tests/fuzz.py --out benchmarks/results/fuzz.json

Seeds are what the product itself writes. Every input is a folder, made from a seeded generator, and is given to a
public entry: nothing but an ExpungeError may come back (from the command line: exit code 0, 1 or 2, and with 1 and 2
one printable line), within seconds, without much memory, without a process, a connection or code of a pickle, and with
nothing written but where the user asked for it. The first input that does not is kept, to be tried again:

python tests/fuzz.py --target config --again FOLDER
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
import warnings
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import datasets
import huggingface_hub
import torch

from expunge.errors import ExpungeError
from expunge.result import environment
from fuzz_targets import TARGETS, make_ground
from guarded import BreachError, Guard, Slow, limit_memory, tree

MEMORY = 6 * 2**30
"""Addresses that all inputs together may have beyond those of the seeds: the machine is not to run out of memory."""


def outs_of(words: list[str]) -> tuple[Path, ...]:
    """Return where a command line asks to write."""
    asked = [after for before, after in pairwise(words) if before == "--out"]
    asked += [word.removeprefix("--out=") for word in words if word.startswith("--out=")]
    asked = asked or ["runs", "result.json", "report.html"]
    return tuple(Path(os.path.realpath(word)) for word in asked if "\0" not in word)


class Fuzzer:
    """Makes inputs and gives them to the product, one after another.

    Args:
        home: A folder where everything happens: seeds, caches, inputs.
    """

    def __init__(self, home: Path) -> None:
        self._seeds, self._case = home / "seeds", home / "cases" / "a" / "b" / "case"
        for name in ("tmp", "cache"):
            (home / name).mkdir()
        tempfile.tempdir = str(home / "tmp")
        os.environ["EXPUNGE_CACHE"] = str(home / "cache" / "expunge")
        datasets.config.HF_DATASETS_CACHE = home / "cache" / "sets"
        datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
        make_ground(self._seeds)
        self._guard = Guard(home)

    def fill(self, name: str, number: int, seed: int) -> None:
        """Make an input of a target; it is a function of target, number and seed alone."""
        shutil.rmtree(self._case.parents[2], ignore_errors=True)
        self._case.mkdir(parents=True)
        with warnings.catch_warnings(action="ignore"):
            TARGETS[name].make(Random(f"{seed}/{name}/{number}"), self._seeds, self._case)  # noqa: S311

    def put(self, folder: Path) -> None:
        """Take an input that was kept."""
        shutil.rmtree(self._case.parents[2], ignore_errors=True)
        shutil.copytree(folder, self._case, symlinks=True)

    def keep(self, folder: Path) -> None:
        """Keep the present input."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._case, folder, symlinks=True)

    def give(self, name: str) -> str | None:
        """Give the present input to the product: return None if it is accepted, or why it is refused.

        Raises:
            BreachError: Something else happened; says what.
        """
        words = self._case / "words.json"
        here = Path.cwd()
        os.chdir(self._case)
        try:
            outs = outs_of(json.loads(words.read_text())) if words.exists() else (self._case / "out",)
            before = tree(self._case.parents[2], outs)
            with self._guard.watched(outs):
                TARGETS[name].take(self._case)
            why = None
        except ExpungeError as error:
            why = str(error)
        except BreachError:
            raise
        except (Exception, Slow) as error:
            where = "".join(traceback.format_exception(error)[-6:])
            raise BreachError(f"{type(error).__name__}: {str(error)[:500]}\n{where}") from error
        finally:
            os.chdir(here)
        self._guard.judge()
        if tree(self._case.parents[2], outs) != before:
            after = tree(self._case.parents[2], outs)
            changed = {path for path in before | after if before.get(path) != after.get(path)}
            raise BreachError(f"files changed: {sorted(changed)[:3]}")
        return why


def fuzz(
    fuzzer: Fuzzer, name: str, inputs: int, seed: int, kept: Path | None, *, go_on: bool = False
) -> dict[str, int]:
    """Give so many inputs of a target to the product and return how many were accepted and refused.

    Raises:
        BreachError: The first that was neither; it is kept.
    """
    found = {"inputs": inputs, "accepted": 0, "refused": 0, "breaches": 0}
    for number in range(inputs):
        fuzzer.fill(name, number, seed)
        try:
            found["refused" if fuzzer.give(name) is not None else "accepted"] += 1
        except BreachError as breach:
            if kept is not None:
                fuzzer.keep(kept / f"{name}-{number}")
            if not go_on:
                raise BreachError(f"{name} {number}: {breach}") from breach
            found["breaches"] += 1
            print(f"{name} {number}: {breach}", flush=True)
    return found


def main() -> None:
    """Give all inputs to the product and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="record to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="share of the inputs")
    parser.add_argument("--target", choices=TARGETS, help="one kind of input alone")
    parser.add_argument("--again", type=Path, help="an input that was kept; needs --target")
    parser.add_argument("--kept", type=Path, default=Path("fuzz-kept"), help="where offending inputs go")
    parser.add_argument("--go-on", action="store_true", help="tell of all offending inputs, not of the first alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    out, kept = (path and path.absolute() for path in (arguments.out, arguments.kept))
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        limit_memory(MEMORY)
        if arguments.again:
            fuzzer.put(arguments.again)
            print(fuzzer.give(arguments.target))
            return
        counts = {}
        for name, target in TARGETS.items():
            if arguments.target in (None, name):
                inputs = max(1, round(arguments.share * target.inputs))
                counts[name] = fuzz(fuzzer, name, inputs, arguments.seed, kept, go_on=arguments.go_on)
                print(json.dumps({name: counts[name]}), flush=True)
                if out:
                    out.write_text(json.dumps(record(counts, arguments.seed), indent=1) + "\n")
    sys.exit(any(one["breaches"] for one in counts.values()))


def record(counts: dict[str, dict[str, int]], seed: int) -> dict[str, Any]:
    """Return what was seen, as plain values."""
    return {
        "command": "python tests/fuzz.py --out benchmarks/results/fuzz.json",
        "seed": seed,
        **{key: sum(one[key] for one in counts.values()) for key in ("inputs", "accepted", "refused", "breaches")},
        "targets": counts,
        "environment": environment("cpu"),
    }


if __name__ == "__main__":
    main()
