"""One request after another: what was forgotten stays so, is read no more, and is judged when it is asked for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

from conftest import TRAINING, Toy
from expunge import Forgotten, audit, forget
from expunge.access import Access
from expunge.auditing import plan_audit
from expunge.audits.accuracy import Accuracy
from expunge.case import Audit
from expunge.cli import app
from expunge.data import Data, only_classes, split
from expunge.datasets.folder import Folder
from expunge.datasets.shapes import Shapes
from expunge.errors import ExpungeError, RequestError
from expunge.fingerprints import fingerprint
from expunge.history import Entry, as_left, requests_in, since
from expunge.methods._other_classes import forgotten_classes
from expunge.methods.projected_gradient import ProjectedGradient
from expunge.methods.random_labels import other_labels
from expunge.methods.retrain import Retrain
from expunge.population import Recipe, member_key
from expunge.request import Request
from expunge.result import Result
from expunge.rows import names_of
from images import make_folder
from test_cli import SHAPES, call
from test_data import data, rows

QUICK: tuple[Audit, ...] = (Accuracy(),)
DATASET = Shapes(classes=4, size=8, train_rows=160, test_rows=80)


def left(*requests: Request) -> Data:
    return replace(data(("cat", "dog", "ship", "bird")), train=rows(0, 1, 2, 0, 1, 3), earlier=requests)


def numbers(data: Data, request: Request) -> list[list[int]]:
    """Return the rows of each part, by their first input, which is their index."""
    parts = split(data, request).parts.values()
    return [part.batch(np.arange(len(part)))[0].ravel().tolist() if len(part) else [] for part in parts]


def test_what_was_forgotten_before_is_in_no_part() -> None:
    assert numbers(left(Request(classes=(2,))), Request(classes=("dog",))) == [[0, 3, 5], [1, 4], [0], [1]]
    assert numbers(left(Request(rows=(4, 0))), Request(classes=(1,))) == [[2, 3, 5], [1], [0, 2, 3], [1]]
    assert numbers(left(Request(classes=(0,)), Request(rows=(1,))), Request(rows=(5,))) == [[2, 4], [5], [1, 2, 3], []]
    parts = split(left(Request(classes=(0,)), Request(rows=(1,))), Request(rows=(5,)))
    assert parts.earlier_rows == 3
    guard = Access(split(left(Request(classes=(0,))), Request(classes=(3,))), (), lambda: torch.nn.Linear(1, 4))
    assert guard.kept_classes() == (1, 2)


@pytest.mark.parametrize("request_", [Request(classes=(3,)), Request(rows=(5, 1))])
def test_no_row_is_taught_to_be_of_a_class_that_was_forgotten_before(request_: Request) -> None:
    guard = Access(split(left(Request(classes=(0,))), request_), ["forget"], lambda: torch.nn.Linear(1, 4))
    own = guard["forget"].labels
    for seed in range(20):
        labels = other_labels(guard, torch.Generator().manual_seed(seed))
        assert not (labels == own).any()
        assert set(labels) <= set(guard.kept_classes()) == {1, 2} | ({3} if request_.rows else set())
    assert 0 in forgotten_classes(guard)


@pytest.mark.parametrize(
    ("earlier", "request_", "message"),
    [
        (
            Request(classes=(2,)),
            Request(classes=(2,)),
            r"no earlier request names, got class 2 \('ship'\): leave it out",
        ),
        (Request(rows=(4, 1)), Request(classes=("dog",)), r"that no earlier request names, got class 1 \('dog'\)"),
        (Request(classes=(1,)), Request(rows=(0, 1, 4)), "expected rows that no earlier request names, got 2 that one"),
        (
            Request(classes=(0, 1, 2)),
            Request(classes=(3,)),
            "expected rows to retain, got all 1 training rows to forget",
        ),
    ],
)
def test_what_was_forgotten_before_cannot_be_asked_for_again(earlier: Request, request_: Request, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        split(left(earlier), request_)


def test_a_history_is_told_in_the_numbers_of_the_data_it_began_with() -> None:
    # classes 0 and 4 rows: without class 1 the classes 2, 3 are 1, 2, and rows 2, 3, 5 are 1, 2, 3
    history: list[Entry] = [
        {"request": {"rows": [2]}},
        {"request": {"classes": [1]}, "head": "drop"},
        {"request": {"rows": [2]}},
        {"request": {"classes": ["bird"]}},
    ]
    assert requests_in(left(), history) == (
        Request(rows=(2,)), Request(classes=(1,)), Request(rows=(3,)), Request(classes=(3,))
    )  # fmt: skip
    now = as_left(left(), history)
    assert now.label_names == ("cat", "ship", "bird")
    assert now.earlier == (Request(rows=(1,)), Request(rows=(2,)), Request(classes=(2,)))
    assert only_classes(now, [0, 1]).earlier == (Request(rows=(1,)), Request(rows=(2,)))


@pytest.mark.parametrize(
    "entry", [{}, {"request": {"classes": [7]}}, {"request": {"rows": [99]}}, {"request": 3}, {"request": {"x": [1]}}]
)
def test_a_history_that_is_not_of_the_data_is_one_line(entry: dict[str, object]) -> None:
    with pytest.raises(RequestError, match="expected earlier requests of these data, got request 1 of the model's his"):
        requests_in(left(), [entry])


def test_an_unlearned_model_of_another_original_is_told_apart() -> None:
    first: Entry = {"request": {"classes": [1]}}
    second: Entry = {"request": {"classes": [2]}}
    assert since(left(), [{"request": {"classes": ["dog"]}}], [first, second]) == [second]
    assert since(left(), [first], []) == []
    for after in ([second], [{**first, "head": "drop"}, second]):
        with pytest.raises(RequestError, match="does not begin with the original's: name the model that it was made"):
            since(left(), [first], after)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An original, a model without shape-1, and one made of that without shape-2 too."""
    folder, runner = tmp_path_factory.mktemp("sequence"), CliRunner()

    def run(*words: str) -> None:
        outcome = runner.invoke(app, [*words])
        assert outcome.exit_code == 0, outcome.output + str(outcome.exception)

    run("train", *SHAPES, "--out", str(folder / "original"), "--set", "epochs=8", "--set", "network.args.width=8")
    for parent, name, out in (("original", "1", "first"), ("first", "shape-2", "second")):
        run("forget", str(folder / parent), *SHAPES, "--classes", name, "--out", str(folder / out))
    return folder


