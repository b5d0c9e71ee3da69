"""The guard: what is lost of the answers to retained rows is said, with the setting to lower."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from conftest import Toy
from expunge import forget
from expunge.guard import collapse
from expunge.methods.dissolve_data_free import DissolveDataFree
from expunge.methods.unsir import Unsir
from expunge.result import Kept, Record, read
from expunge.settings import describe
from test_cli import SHAPES, call


def test_the_line_gives_the_numbers_and_the_setting() -> None:
    kept = Kept(rows=512, before=0.98, after=0.4)
    assert collapse(kept, describe(Unsir())) == (
        "unsir lost 58 points of accuracy on 512 retained rows (98.0% before, 40.0% after; 10 are allowed for): "
        "lower impair_lr"
    )
    assert collapse(kept, describe(DissolveDataFree())).endswith(": lower dissolve.lr")
    assert collapse(kept, {"name": "head_mask"}).endswith(": the method has no learning rate to lower, choose another")


def test_a_collapse_is_told_on_the_terminal_and_in_the_record_and_nothing_is_rolled_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = str(tmp_path / "original")
    assert call(capsys, "train", *SHAPES, "--network", "mlp", "--set", "epochs=20", "--out", original)[0] == 0
    words = ["forget", original, *SHAPES, "--classes", "1", "--set", "repair_epochs=0"]
    code, _, err = call(capsys, *words, "--set", "impair_lr=1.0", "--out", str(tmp_path / "collapsed"))
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("expunge: unsir lost ")
    assert err.endswith(": lower impair_lr\n")
    cost = read(Record, tmp_path / "collapsed" / "forget.json").cost
    assert cost.kept is not None
    assert cost.kept.after < cost.kept.before - 0.1
    assert [f"expunge: {event}\n" for event in cost.events] == [err]
    code, out, err = call(capsys, "--json", *words, "--set", "impair_lr=1e-6", "--out", str(tmp_path / "kept"))
    assert (code, err) == (0, "")
    told = json.loads(out)["cost"]
    assert (told["events"], told["kept"]["rows"]) == ([], 120)
    assert told["kept"]["after"] == pytest.approx(told["kept"]["before"], abs=0.02)


def test_python_gives_it_too_and_rows_are_drawn_from_a_stream_of_their_own(toy: Toy) -> None:
    labels = torch.arange(700) % 4
    train = TensorDataset(torch.randn(700, 1, 8, 8, generator=torch.Generator().manual_seed(0)), labels)
    made = [
        forget(toy.model, train, classes=[1], method=Unsir(noise="none", steps=2, repair_epochs=0), device="cpu")
        for _ in range(2)
    ]
    assert made[0].bill.kept == made[1].bill.kept
    assert made[0].bill.kept is not None
    assert made[0].bill.kept.rows == 512
    assert made[0].access["retain"].reads == 525, "the guard's reads are not the method's"
