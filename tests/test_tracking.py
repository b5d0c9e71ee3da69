"""Claims about tracking: losses and findings reach the loggers, and nothing else changes."""

import csv
import sys
from pathlib import Path

import pytest
import torch

from conftest import Toy
from examples import example_findings
from expunge.errors import SettingsError
from expunge.network import copy_of
from expunge.runtime import Runtime, open_runtime
from expunge.tracking import Tracking, open_tracking
from expunge.training import Training, fit
from test_cli import SHAPES, call

STEPS = 2 * 10  # 320 rows in batches of 32, twice


def tracked(toy: Toy, tracking: Tracking) -> tuple[Runtime, dict[str, torch.Tensor]]:
    """Train a copy twice, the second time under the same name."""
    runtime = open_runtime(device="cpu")
    object.__setattr__(runtime, "tracking", tracking)
    model = copy_of(toy.model)
    for _ in range(2):
        fit(model, toy.data.train, runtime, Training(epochs=2, batch_size=32), stage="again")
    tracking.findings(example_findings())
    tracking.close()
    return runtime, model.state_dict()


def test_csv_holds_the_loss_of_every_step_and_every_known_number(toy: Toy, tmp_path: Path) -> None:
    tracked(toy, open_tracking(["csv"], tmp_path))
    with (tmp_path / "csv" / "expunge" / "version_0" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("again/loss", "again 2/loss"):
        steps = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert [step for step, _ in steps] == list(range(1, STEPS + 1))
        assert all(0 <= loss < 10 for _, loss in steps)
    known = {
        f"finding/{finding.name}/{model}": getattr(finding, model)
        for finding in example_findings()
        for model in ("original", "unlearned", "retrained")
    }
    assert {name: float(value) for name, value in rows[-1].items() if value and name != "step"} == {
        name: value for name, value in known.items() if value is not None
    }


def test_tensorboard_reads_the_same_losses_as_csv(toy: Toy, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracked(toy, open_tracking(["csv", "tensorboard"], tmp_path))
    with (tmp_path / "csv" / "expunge" / "version_0" / "metrics.csv").open(newline="") as file:
        losses = [float(row["again/loss"]) for row in csv.DictReader(file) if row["again/loss"]]
    read = events.EventAccumulator(str(tmp_path / "tensorboard" / "expunge" / "version_0"))
    read.Reload()
    scalars = read.Scalars("again/loss")
    assert [scalar.step for scalar in scalars] == list(range(1, STEPS + 1))
    assert [scalar.value for scalar in scalars] == pytest.approx(losses)


def test_tracking_changes_no_weight(toy: Toy, tmp_path: Path) -> None:
    _, plain = tracked(toy, Tracking())
    _, followed = tracked(toy, open_tracking(["csv"], tmp_path))
    assert all(plain[name].equal(followed[name]) for name in plain)


def test_a_command_tracks_and_its_rehearsal_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["train", *SHAPES, "--set", "epochs=1", "--track", "csv", "--out", "model"]
    assert call(capsys, *asked, "--dry-run")[0] == 0
    assert not (tmp_path / "runs").exists()
    assert call(capsys, *asked)[0] == 0
    (written,) = (tmp_path / "runs" / "tracked").rglob("metrics.csv")
    assert written.read_text().startswith("step,train/loss\n1,")


@pytest.mark.parametrize(
    ("tracker", "module", "packages"),
    [("wandb", "lightning", "lightning wandb"), ("mlflow", "lightning", "lightning mlflow")],
)
def test_a_tracker_that_is_not_installed_says_what_to_install_before_any_work(
    tracker: str,
    module: str,
    packages: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = call(capsys, "train", *SHAPES, "--track", tracker, "--out", str(tmp_path / "model"))
    assert (code, out) == (2, "")
    assert err.startswith(f"expunge: expected what --track {tracker} needs, got: ")
    assert err.endswith(f": pip install {packages}\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_an_unknown_tracker_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="got 'tensorbord' \\(did you mean 'tensorboard'"):
        open_tracking(["tensorbord"])