def audited(
    capsys: pytest.CaptureFixture[str], folders: Path, out: Path, *words: str
) -> tuple[int, dict[str, object], str]:
    given = [str(folders / word) if (folders / word).exists() else word for word in words]
    code, _, err = call(capsys, "audit", *given, *SHAPES, "--audits", "accuracy", "--out", str(out))
    return code, json.loads(out.read_text()) if out.exists() else {}, err


def test_a_second_request_does_not_bring_the_first_class_back(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, err = audited(capsys, folders, tmp_path / "a.json", "original", "second", "--classes", "shape-2,1")
    assert (code, err) == (0, "")
    found = {one["name"]: one for one in result["findings"]}  # type: ignore[attr-defined]
    assert found["accuracy/forget_test"]["original"] > 0.8
    assert found["accuracy/forget_test"]["unlearned"] <= 0.05  # 0.5 where the first class came back
    record = json.loads((folders / "second" / "forget.json").read_text())
    assert record["experiment"]["earlier"] == {"requests": [{"classes": [1]}], "rows": 40}
    assert record["access"]["retain"]["rows"] <= 80
    assert [one["request"] for one in result["experiment"]["steps"]] == [{"classes": [1]}, {"classes": [2]}]  # type: ignore[index]
    assert result["access"] is None  # what the first request read stands in the first folder alone


def test_an_audit_judges_both_requests_or_the_second_alone(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, _ = audited(capsys, folders, tmp_path / "b.json", "original", "second")
    assert (code, result["experiment"]["request"]) == (0, {"classes": [1, 2]})  # type: ignore[index]
    code, result, _ = audited(capsys, folders, tmp_path / "c.json", "first", "second", "--classes", "2")
    assert (code, result["experiment"]["request"]) == (0, {"classes": [2]})  # type: ignore[index]
    assert result["experiment"]["earlier"] == {"requests": [{"classes": [1]}], "rows": 40}  # type: ignore[index]
    assert result["rows"] == {"retain": 80, "forget": 40, "retain_test": 40, "forget_test": 20}
    assert result["access"]["forget"] == {"rows": 0, "reads": 0}  # type: ignore[index]
    for words, message in (
        (
            ("original", "second", "--classes", "2"),
            "was made for, classes 'shape-1', 'shape-2' in 2 requests since the",
        ),
        (("first", "second", "--classes", "1,2"), "was made for, class 'shape-2', got classes 'shape-1', 'shape-2'"),
        (("second", "first", "--classes", "1"), "expected an unlearned model that was made from the original, got one"),
    ):
        code, _, err = audited(capsys, folders, tmp_path / "none.json", *words)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


def test_references_of_a_second_request_never_see_the_first(folders: Path, tmp_path: Path, toy: Toy) -> None:
    plan = plan_audit(
        folders / "first", folders / "second", [], None, DATASET, QUICK, tmp_path / "d.json", seed=0, overwrite=False,
        references=1,
    )  # fmt: skip
    assert plan.recipe is not None
    assert set(plan.recipe.parts["retain"].labels) == {0, 3}
    other = replace(plan.recipe, parts=split(replace(plan.data, earlier=()), Request(classes=(2,))))

    def key(recipe: Recipe) -> object:
        return member_key(recipe, 0, toy.runtime, fingerprint(recipe.parts["retain"]))

    assert key(plan.recipe) != key(other)


def test_a_dry_run_and_a_tuning_leave_earlier_rows_alone(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(folders / "first"), *SHAPES, "--classes", "2"]
    code, out, _ = call(capsys, "forget", *given, "--out", str(tmp_path / "x"), "--dry-run")
    assert code == 0
    assert "would read retain (80 rows)" in out
    words = ["--method", "finetune", "--trials", "1", "--out", str(tmp_path / "tuned.json")]
    assert call(capsys, "tune", *given, *words)[0] == 0
    assert json.loads((tmp_path / "tuned.json").read_text())["held_back"] == 16  # a fifth of 80
    code, _, err = call(capsys, "forget", *given[:-1], "shape-1", "--out", str(tmp_path / "x"))
    assert (code, err.count("\n")) == (2, 1)
    assert "expected a class that no earlier request names, got class 1 ('shape-1')" in err


def test_rows_are_forgotten_one_request_after_another(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parent, asked, name in ((folders / "original", "3,5", "a"), (tmp_path / "a", "8", "b")):
        words = [str(parent), *SHAPES, "--method", "finetune", "--rows", asked, "--out", str(tmp_path / name)]
        assert call(capsys, "forget", *words)[0] == 0
    record = json.loads((tmp_path / "b" / "forget.json").read_text())
    assert record["experiment"]["earlier"] == {"requests": [{"rows": [3, 5]}], "rows": 2}
    assert record["access"]["retain"]["rows"] <= 157
    words = [str(folders / "original"), str(tmp_path / "b")]
    code, result, _ = audited(capsys, tmp_path, tmp_path / "e.json", *words, "--rows", "8,5,3")
    assert (code, result["rows"]["forget"]) == (0, 3)  # type: ignore[index]
    code, _, err = call(capsys, "forget", str(folders / "first"), *SHAPES, "--method", "finetune", "--rows", "1,2,3,4",
                        "--out", str(tmp_path / "c"))  # fmt: skip
    assert code == 2
    assert "expected rows that no earlier request names" in err


def test_what_a_method_keeps_for_the_next_request_lies_beside_the_weights(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SHAPES, "--method", "projected_gradient", "--set", "epochs=2", "--set", "keep=true"]
    reads = []
    for parent, name, out in ((folders / "original", "shape-1", "first"), (tmp_path / "first", "shape-2", "second")):
        code, _, err = call(capsys, "forget", str(parent), *words, "--classes", name, "--out", str(tmp_path / out))
        assert code == 0, err
        reads.append(json.loads((tmp_path / out / "forget.json").read_text())["access"]["retain"]["reads"])
    assert reads[0] > reads[1] == 0
    told = (tmp_path / "second" / "SHA256SUMS").read_text().split()
    assert told[1::2] == ["model.safetensors", "statistics.safetensors"]
    another = ["--method", "finetune", "--classes", "shape-2", "--out", str(tmp_path / "another")]
    assert call(capsys, "forget", str(tmp_path / "first"), *SHAPES, *another)[0] == 0
    assert not (tmp_path / "another" / "statistics.safetensors").exists()  # another network's by now
    file = tmp_path / "first" / "statistics.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    given = [str(tmp_path / "first"), *words, "--classes", "shape-2", "--out", str(tmp_path / "third")]
    code, _, err = call(capsys, "forget", *given)
    assert (code, (tmp_path / "third").exists()) == (2, False)
    assert "expected statistics.safetensors in" in err
    assert "as it was written" in err


def test_rows_that_were_forgotten_are_found_by_name_whatever_else_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "photos", classes=("cat", "dog", "ship"), per_class=30)
    words = ["--data", "folder", "--set", f"dataset.path={tmp_path / 'photos'}"]
    given = [*words, "--set", "dataset.size=12", "--network", "mlp", "--set", "epochs=1"]
    code, _, err = call(capsys, "train", *given, "--out", str(tmp_path / "original"))
    assert code == 0, err
    names = names_of(Folder(path=str(tmp_path / "photos")).load().train)
    assert names is not None
    first, other = names[10], names[40]
    how = ["--method", "finetune", "--set", "repair_epochs=1"]
    forgetting = [str(tmp_path / "original"), *words, *how, "--rows", f"{first},{names[30]}"]
    code, _, err = call(capsys, "forget", *forgetting, "--out", str(tmp_path / "first"))
    assert code == 0, err
    assert first not in (tmp_path / "first" / "config.json").read_text()

    def again(out: str) -> Any:
        more = [str(tmp_path / "first"), *words, *how, "--rows", other, "--out", str(tmp_path / out)]
        code, _, err = call(capsys, "forget", *more)
        assert code == 0, err
        told = json.loads((tmp_path / out / "forget.json").read_text())
        return told["experiment"].get("earlier", {}).get("requests")

    assert again("both") == [{"rows": [10, 30]}]
    (tmp_path / "photos" / names[0]).unlink()
    (tmp_path / "photos" / first).unlink()
    assert again("one") == [{"rows": [28]}]
    (tmp_path / "photos" / names[30]).unlink()
    assert again("none") is None
    audited = [str(tmp_path / "original"), str(tmp_path / "first"), *words, "--out", str(tmp_path / "result.json")]
    code, _, err = call(capsys, "audit", *audited)
    assert code == 2
    assert "expected the 2 rows that were to be forgotten in the data, got 0" in err


def test_rows_without_names_are_known_by_number_as_long_as_there_are_as_many() -> None:
    history: list[Entry] = [{"request": {"rows": [4, 0]}, "train_rows": 6}]
    assert requests_in(left(), history) == (Request(rows=(0, 4)),)
    with pytest.raises(RequestError, match="expected the 5 training rows that its own were numbered among, got 6"):
        requests_in(left(), [{**history[0], "train_rows": 5}])


@pytest.fixture(scope="module")
def halves(toy: Toy) -> tuple[TensorDataset, TensorDataset]:
    train, test = (TensorDataset(*half.batch(np.arange(len(half)))) for half in (toy.data.train, toy.data.test))
    return train, test


def test_in_python_too_what_a_method_keeps_goes_on_with_what_it_made(
    toy: Toy, halves: tuple[TensorDataset, TensorDataset]
) -> None:
    train, method = halves[0], ProjectedGradient(epochs=1, keep=True)
    made = forget(toy.model, train, classes=1, method=method, device="cpu")
    again = forget(made, train, classes=2, method=method, device="cpu")
    assert made.access["retain"].reads > again.access["retain"].reads == 0
    assert forget(made, train, classes=2, method="head_mask", device="cpu").statistics == {}


def right(made: Forgotten, test: TensorDataset, index: int) -> float:
    inputs, labels = test.tensors
    with torch.no_grad():
        return float((made.model.eval()(inputs[labels == index]).argmax(1) == index).double().mean())


def test_python_forgets_one_class_after_another(toy: Toy, halves: tuple[TensorDataset, TensorDataset]) -> None:
    train, test = halves
    first = forget(toy.model, train, classes=[1], device="cpu")
    second = forget(first, train, classes=[2], device="cpu")
    assert (right(second, test, 1), right(second, test, 2)) == (0, 0)
    assert second.access["retain"].rows <= 160
    alone = forget(first.model, train, classes=[2], earlier=[Request(classes=(1,))], device="cpu")
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, alone.model.state_dict()[name])
    with pytest.raises(RequestError, match="expected earlier requests of a plain network alone"):
        forget(first, train, classes=[2], earlier=[Request(classes=(1,))], device="cpu")

    def judge(
        original: torch.nn.Module | Forgotten, made: Forgotten, *classes: int, earlier: int | None = None
    ) -> Result:
        before = [] if earlier is None else [Request(classes=(earlier,))]
        return audit(original, made, train, test, classes=classes, audits=QUICK, device="cpu", earlier=before)

    assert judge(toy.model, second).experiment["request"] == {"classes": [1, 2]}
    assert judge(toy.model, second, 2, 1).access is None
    later = judge(first, second, 2)
    assert later.experiment["earlier"] == {"requests": [{"classes": [1]}], "rows": 80}
    assert later.access is not None
    again = judge(first.model, alone, 2, earlier=1)
    assert (again.findings, again.experiment) == (later.findings, later.experiment)


def test_python_takes_no_other_request_for_the_one_that_was_made(
    toy: Toy, halves: tuple[TensorDataset, TensorDataset]
) -> None:
    made = forget(toy.model, halves[0], classes=[1], method="head_mask", device="cpu")
    with pytest.raises(
        RequestError, match="expected the request that the unlearned model was made for, class '1', got c"
    ):
        audit(toy.model, made, *halves, classes=[2], audits=QUICK, device="cpu")
    with pytest.raises(ExpungeError, match="expected either classes or rows to forget, got none"):
        audit(toy.model, made.model, *halves, audits=QUICK, device="cpu")


def test_python_drops_one_output_after_another(toy: Toy, halves: tuple[TensorDataset, TensorDataset]) -> None:
    train, test = halves
    first = forget(toy.model, train, classes=[1], method="head_mask", head="drop", device="cpu")
    second = forget(first, train, classes=["#1"], method=Retrain(training=TRAINING), head="drop", device="cpu")
    assert second.model(torch.zeros(1, 1, 8, 8)).shape == (1, 2)
    result = audit(toy.model, second, train, test, audits=QUICK, device="cpu")
    assert result.experiment["request"] == {"classes": [1, 2]}
