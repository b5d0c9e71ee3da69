"""Dry runs: what they foresee is what then happens, and nothing is written by them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.cost import Cost
from expunge.files import file_hash
from expunge.rehearsal import Rehearsal
from test_cli import SHAPES, call

EPOCHS = 7
SMALL = ["--set", "network.args.width=8"]


def foreseen(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = call(capsys, "--json", *words, "--dry-run")
    assert (code, err) == (0, "")
    told: dict[str, Any] = json.loads(out)
    return told


def everything(folder: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (file_hash(path), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(autouse=True)
def soon_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage that can be cut short is."""
    monkeypatch.setattr("expunge.rehearsal.ENOUGH", 0.0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; 160 rows in batches of 64 make steps of 64, 64 and 32 rows."""
    from typer.testing import CliRunner

    from expunge.cli import app

    out = tmp_path_factory.mktemp("dry") / "original"
    words = ["train", *SHAPES, "--network", "mlp", *SMALL, "--set", f"epochs={EPOCHS}", "--out", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 0
    return out


def forget_words(original: Path, method: str, out: Path) -> list[str]:
    return ["forget", str(original), *SHAPES, "--classes", "1", "--method", method, "--out", str(out)]


@pytest.mark.parametrize("method", ["retrain", "unsir", "dissolve", "dissolve_data_free", "head_mask"])
def test_steps_and_operations_of_forgetting_are_those_of_the_bill(
    method: str, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, words = everything(original), forget_words(original, method, tmp_path / "out")
    found = foreseen(capsys, *words)
    assert everything(original) == before
    assert list(tmp_path.iterdir()) == []
    assert (found["out"], found["to_train"], found["cached"]) == (str(tmp_path / "out"), 0, 0)
    assert found["reads"] == ({} if method in ("dissolve_data_free", "head_mask") else {"retain": 120})
    code, out, _ = call(capsys, "--json", *words)
    assert code == 0
    cost, forecast = json.loads(out)["cost"], found["forecast"]
    assert forecast["flops"] == cost["flops"]
    assert set(forecast["steps"]) == set(cost["seconds"]) - {"total"}
    if method == "retrain":
        assert forecast["steps"] == {"retrain": 2 * EPOCHS}  # 120 rows in batches of 64


def test_steps_and_operations_of_training_are_as_worked_out_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *SHAPES, "--network", "mlp", *SMALL, "--set", f"epochs={EPOCHS}", "--out", str(tmp_path / "x")]
    found = foreseen(capsys, *words)
    assert found["reads"] == {"train": 160, "test": 80}
    assert found["forecast"]["steps"] == {"train": 3 * EPOCHS, "predict": 1}
    layers = [192 * 8, 8 * 8, 8 * 4]
    # 2 operations for each weight forward, 4 backward, but 2 where no gradient of the inputs is asked for
    trained = 160 * EPOCHS * (6 * sum(layers) - 2 * layers[0])
    assert found["forecast"]["flops"] == trained + 80 * 2 * sum(layers)
    assert list(tmp_path.iterdir()) == []


def test_an_audit_says_which_models_it_would_train_and_which_it_has(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    assert call(capsys, *forget_words(original, "head_mask", tmp_path / "less"))[0] == 0
    words = ["audit", str(original), str(tmp_path / "less"), *SHAPES, "--classes", "1"]
    words += ["--references", "3", "--out", str(tmp_path / "result.json")]
    monkeypatch.setattr("expunge.experiment.DEFAULT_AUDITS", ())
    found = foreseen(capsys, *words)
    assert (found["to_train"], found["cached"], found["not_foreseen"]) == (3, 0, ["audits"])
    assert found["forecast"]["steps"] == {"evidence": 5 * 4, "retrain": 3 * 2 * EPOCHS}
    assert not (tmp_path / "result.json").exists()
    fewer = [word.replace("3", "2") if word == "3" else word for word in words]
    assert call(capsys, *fewer)[0] == 0
    code, out, _ = call(capsys, *words, "--overwrite", "--dry-run")
    assert code == 0
    assert "Models to train for comparison: 1; 2 more are in the cache." in out
    assert "audits       not foreseen" in out


def test_a_run_is_foreseen_with_its_population(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "small.toml"
    file.write_text(
        "references = 2\npopulation = 1\naudits = []\n[request]\nclasses = [1]\n[method]\nname = 'head_mask'\n"
        f"[training]\nepochs = {EPOCHS}\n[network]\nname = 'mlp'\nargs = {{width = 8}}\n"
        "[dataset]\nname = 'shapes'\nclasses = 4\nsize = 8\ntrain_rows = 160\ntest_rows = 80\n"
    )
    words = ["run", str(file), "--device", "cpu", "--out", str(tmp_path / "out")]
    found = foreseen(capsys, *words)
    assert (found["to_train"], found["cached"]) == (3, 0)
    # the original, and one more for the unlearned model of the population
    expected = {"train": 2 * 3 * EPOCHS, "mask": 2, "evidence": 5 * 4, "retrain": 2 * 2 * EPOCHS}
    assert found["forecast"]["steps"] == expected
    assert not (tmp_path / "out").exists()
    assert call(capsys, *words)[0] == 0
    found = foreseen(capsys, *words, "--overwrite")
    assert (found["to_train"], found["cached"]) == (0, 3)
    assert found["forecast"]["steps"] == {"train": 3 * EPOCHS, "mask": 1, "evidence": 5 * 4}


def test_the_first_steps_stand_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    rehearsal, cost, done = Rehearsal(), Cost(), 0
    with rehearsal.stage("train", 100, 990, cost, torch.device("cpu"), float) as advance:
        for _ in range(100):
            clock[0] += 50.0 if done < 3 else 2.0
            cost.flops += 60
            cost.rows += 10
            done += 1
            advance(1)
    assert done == 7
    # 150 s for the first three steps, 2 s for each of the other 97; 990 rows of 6 operations each
    assert rehearsal.seconds == {"train": pytest.approx(150 + 97 * 2)}
    assert cost.flops + rehearsal.flops == 990 * 6
    forecast = rehearsal.forecast(162.0, cost.flops + rehearsal.flops, 5)
    assert forecast.seconds == pytest.approx({"train": 344.0, "other": 4.0, "total": 348.0})
