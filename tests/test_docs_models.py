"""What docs/models.md tells a user to type does what it says."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch.utils.data import TensorDataset

from expunge.audits.accuracy import Accuracy
from images import make_folder
from test_cli import call

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_recipe_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("expunge.experiment.DEFAULT_AUDITS", (Accuracy(),))  # the others have tests of their own
    make_folder(tmp_path / "photos", classes=("cat", "dog", "owl"), per_class=6)
    torch.save(torchvision.models.mobilenet_v3_small(num_classes=3).state_dict(), "model.pth")
    own, python = blocks("python")
    (tmp_path / "my_code.py").write_text(own)
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 10
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "expunge"
        words += ["--set", "dataset.size=8"] * (words[0] in ("train", "convert"))  # small and short, to be fast
        if words[0] == "forget":
            words += ["--set", "repair_epochs=1"] + ["--set", "noise_steps=2"] * ("--method" not in words)
        code, _, err = call(capsys, *words)
        notes = [line for line in err.splitlines() if " of accuracy on " not in line]  # of few rows much may be lost
        assert (code, notes) == (0, []), command

    namespace: dict[str, Any] = {}
    exec(own, namespace)  # noqa: S102
    images, labels = torch.randn(18, 3, 8, 8), torch.arange(18) % 3
    data = TensorDataset(images, labels)
    told = {"model": namespace["build"](3, (3, 8, 8)), "train_set": data, "test_set": data}
    exec(python, told)  # noqa: S102
    assert type(told["made"].model) is type(told["model"])
    assert told["result"].level == "none"
