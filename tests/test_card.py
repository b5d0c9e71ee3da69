"""Claims about the model card: it names nobody, says what was read and found, and its metadata are YAML."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from examples import EXPERIMENT, example_result
from expunge.report.card import render_card
from test_cli import call


def test_no_forgotten_class_is_named_by_name_or_number() -> None:
    names = tuple(f"Person {letter} <script>" for letter in "ABCDEFGHIJ")
    for classes in (["#3"], [3], ["Person D <script>"], [3, 4]):
        request = {"request": {"classes": classes, "rows": []}}
        card = render_card(replace(example_result(), label_names=names, experiment=EXPERIMENT | request))
        assert "Person" not in card
        assert "'3'" not in card
        assert "#3" not in card
        assert f"{len(classes)} {'class' if len(classes) == 1 else 'classes'} of 10" in card


def test_the_metadata_are_read_by_the_hub_library() -> None:
    data = ModelCard(render_card(example_result())).data.to_dict()  # type: ignore[no-untyped-call]
    assert data["tags"] == ["machine-unlearning", "expunge"]
    assert data["library_name"] == "timm"


def test_it_holds_every_finding_that_counts_the_reads_and_the_limits() -> None:
    result = example_result()
    card = render_card(result)
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + sum(finding.level is not None for finding in result.findings)
    assert "Rows read of the forgotten data: 0 (0 reads)." in card
    assert "A bound on leakage" in card
    assert "What the method read is not known" in render_card(replace(result, access=None, cost=None))


def test_the_command_writes_a_card_a_report_or_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, card, page = tmp_path / "result.json", tmp_path / "README.md", tmp_path / "report.html"
    source.write_text(example_result().to_json())
    assert call(capsys, "report", str(source), "--card", str(card))[0] == 0
    assert card.read_text() == render_card(example_result())
    code, _, err = call(capsys, "report", str(source), "--card", str(card), "--out", str(page))
    assert code == 2
    assert "got an earlier result" in err
    assert not page.exists(), "nothing is written if one of the two cannot be"
    assert call(capsys, "report", str(source), "--card", str(card), "--out", str(page), "--overwrite")[0] == 0
    assert page.exists()
