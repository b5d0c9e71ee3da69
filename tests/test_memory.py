"""Memory: what is free is asked before much is taken, and too little is told in one line."""

from pathlib import Path

import psutil
import pytest

from expunge import memory
from expunge.data import split
from expunge.datasets.shapes import Shapes
from expunge.errors import DataError
from expunge.memory import available_bytes, check_fits
from expunge.request import Request
from expunge.runtime import open_runtime


def make_cgroup(folder: Path, limit: str, used: int, files: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\nactive_file 7\n")
    return folder


def test_a_container_has_what_its_limit_leaves_and_the_pages_of_files(tmp_path: Path) -> None:
    assert available_bytes(make_cgroup(tmp_path, "1000", 800, 300)) == 500
    assert available_bytes(make_cgroup(tmp_path, "1000", 2000, 0)) == 0


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    for folder in (tmp_path / "nothing", make_cgroup(tmp_path, "max", 5, 5)):
        assert available_bytes(folder) == pytest.approx(free, rel=0.2)


def test_what_does_not_fit_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2_500_000)
    check_fits(2_500_000, "x", "y")
    with pytest.raises(DataError, match=r"^expected 3,000\.0 GB of memory for all, got 2\.5 MB: take less$"):
        check_fits(3 * 10**12, "all", "take less")


def test_evidence_that_does_not_fit_is_refused_before_a_row_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four models (and one more's batches) of 60 rows, four logits and a label each: 5 x 60 x 24 bytes."""
    from torch import nn

    from expunge.case import open_case

    data = Shapes(classes=4, size=8, channels=1, train_rows=40, test_rows=20).load()
    parts, model = split(data, Request(classes=(1,))), nn.Identity()
    monkeypatch.setattr(memory, "available_bytes", lambda: 7199)
    with pytest.raises(DataError, match=r"expected 0\.0 MB of memory for 4 logits of 60 rows by 4 models"):
        open_case(parts, model, model, [model, model], open_runtime(device="cpu"))
