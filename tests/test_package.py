"""The package as a whole: what it exports, which way its imports run, and what it never does."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import expunge
from expunge import adapters, tuning
from expunge.errors import SettingsError

SOURCE = Path(expunge.__file__).parent
ALLOWED = {
    "methods": {
        "access",
        "adapters",
        "data",
        "distillation",
        "errors",
        "gradients",
        "importance",
        "methods",
        "network",
        "paced",
        "others",
        "rows",
        "runtime",
        "settings",
        "subspaces",
        "synthesis",
        "tail",
        "taps",
        "training",
    },
    "data": {"errors", "rows"},
    "access": {"data", "errors", "rows"},
    "others": {"access"},
    "synthesis": {"network", "runtime"},
    "adapters": {"errors", "network", "runtime"},
    "importance": {"network", "rows", "runtime"},
    "distillation": {"network", "runtime"},
    "gradients": {"importance", "network", "rows", "runtime"},
    "paced": {"errors", "network", "runtime"},
    "tail": {"errors", "network", "rows", "runtime", "taps"},
    "subspaces": {"errors", "importance", "memory", "network", "rows", "runtime"},
    "audits": {
        "bootstrap",
        "case",
        "data",
        "errors",
        "finding",
        "histogram",
        "rows",
        "runtime",
        "settings",
        "training",
        "network",
        "outputs",
        "synthesis",
        "taps",
        "audits",
    },
    "hugging_face": {"errors"},
    "blueprint": {"errors", "networks"},
    "model_files": {"errors"},
    "outputs": {"blueprint", "errors", "network"},
    "convert": {"case", "checkpoint", "errors", "files", "hugging_face", "model_files", "network"},
    "corruption": {"case", "data", "errors", "finding", "rows", "runtime", "training"},
    "corruptions": {"case", "corruption", "data", "errors", "finding", "rows", "runtime", "settings", "training"},
    "datasets": {"data", "datasets", "memory", "rows", "settings", "errors"},
    "memory": {"errors"},
    "reading": {"errors", "rows"},
    "networks": {"networks"},
    "report": {"comparison", "result", "finding", "errors", "report"},
    "cache": {"checkpoint", "data", "errors", "files", "hugging_face", "model_files"},
    "fingerprints": {"reading", "rows"},
    "stacked": {"errors", "rows", "runtime", "training"},
    "population": {
        "blueprint",
        "cache",
        "case",
        "data",
        "errors",
        "fingerprints",
        "forgetting",
        "methods",
        "network",
        "rows",
        "runtime",
        "settings",
        "stacked",
        "training",
    },
    "options": set(),
    "machine": {"options"},
    "processes": {"errors"},
    "cli_population": {"machine", "options"},
    "cli_compare": {"errors", "machine", "options"},
    "cli_convert": {"options"},
    "cli_list": set(),
    "bootstrap": {"finding"},
    "comparison/statistics": set(),
    "comparison/record": {"comparison"},
    "comparison/cells": {"comparison", "errors", "result"},
    "comparison/summary": {"comparison", "finding", "result"},
    "result": {"finding", "errors"},
    "finding": set(),
    "errors": set(),
}


def imports(path: Path) -> set[str]:
    """Return the parts of the package that a file imports when it is imported."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("expunge."):
            found.add((node.module or "").split(".")[1])
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("expunge.")}
    return found


def test_all_names_are_exported_and_found() -> None:
    assert sorted(expunge.__all__) == list(expunge.__all__)
    assert set(expunge.__all__) == set(expunge._HOMES)
    for name in expunge.__all__:
        assert getattr(expunge, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        expunge.nothing  # noqa: B018
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(expunge.__all__) <= typed


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_run_one_way(part: str) -> None:
    files = [SOURCE / f"{part}.py"] if (SOURCE / f"{part}.py").exists() else list((SOURCE / part).rglob("*.py"))
    assert files
    for file in files:
        assert imports(file) <= ALLOWED[part], file.name


@pytest.mark.parametrize(
    "module",
    ["expunge", "expunge.report.page", "expunge.result", "expunge.report.verdict", "expunge.comparison.summary"],
)
def test_reading_results_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_reads_a_pickle_or_runs_text_but_one_command_that_reads_tensors_alone() -> None:
    loaded = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {"pickle.load", "pickle.loads", "eval", "exec", "joblib.load"}, file.name
                if name == "torch.load":
                    loaded.append((file.name, next(map(ast.unparse, node.keywords))))
    assert loaded == [("convert.py", "weights_only=True")]


def test_printing_belongs_to_the_command_line() -> None:
    for file in SOURCE.rglob("*.py"):
        if file.name not in ("cli.py", "options.py"):
            assert not re.search(r"(?<!console\.)\bprint\(", file.read_text()), file.name


def test_files_can_be_read_in_one_sitting() -> None:
    for file in SOURCE.rglob("*.py"):
        text = file.read_text()
        assert len(text.splitlines()) <= 350, file.name
        assert ast.get_docstring(ast.parse(text)), file.name


def test_modules_can_each_be_imported_first() -> None:
    for name in ("settings", "methods.unsir", "audits.accuracy", "checkpoint", "experiment"):
        assert importlib.import_module(f"expunge.{name}")


@pytest.mark.parametrize(
    ("package", "extra", "asked"), [("peft", "lora", adapters._peft), ("optuna", "tune", tuning._optuna)]
)
def test_an_extra_that_is_missing_is_told_in_one_line(
    package: str, extra: str, asked: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf"pip install 'expunge\[{extra}\]'$"):
        asked()


def test_without_extras_the_package_imports_none_of_them() -> None:
    required = " ".join(tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]["dependencies"])
    extras = {"captum", "mkdocs", "optuna", "peft", "ray", "transformers"}
    assert not {name for name in extras if name in required}
    for file in SOURCE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & extras, file.name
