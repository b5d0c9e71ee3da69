"""Fuzz: a few of what ``make fuzz`` gives in full, and that its guard sees what must not happen."""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import huggingface_hub
import pytest

import guarded
from fuzz import Fuzzer, fuzz
from fuzz_targets import TARGETS
from guarded import BreachError, Guard, Slow

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries warn of damaged files before they refuse them


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    cache, folder = os.environ["EXPUNGE_CACHE"], tempfile.tempdir
    sets, offline = datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_OFFLINE
    yield Fuzzer(tmp_path_factory.mktemp("fuzz"))
    os.environ["EXPUNGE_CACHE"], tempfile.tempdir = cache, folder
    datasets.config.HF_DATASETS_CACHE = sets
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = offline


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_accepted_or_refused_and_nothing_else(name: str, fuzzer: Fuzzer) -> None:
    found = fuzz(fuzzer, name, 3, seed=1, kept=None)
    assert found["accepted"] + found["refused"] == 3


def test_an_input_is_a_function_of_seed_and_number(fuzzer: Fuzzer, tmp_path: Path) -> None:
    texts = []
    for number in (4, 5, 4):
        fuzzer.fill("result", number, seed=0)
        fuzzer.keep(tmp_path / "kept")
        texts.append(next((tmp_path / "kept").iterdir()).read_bytes())
    assert texts[0] == texts[2] != texts[1]


class Mark:
    def __reduce__(self) -> tuple[object, ...]:
        return os.getpid, ()


MISDEEDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file elsewhere": (lambda home: (home.parent / "elsewhere").write_text("x"), "open .*elsewhere"),
    "a folder elsewhere": (lambda home: (home.parent / "elsewhere").mkdir(), "os.mkdir .*elsewhere"),
    "a file removed elsewhere": (lambda home: (home.parent / "there").unlink(), "os.remove .*there"),
    "a process": (lambda home: subprocess.run([sys.executable, "-c", ""], check=True), "subprocess.Popen"),
    "code of a pickle": (lambda home: pickle.loads(pickle.dumps(Mark())), "pickle.find_class"),  # noqa: S301
    "memory": (lambda home: bytearray(2**26).count(1), "MiB of memory"),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_the_guard_sees(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misdeed, told = MISDEEDS[name]
    (tmp_path / "home").mkdir()
    (tmp_path / "there").touch()
    monkeypatch.setattr(guarded, "MEMORY", -1 if name == "memory" else 2**40)
    guard = Guard(tmp_path / "home")
    with pytest.raises((BreachError, PermissionError)), guard.watched(()):
        misdeed(tmp_path / "home")
    with pytest.raises(BreachError, match=told):
        guard.judge()
    assert (tmp_path / "there").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_the_guard_stops_what_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "SECONDS", 0.05)

    def work() -> None:
        begun = time.process_time()
        while time.process_time() - begun < 5:
            pass

    with pytest.raises(Slow), Guard(tmp_path).watched(()):
        work()
