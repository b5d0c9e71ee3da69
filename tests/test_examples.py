"""Every program of examples/ runs to its end, at a small size where its own would take long."""

import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL: dict[str, dict[str, Any]] = {
    "own_network": {"rows": 300, "epochs": 2},
    "several_classes": {"rows": 400, "epochs": 1},
    "timm_model": {"rows": 60, "epochs": 1},
    "hugging_face": {"rows": 200, "epochs": 1},
    "two_processes": {"epochs": 1},
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_and_says_what_came_out(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](**SMALL.get(name, {}))
    assert any(character.isdecimal() for character in capfd.readouterr().out)
