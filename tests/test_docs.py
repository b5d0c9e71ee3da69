"""The site: every command line on it parses, and every block runs, page by page, on small data and for one epoch.

Pages show what is worth running; here ``SMALLER`` adds options that make the same commands short, and the audits are
left to the one of accuracy. A comment before a block says why it is not run at all; its lines are parsed nevertheless.
"""

import json
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

from conftest import Toy
from expunge.catalogue import entries
from expunge.cli import app
from expunge.data import split
from expunge.datasets.shapes import Shapes
from expunge.errors import RequestError
from expunge.experiment import experiment_from
from expunge.forgetting import run_method
from expunge.network import rebuild
from expunge.request import Request
from expunge.settings import build, from_toml, names
from images import make_arrays, make_folder, make_hub, make_mnist, make_table
from pages import ASSIGNMENT, PAGES, ROOT, Block, blocks, check, options, parse, spans
from test_cli import call

LINES = [
    (page, words) for page in PAGES for each in blocks(page) if each.language == "bash" for words in each.commands()
]
RUN = [page for page in PAGES if any(one.language in ("bash", "python") and not one.not_run for one in blocks(page))]
NOT_RUN = 8  # blocks; give a good reason before you raise it
WORLD = ["--set", "training.epochs=1", "--set", "references=2", "--set", 'audits=["accuracy"]']
POPULATION = ["--set", "population=2", "--set", "stacked=2"]
SMALLER = {
    "train": ["--set", "epochs=1"],
    "tune": ["--trials", "2"],
    "compare": [*WORLD, "--set", "network.name=mlp", "--seeds", "0"],
    "run": WORLD,
    "build": WORLD,
    "convert": ["--set", "dataset.size=8"],
    "audit": ["--audits", "accuracy"],
}
DIGITS = ["--data", "digits", "--device", "cpu"]


def photos(folder: Path) -> None:
    make_folder(folder / "photos", classes=("cat", "dog", "owl"), per_class=10)


def sources(folder: Path) -> None:
    photos(folder)
    (folder / "pictures").mkdir()
    make_hub(per_class=10).to_parquet(folder / "pictures" / "train.parquet")
    make_mnist(folder / "downloads", name="FashionMNIST", per_class=10)
    images, labels = make_arrays(rows=30, shape=(8, 8, 3))
    np.savez(folder / "arrays.npz", x_train=images, y_train=labels)
    make_table(folder / "rows.csv")


def cifar(folder: Path) -> None:
    (folder / "path/to/cifar10").mkdir(parents=True)
    for seed, half in enumerate(("train", "test")):
        rows = make_hub(per_class=6, seed=seed)
        rows.to_parquet(folder / "path/to/cifar10" / f"{half}-00000-of-00001.parquet")


def weights(folder: Path) -> None:
    photos(folder)
    torch.save(torchvision.models.mobilenet_v3_small(num_classes=3).state_dict(), folder / "model.pth")


AT_HAND: dict[str, Callable[[Path], None]] = {
    "data.md": sources,
    "cifar10.md": cifar,
    "models.md": weights,
    "photos.md": photos,
}
"""What a page takes for granted, besides the folders of the quick start."""


