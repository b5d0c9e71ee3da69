"""The package as a whole: what it exports, which way its imports run, and what it never does."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import expunge
from expunge import tuning
from expunge.errors import SettingsError
from expunge.methods import _adapters

SOURCE = Path(expunge.__file__).parent
LAYERS = {
    "words and files": "bootstrap catalogue cost errors files finding hugging_face memory model_files processes "
    "rehearsal result settings tracking",
    "data": "access data datasets fingerprints reading request rows",
    "networks": "blueprint cache checkpoint network networks outputs precision taps",
    "training": "course journal resume runtime stacked synthesis training",
    "methods": "methods",
    "evidence": "audits case convert corruption corruptions forgetting guard history judging overlays population "
    "provenance subject tuning views",
    "commands": "__init__ __main__ api auditing cli comparison dry_run experiment report stages",
}
"""What may import what, lowest first: a layer imports those before it and itself."""
NARROW = {
    "networks": {"networks"},
    "report": {"comparison", "finding", "report", "result"},
    "cli": {"cli", "comparison", "errors", "result"},
    "comparison/statistics": set(),
    "comparison/record": {"comparison"},
    "comparison/summary": {"comparison", "finding", "result"},
}
"""Parts that import less: what a network is made of stands alone; commands answer, and reports open, without torch."""


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports when it is imported, with dots, without ``expunge.``."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "expunge":
            package = (node.module or "").partition(".")[2]
            inside = [".".join(filter(None, (package, alias.name))) for alias in node.names]
            found |= {name if is_module(name) else package for name in inside}
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("expunge.")}
    return found


def is_module(name: str) -> bool:
    path = SOURCE.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def files_of(part: str) -> list[Path]:
    return [SOURCE / f"{part}.py"] if (SOURCE / f"{part}.py").exists() else list((SOURCE / part).rglob("*.py"))


def test_all_names_are_exported_and_found() -> None:
    assert sorted(expunge.__all__) == list(expunge.__all__)
    assert set(expunge.__all__) == set(expunge._HOMES)
    for name in expunge.__all__:
        assert getattr(expunge, name).__name__ == name
    assert {*expunge.__all__, "__version__"} <= set(dir(expunge))
    assert expunge.__version__ == importlib.metadata.version("expunge")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        expunge.nothing  # noqa: B018
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(expunge.__all__) <= typed


def test_every_part_has_a_layer() -> None:
    parts = [part for layer in LAYERS.values() for part in layer.split()]
    found = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(parts) == sorted(found)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_import_those_before_them(layer: str) -> None:
    names = list(LAYERS)
    allowed = {part for name in names[: names.index(layer) + 1] for part in LAYERS[name].split()}
    for file in (file for part in LAYERS[layer].split() for file in files_of(part)):
        assert {name.split(".")[0] for name in imports(file)} <= allowed, file.name


@pytest.mark.parametrize("part", NARROW)
def test_some_import_less(part: str) -> None:
    for file in files_of(part):
        assert {name.split(".")[0] for name in imports(file)} <= NARROW[part], file.name


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {".".join(file.relative_to(SOURCE).with_suffix("").parts): file for file in SOURCE.rglob("*.py")}
    graph = {name.removesuffix(".__init__"): imports(file) for name, file in modules.items()}
    assert list(TopologicalSorter(graph).static_order())


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
        if file.parent.name != "cli":
            assert not re.search(r"(?<!console\.)\bprint\(", file.read_text()), file.name


def test_files_can_be_read_in_one_sitting() -> None:
    for file in SOURCE.rglob("*.py"):
        text = file.read_text()
        assert len(text.splitlines()) <= 350, file.name
        assert ast.get_docstring(ast.parse(text)), file.name


def test_shapes_are_checked_at_run_time_in_every_module_that_tells_them() -> None:
    told = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    words = told.replace("\\\n", "").split()
    checked = next(word for word in words if word.startswith("--jaxtyping-packages=")).partition("=")[2].split(",")
    assert all(is_module(name.removeprefix("expunge.")) for name in checked if name.startswith("expunge."))
    for file in SOURCE.rglob("*.py"):
        if "\nfrom jaxtyping import" in file.read_text():
            part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
            assert f"expunge.{part}" in checked, file.name


def test_modules_can_each_be_imported_first() -> None:
    for name in ("settings", "methods.unsir", "audits.accuracy", "checkpoint", "experiment"):
        assert importlib.import_module(f"expunge.{name}")


@pytest.mark.parametrize(
    ("package", "extra", "asked"), [("peft", "lora", _adapters._peft), ("optuna", "tune", tuning._optuna)]
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
