"""The notebook of the site runs, and its committed pictures are those of its code. ``make notebook`` runs it anew."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
FILE = DOCS / "notebook.ipynb"


def shape(notebook: nbformat.NotebookNode) -> list[list[tuple[str, ...]]]:
    """Return what kinds of output each cell has."""
    return [
        [(one.output_type, *sorted(one.get("data", {}))) for one in cell.get("outputs", [])] for cell in notebook.cells
    ]


def test_the_notebook_runs_and_gives_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # a bar of tqdm without widgets
    committed = nbformat.read(FILE, as_version=4)
    again = nbformat.read(FILE, as_version=4)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert shape(again) == shape(committed)
    assert "forget           0 rows read" in again.cells[3].outputs[0].text


def test_the_committed_notebook_is_whole_small_and_names_no_machine() -> None:
    text = FILE.read_text(encoding="utf-8")
    committed = nbformat.read(FILE, as_version=4)
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in one.get("data", {}) for cell in code for one in cell.outputs) >= 4
    assert not any(one.output_type == "error" or one.get("name") == "stderr" for cell in code for one in cell.outputs)
    assert len(text) < 300_000
    assert not re.search(r"/(?:home|Users|root|tmp|work|usr)/|site-packages", text)


def test_its_links_lead_to_pages() -> None:
    for target in re.findall(r"\]\((\w+\.md)\)", FILE.read_text(encoding="utf-8")):
        assert (DOCS / target).is_file(), target