def data(classes: int) -> dict[str, Any]:
    """Return what the pages' Python takes for granted: a network and rows of your own."""
    torch.manual_seed(0)
    rows = TensorDataset(torch.randn(12 * classes, 3, 8, 8), torch.arange(12 * classes) % classes)
    network = [nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, classes)) for _ in range(3)]
    return {"model": network[0], "retrained": network[1:], "train_set": rows, "test_set": rows}


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original and the unlearned model of the quick start, which other pages go on from."""
    runs = tmp_path_factory.mktemp("quick-start") / "runs"
    train = ["train", *DIGITS, "--set", "epochs=1", "--out", str(runs / "original")]
    forget = ["forget", str(runs / "original"), *DIGITS, "--classes", "3", "--out", str(runs / "unlearned")]
    for words in (train, forget):
        outcome = CliRunner().invoke(app, words)
        assert outcome.exit_code == 0, outcome.output
    return runs


@pytest.fixture
def clone(request: pytest.FixtureRequest, quick_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Work in a folder like a clone of the repository with what the page takes for granted; return the page."""
    page: str = request.param
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    if not any("runs/original" in words[words.index("--out") :] for words in made(page)):
        shutil.copytree(quick_start, tmp_path / "runs")
    if page in AT_HAND:
        AT_HAND[page](tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return page


def made(page: str) -> list[list[str]]:
    """Return the command lines of a page that make something."""
    return [words for name, words in LINES if name == page and "--out" in words]


def run_line(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run one command line of a page, shortened."""
    while ASSIGNMENT.fullmatch(words[0]):
        name, _, value = words.pop(0).partition("=")
        assert name == "PYTHONPATH"
        sys.path.insert(0, str(Path(value).resolve()))  # put back after the test
    assert words.pop(0) == "expunge"
    name, known = parse(words)
    words += POPULATION if name in ("run", "build") and "population" in words[-1] else []
    words += (SMALLER.get(name, []) if "--audits" not in words else []) + ["--device", "cpu"] * ("--device" in known)
    words += ["--devices", "1"] * ("--devices" in words)  # the last counts; tests/test_processes.py starts two
    code, _, err = call(capsys, *words)
    notes = [line for line in err.splitlines() if " of accuracy on " not in line]  # so few rows cost much of it
    assert notes == [], words
    assert code in ((0, 1) if "--require" in words else (0,)), words


def run_block(
    one: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if one.file is not None:
        Path(one.file).parent.mkdir(exist_ok=True)
        Path(one.file).write_text(one.text)
    elif one.language == "python":
        exec(one.text, names)  # noqa: S102
    elif one.language == "bash":
        for words in one.commands():
            run_line(words, monkeypatch, capsys)


@pytest.mark.parametrize("clone", RUN, indirect=True)
def test_every_block_of_a_page_runs(
    clone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = data(classes=3 if clone == "models.md" else 4)
    for one in blocks(clone):
        if one.not_run is None:
            run_block(one, names, monkeypatch, capsys)
    for words in made(clone):
        if words[0] == "expunge":
            assert Path(words[words.index("--out") + 1]).exists(), words
    if "made" in names:
        assert type(names["made"].model) is type(names["model"])
        assert names["made"].access["forget"].reads == 0


@pytest.mark.parametrize(("page", "words"), LINES, ids=[f"{page}-{number}" for number, (page, _) in enumerate(LINES)])
def test_every_command_line_parses(page: str, words: list[str]) -> None:
    check(words)


def test_every_option_that_the_text_names_exists() -> None:
    everywhere = options()
    for page in PAGES:
        for words in (span.split() for span in spans(page)):
            told = {word.split("=")[0] for word in words if word.startswith("--")}
            if words[0] == "expunge" and len(words) > 1 and words[1].islower():
                assert told <= options(words[1]) | {"--help"}, (page, words)
            elif words[0].startswith("--"):
                assert told <= everywhere | {"--help"}, (page, words)


def test_blocks_are_of_languages_that_are_run_and_few_are_left_out() -> None:
    everything = [one for page in PAGES for one in blocks(page)]
    assert {one.language for one in everything} <= {"bash", "python", "toml", "text"}
    assert sum(one.not_run is not None for one in everything) <= NOT_RUN
    assert len(everything) == sum(path.read_text().count("\n```") for path in PAGES.values()) / 2


def test_the_settings_files_on_pages_are_settings() -> None:
    tables = {one.page: one.text for page in PAGES for one in blocks(page) if one.language == "toml"}
    assert set(tables) == {"adding.md", "corruptions.md"}
    assert list(tomllib.loads(tables["adding.md"])["project"]["entry-points"]) == ["expunge.methods"]
    file = (ROOT / "experiments" / "corruption-backdoor.toml").read_text()
    assert experiment_from(from_toml(tables["corruptions.md"])) == experiment_from(from_toml(file))


def test_the_page_of_data_shows_every_kind() -> None:
    kinds = {words[words.index("--data") + 1] for page, words in LINES if page == "data.md"}
    assert kinds == {"folder", "huggingface", "torchvision", "arrays", "table"}


def test_the_experiment_of_cifar10_is_the_page_s() -> None:
    experiment = experiment_from(from_toml((ROOT / "experiments" / "cifar10-unsir.toml").read_text()))
    train = next(words for page, words in LINES if page == "cifar10.md")
    assert f"epochs={experiment.training.epochs}" in train
    assert f"batch_size={experiment.training.batch_size}" in train
    assert train[train.index("--network") + 1] == experiment.network.name


def test_the_page_of_methods_is_as_its_files_and_results_make_it() -> None:
    """Write it anew with ``python docs/generate.py``."""
    make = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert PAGES["methods.md"].read_text(encoding="utf-8") == make["page"](make["read_results"]())


def test_the_numbers_by_which_to_choose_are_those_that_were_measured() -> None:
    summary = json.loads((ROOT / "benchmarks" / "results" / "methods-digits.json").read_text())["summary"]
    parts = {one.name: " and ".join(sorted(one.reads or ())) or "nothing" for one in entries("methods")}
    rows = re.findall(r"^\| \[(\w+)\]\(\S+\)(, tuned|) \| (.+) \|$", PAGES["choosing.md"].read_text(), re.MULTILINE)
    assert len(rows) == 15
    for method, tuned, cells in rows:
        one = summary[method + tuned]
        gap = f"{100 * one['retain_gap']['worst']:+.1f}"
        numbers = [f"{one['forget_test']['worst']:.3f}", gap, f"{one['inside']:.3f}", f"{one['epoch_equivalents']:.2f}"]
        assert cells.split(" | ") == [parts[method], *numbers], method
    assert f"has {summary['head_mask']['inside']:.3f} of the findings inside" in PAGES["choosing.md"].read_text()


def test_the_methods_that_take_no_single_rows_are_those_that_the_page_names(toy: Toy) -> None:
    line = next(line for line in PAGES["choosing.md"].read_text().splitlines() if line.startswith("| single rows"))
    few = Shapes(classes=4, size=8, channels=1, train_rows=24, test_rows=8).load()
    parts, refusing = split(few, Request(rows=(0, 1))), set()
    for name in names("methods"):
        method = build("methods", {"name": name})
        try:
            run_method(method, toy.model, parts, toy.runtime.fresh(), rebuild(toy.model))
        except RequestError:
            refusing.add(name)
    assert set(re.findall(r"`(\w+)`", line)) == refusing


def test_the_gallery_shows_small_pictures_and_the_commands_that_made_them() -> None:
    make = runpy.run_path(str(ROOT / "docs" / "gallery.py"))
    shown = [words[1:] for page, words in LINES if page == "gallery.md"]
    assert shown == [make["DEMO"], make["COMPARE"]]
    assert ("README.md", ["expunge", *make["COMPARE"]]) in LINES
    sizes = [(make["PICTURES"] / f"{shot.name}.png").stat().st_size for shot in make["SHOTS"]]
    assert max(sizes) < 200_000
    assert sum(sizes) < 800_000
