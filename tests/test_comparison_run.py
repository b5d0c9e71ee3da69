"""Running a comparison: what is trained, what is run again, what is left, and how it says no."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from expunge.audits.accuracy import Accuracy
from expunge.audits.prediction import Prediction, entropy
from expunge.cache import Cache
from expunge.checkpoint import load_model
from expunge.comparison.record import Comparison
from expunge.comparison.run import compare_folders, run_comparison
from expunge.data import split
from expunge.datasets.shapes import Shapes
from expunge.errors import DataError, ExpungeError, OutputError, SettingsError
from expunge.experiment import Experiment, recipe_for, run
from expunge.finding import Finding
from expunge.forgetting import run_method
from expunge.methods.finetune import Finetune
from expunge.methods.head_mask import HeadMask
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.network import Network, rebuild
from expunge.population import grow
from expunge.request import Request
from expunge.result import Result, Weights, from_json, read
from expunge.runtime import Advance, Runtime, open_runtime
from expunge.subject import weights_of
from expunge.training import Training, predict
from test_cli import call

UNSIR = Experiment(
    dataset=Shapes(classes=4, size=8, channels=3, train_rows=96, test_rows=48, noise=0.3),
    network=Network(name="small_cnn", args={"width": 4}),
    training=Training(epochs=1, batch_size=48),
    request=Request(classes=(1,)),
    method=Unsir(noise_steps=2, steps=2),
    audits=(Accuracy(), Prediction()),
    references=2,
)
FINETUNE = replace(UNSIR, method=Finetune(steps=2))
OTHER = replace(UNSIR, method=Unsir(steps=3))
BOTH = {"unsir": UNSIR, "finetune": FINETUNE}


class Counting:
    """Progress that counts the stages that are run."""

    def __init__(self) -> None:
        self.stages: Counter[str] = Counter()

    @contextmanager
    def __call__(self, stage: str, steps: int) -> Iterator[Advance]:
        self.stages[stage] += 1
        yield lambda done: None

    def runtime(self) -> Runtime:
        return open_runtime(device="cpu", progress=self)


def numbers(findings: tuple[Finding, ...]) -> list[tuple[str, float | None, float | None, float | None]]:
    return [(one.name, one.original, one.unlearned, one.retrained) for one in findings]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison, Counter[str]]:
    """Two methods for two classes, without a cache."""
    counting, out = Counting(), tmp_path_factory.mktemp("compare") / "out"
    made = run_comparison(BOTH, out, counting.runtime(), classes="1,shape-2")
    return out, made, counting.stages


def test_each_seed_trains_one_original_and_each_world_its_references_and_one_more(
    done: tuple[Path, Comparison, Counter[str]],
) -> None:
    _, _, stages = done
    assert stages["train"] == 1
    assert stages["retrain"] == 2 * (2 + 1)


def test_controls_are_in_every_world(done: tuple[Path, Comparison, Counter[str]]) -> None:
    out, made, _ = done
    assert len(made.worlds) == 2
    for place in made.worlds:
        assert not place.missing
        assert sorted(path.name for path in (out / "cells" / place.name).iterdir()) == [
            "finetune", "head_mask", "retrain", "unsir",
        ]  # fmt: skip
    assert {one.label: one.control is not None for one in made.standings} == {
        "unsir": False, "finetune": False, "head_mask": True, "retrain": True,
    }  # fmt: skip
    assert not made.ranked


def test_a_cell_is_what_run_gives(done: tuple[Path, Comparison, Counter[str]], tmp_path: Path) -> None:
    out, _, _ = done
    cell = read(Result, out / "cells" / "class-2-seed-0" / "unsir" / "result.json")
    world = replace(UNSIR, request=Request(classes=(2,)))
    alone = run(world, open_runtime(device="cpu"), tmp_path / "alone")
    assert replace(cell, cost=None, subject=None) == replace(alone, cost=None, subject=None)
    assert cell.subject is not None
    assert alone.subject is not None
    assert cell.subject.data == alone.subject.data
    unlearned = load_model(tmp_path / "alone" / "unlearned")
    assert cell.subject.unlearned == weights_of(unlearned.model)
    assert alone.subject.unlearned == Weights(sha256=unlearned.hash, of="file")
    assert cell.cost is not None
    assert alone.cost is not None
    assert cell.cost.flops == alone.cost.flops


def test_the_held_out_network_is_the_one_after_the_references(done: tuple[Path, Comparison, Counter[str]]) -> None:
    out, _, _ = done
    folder = out / "cells" / "class-1-seed-0"
    held_out, unsir = (read(Result, folder / name / "result.json") for name in ("retrain", "unsir"))
    for one, other in zip(held_out.findings, unsir.findings, strict=True):
        assert (one.original, one.retrained, one.band) == (other.original, other.retrained, other.band)
    data = UNSIR.dataset.load()
    parts, runtime = split(data, UNSIR.request), open_runtime(device="cpu")
    network = UNSIR.network.build(data)
    recipe = recipe_for(UNSIR, network, data, parts)
    surprise = []
    for member in grow(recipe, 3, runtime):
        logits, _ = predict(member.model, parts["forget_test"], runtime)
        surprise.append(float(entropy(logits).mean()))
    assert len({round(value, 4) for value in surprise}) == 3  # a number that tells the three apart
    found = next(one for one in held_out.findings if one.name == "prediction/entropy/forget_test")
    assert found.unlearned == pytest.approx(surprise[2])


def test_the_held_out_network_costs_what_retraining_costs(done: tuple[Path, Comparison, Counter[str]]) -> None:
    out, _, _ = done
    cost = read(Result, out / "cells" / "class-1-seed-0" / "retrain" / "result.json").cost
    assert cost is not None
    data, runtime = UNSIR.dataset.load(), open_runtime(device="cpu")
    network = UNSIR.network.build(data)
    method = Retrain(training=UNSIR.training)
    bill = run_method(method, network, split(data, UNSIR.request), runtime, rebuild(network)).bill
    assert cost.flops == pytest.approx(bill.flops, rel=0.02)
    assert cost.epoch_equivalents == pytest.approx(bill.epoch_equivalents, rel=0.02)
    assert cost.seconds["total"] > 0
    assert cost.seconds["retrain"] > 0


def test_a_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    cache, out = Cache(tmp_path / "cache"), tmp_path / "out"
    both = {name: replace(one, audits=(Accuracy(),)) for name, one in BOTH.items()}
    first = run_comparison(both, out, Counting().runtime(), cache=cache)
    again = Counting()
    assert run_comparison(both, out, again.runtime(), cache=cache) == first
    assert again.stages == {"comparison": 1}  # the bar of the whole alone

    missing = out / "cells" / "class-1-seed-0" / "finetune" / "result.json"
    before = read(Result, missing)
    missing.unlink()
    run_comparison(both, out, again.runtime(), cache=cache)
    assert replace(read(Result, missing), cost=None) == replace(before, cost=None)
    assert again.stages["train"] == again.stages["retrain"] == again.stages["noise"] == 0  # only one method ran

    more = run_comparison(both, out, again.runtime(), seeds=(0, 1), cache=cache)
    assert [place.name for place in more.worlds] == ["class-1-seed-0", "class-1-seed-1"]
    assert again.stages["train"] == 1


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    out, runtime = tmp_path / "out", open_runtime(device="cpu")
    small = replace(UNSIR, audits=(Accuracy(),))
    run_comparison({"unsir": small}, out, runtime)
    other = {"unsir": replace(small, method=Unsir(noise_steps=3, steps=2))}
    with pytest.raises(OutputError, match=r"got one with other settings: choose another --out, or add --overwrite"):
        run_comparison(other, out, runtime)
    made = run_comparison(other, out, runtime, overwrite=True)
    assert (made.standings[0].method or {})["noise_steps"] == 3
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="expected nothing at"):
        run_comparison({"unsir": small}, foreign, runtime)
    assert (foreign / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        ({}, "expected experiments to compare, got none"),
        (
            BOTH | {"b": replace(UNSIR, method=Unsir(steps=3), dataset=Shapes(classes=5))},
            "the same dataset, got others in unsir and b",
        ),
        (BOTH | {"b": replace(OTHER, references=3)}, "the same references"),
        (BOTH | {"b": UNSIR}, "different methods, got the same in unsir and b"),
        (BOTH | {"b": replace(UNSIR, method=HeadMask())}, "no control, got head_mask in b"),
        ({"retrain": UNSIR}, "another name than a control, got retrain"),
    ],
)
def test_experiments_that_cannot_be_compared_are_refused(
    experiments: dict[str, Experiment], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        run_comparison(experiments, tmp_path / "out", open_runtime(device="cpu"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("classes", "message"), [("1,", "expected each, or classes"), ("ship", "a class of the data")])
def test_classes_that_are_none_are_refused(classes: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match=message):
        run_comparison(BOTH, tmp_path / "out", open_runtime(device="cpu"), classes=classes)


def test_finished_results_are_compared_from_folders(
    done: tuple[Path, Comparison, Counter[str]], tmp_path: Path
) -> None:
    out, made, _ = done
    assert compare_folders([out], tmp_path / "all", overwrite=False) == made
    assert from_json(Comparison, (tmp_path / "all" / "comparison.json").read_text(), "x") == made
    files = [out / "cells" / f"class-{index}-seed-0" / "unsir" / "result.json" for index in (1, 2)]
    alone = compare_folders(files, tmp_path / "alone", overwrite=False)
    assert all(place.missing == ("head_mask", "retrain") for place in alone.worlds)
    with pytest.raises(OutputError, match="expected nothing at"):
        compare_folders(files, tmp_path / "alone", overwrite=False)


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a result.json in .*, got none"):
        compare_folders([tmp_path], tmp_path / "out", overwrite=False)
    with pytest.raises(DataError, match="which is not there"):
        compare_folders([tmp_path / "nothing"], tmp_path / "out", overwrite=False)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(DataError, match="expected a Result of schema 1"):
        compare_folders([tmp_path], tmp_path / "out", overwrite=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refused)  # the superuser may read everything
    with pytest.raises(DataError, match=r"expected a folder that can be read, got .*: Permission denied"):
        compare_folders([tmp_path], tmp_path / "out", overwrite=False)


TOML = """
references = 2
audits = ["accuracy"]
dataset = {name = "shapes", classes = 4, size = 8, train_rows = 96, test_rows = 48}
network = {name = "mlp"}
training = {epochs = 1, batch_size = 48}
request = {classes = [1]}
"""


def test_the_command_runs_files_and_compares_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, method in (("first", "unsir"), ("second", "finetune")):
        (tmp_path / f"{name}.toml").write_text(f'{TOML}\nmethod = {{name = "{method}", steps = 2}}\n')
    files = [str(tmp_path / "first.toml"), str(tmp_path / "second.toml")]
    code, out, err = call(capsys, "compare", *files, "--out", str(tmp_path / "out"), "--device", "cpu")
    assert (code, err) == (0, "")
    assert "class-1-seed-0  second: " in out
    assert "Not ranked: 1 seed, 3 are needed." in out
    assert "control" in out
    code, out, err = call(capsys, "--json", "compare", str(tmp_path / "out"), "--out", str(tmp_path / "again"))
    assert (code, err) == (0, "")
    assert [one["label"] for one in json.loads(out)["standings"]] == ["finetune", "unsir", "head_mask", "retrain"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.toml", "folder"], "TOML files or finished runs, got both"),
        (["folder", "--seeds", "1"], "no --seeds, --classes or --set for finished runs"),
        (["x.toml", "y/x.toml"], "TOML files with different names, got x.toml twice"),
        (["x.toml", "--seeds", "1,b"], "seeds separated by commas, such as 0,1,2, got '1,b'"),
        (["nowhere.toml"], "expected a settings file"),
    ],
)
def test_the_command_says_no_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("x.toml"), Path("y/x.toml")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(TOML)
    code, out, err = call(capsys, "compare", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
