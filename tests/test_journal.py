"""Journal and course: a training that is stopped goes on to the same weights, and one that diverges goes back."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expunge.access import CountedRows
from expunge.errors import DivergedError, OutputError, StoppedError
from expunge.files import lock
from expunge.journal import EVERY, KEY, journal_of
from expunge.rows import Indices, TensorRows
from expunge.runtime import Runtime, open_runtime
from expunge.training import Training, fit

ROWS = TensorRows(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3)
STEPS = 4 * 7  # 50 rows by 8, the last of two rows


class Stopping(TensorRows):
    """Rows that ask the journal to stop when a batch of that number is read."""

    def __init__(self, runtime: Runtime, at: int) -> None:
        super().__init__(*ROWS.batch(np.arange(50)))
        self.runtime, self.left = runtime, at

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left == 0 and self.runtime.journal:
            self.runtime.journal.stop = True
        return super().batch(indices)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


@contextmanager
def journaled(folder: Path, said: list[str], key: dict[str, Any] | None = None) -> Iterator[Runtime]:
    with journal_of(folder / "out", lambda: key or {"seed": 0}, said.append) as journal:
        yield replace(open_runtime(device="cpu"), journal=journal)


def training(optimizer: str = "adamw", schedule: str = "one_cycle", lr: float = 0.01) -> Training:
    return Training(epochs=4, batch_size=8, optimizer=optimizer, schedule=schedule, lr=lr)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "one_cycle"])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, optimizer: str, schedule: str) -> None:
    """Stopped after 1, then 9 more, then 7 more steps, across the ends of epochs."""
    runtime, plain = open_runtime(device="cpu"), network()
    counted = CountedRows(ROWS)
    fit(plain, counted, replace(runtime, counted={"retain": counted}), training(optimizer, schedule), stage="x")
    said: list[str] = []
    for at in (1, 9, 7, 0):
        model = network()
        try:
            with journaled(tmp_path, said) as again:
                rows = CountedRows(Stopping(again, at))
                here = replace(again, counted={"retain": rows})
                fit(model, rows, here, training(optimizer, schedule), stage="x")
        except StoppedError:
            continue
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert here.cost.flops == runtime.cost.flops
    assert rows.reads == counted.reads == 4 * 50
    assert rows.seen.all()
    assert os.listdir(tmp_path) == []
    assert said == [f"going on from the progress in {tmp_path / '.out-progress'}"] * 3


def test_a_finished_training_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY, "0")
    first, second = network(), network()
    with pytest.raises(StoppedError, match="repeat the same command"):  # noqa: PT012, SIM117
        with journaled(tmp_path, []) as runtime:
            fit(first, ROWS, runtime, training(), stage="x")
            raise KeyboardInterrupt
    with journaled(tmp_path, []) as runtime:
        rows = CountedRows(ROWS)
        fit(second, rows, runtime, training(), stage="x")
        assert rows.reads == 0
    assert torch.equal(first.state_dict()["0.weight"], second.state_dict()["0.weight"])


def test_a_short_command_writes_no_progress(tmp_path: Path) -> None:
    with journaled(tmp_path, []) as runtime:
        fit(network(), ROWS, runtime, training(), stage="x")
        assert os.listdir(tmp_path) == []


def interrupted(folder: Path) -> None:
    with pytest.raises(StoppedError), journaled(folder, []) as runtime:
        fit(network(), Stopping(runtime, 5), runtime, training(), stage="x")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_progress_is_dropped_and_said(tmp_path: Path, damage: str) -> None:
    interrupted(tmp_path)
    (state,) = (tmp_path / ".out-progress").glob("*.safetensors")
    whole = bytearray(state.read_bytes())
    whole[-5] ^= 1
    state.write_bytes(whole[:100] if damage == "cut" else whole)
    plain, model = network(), network()
    said: list[str] = []
    fit(plain, ROWS, open_runtime(device="cpu"), training(), stage="x")
    with journaled(tmp_path, said) as runtime:
        fit(model, ROWS, runtime, training(), stage="x")
    assert "is damaged: that work is done again" in said[1]
    assert torch.equal(plain.state_dict()["0.weight"], model.state_dict()["0.weight"])


def test_progress_of_other_settings_is_removed_and_said(tmp_path: Path) -> None:
    interrupted(tmp_path)
    said: list[str] = []
    with journaled(tmp_path, said, {"seed": 1}):
        assert not (tmp_path / ".out-progress").exists()
    assert said == [f"progress in {tmp_path / '.out-progress'} is of another seed: starting afresh"]


def test_two_processes_do_not_share_progress(tmp_path: Path) -> None:
    interrupted(tmp_path)
    assert (tmp_path / ".out-progress" / KEY).exists()
    handle = lock(tmp_path / ".out-progress")
    with (
        pytest.raises(OutputError, match="expected no other process at work"),
        journaled(tmp_path, []),
    ):
        pass
    assert handle is not None
    os.close(handle)


class Poisoned(TensorRows):
    """Rows whose batch of that number is not finite when it is first read."""

    def __init__(self, at: int) -> None:
        super().__init__(*ROWS.batch(np.arange(50)))
        self.left = at

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        inputs, labels = super().batch(indices)
        self.left -= 1
        return (inputs * float("nan") if self.left == 0 else inputs), labels


def test_a_training_that_diverges_goes_back_and_on_at_half_the_rate() -> None:
    """The whole of it is within one look: it is as if it had been trained at half the rate from the start."""
    expected, model, runtime = network(), network(), open_runtime(device="cpu")
    fit(expected, ROWS, open_runtime(device="cpu"), training(lr=0.005), stage="x")
    fit(model, Poisoned(10), runtime, training(lr=0.01), stage="x")
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)
    assert runtime.cost.events == [
        f"x diverged by step {STEPS}: went on from step 0 at half the learning rate, lower it"
    ]


def test_a_training_that_diverges_at_every_rate_says_what_to_lower() -> None:
    poisoned = TensorRows(torch.full((50, 6), float("nan")), torch.arange(50) % 3)
    model = copy.deepcopy(network())
    with pytest.raises(DivergedError, match="expected a mean loss between -10000 and 10000 in x, got nan: lower the"):
        fit(model, poisoned, open_runtime(device="cpu"), training(), stage="x")
