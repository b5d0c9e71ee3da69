"""Disasters: what is read-only, or vanishes while a command runs, is told in one line, and earlier results stay."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from expunge.data import Data
from expunge.datasets.folder import Folder
from expunge.files import file_hash
from images import make_folder
from test_cli import SHAPES, call

NOBODY = 65534


@contextmanager
def as_anyone() -> Iterator[None]:
    """Give up the rights of root, to whom no folder is read-only; without these nothing changes."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a folder that everybody may enter, as pytest's own may not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: file_hash(file) for file in folder.iterdir()}


def test_a_read_only_place_is_one_line_and_a_read_only_original_is_all_that_is_needed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = place / "original"
    assert call(capsys, "train", *SHAPES, "--network", "mlp", "--out", str(original))[0] == 0
    before = hashes(original)
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    (place / "shut").mkdir()
    (place / "shut").chmod(0o555)
    for folder in (original, place):
        folder.chmod(0o555)
    given = ["forget", str(original), *SHAPES, "--classes", "1"]
    with as_anyone():
        refused = call(capsys, *given, "--out", str(place / "shut" / "new"))
        taken = call(capsys, *given, "--out", str(place / "open" / "new"))
    assert (refused[0], refused[2].count("\n")) == (2, 1)
    assert refused[2].startswith("expunge: expected a folder that can be written, got ")
    assert os.listdir(place / "shut") == []
    assert (taken[0], taken[2]) == (0, "")
    assert hashes(original) == before
    original.chmod(0o755)


def test_a_data_file_that_vanishes_while_a_model_trains_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "images" / "train", classes=("cat", "dog"), per_class=6)
    make_folder(tmp_path / "images" / "test", classes=("cat", "dog"), per_class=6)
    lost = next((tmp_path / "images" / "train").rglob("*.png"))
    load = Folder.load

    def load_and_lose(self: Folder) -> Data:
        data = load(self)
        lost.unlink()
        return data

    monkeypatch.setattr(Folder, "load", load_and_lose)
    given = ["train", "--data", "folder", "--set", f"dataset.path={tmp_path / 'images'}", "--network", "mlp"]
    code, _, err = call(capsys, *given, "--out", str(tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    assert lost.name in err
    assert not (tmp_path / "out").exists()
