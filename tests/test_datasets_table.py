"""Tables: how columns become inputs, what is refused, and the whole way from training to the report."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import timm
import torch
from safetensors.torch import load_file

from expunge import memory
from expunge.checkpoint import Checkpoint, load_model, save_model
from expunge.cli import main
from expunge.datasets.table import Table
from expunge.errors import DataError, ModelError
from expunge.network import Network
from expunge.request import Request
from expunge.stages import load_whole
from images import make_table

TRAIN = "size,colour,kind\n1,red,b\n3,blue,a\n5,red,b\n"
TEST = "colour,size,kind\ngreen,3,a\nred,7,b\n"


def write(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)


def test_numbers_are_standardised_by_training_rows_and_words_one_hot(tmp_path: Path) -> None:
    """Sizes 1, 3, 5: mean 3, deviation sqrt(8/3); colours blue, red; green is in the test rows alone."""
    data = Table(path=write(tmp_path / "a.csv", TRAIN), test=write(tmp_path / "b.csv", TEST), label="kind").load()
    assert (data.label_names, data.input_size) == (("a", "b"), (3,))
    deviation = (8 / 3) ** 0.5
    inputs, labels = data.train.batch(np.arange(3))
    assert inputs[:, 0].tolist() == pytest.approx([-2 / deviation, 0, 2 / deviation])
    assert inputs[:, 1:].tolist() == [[0, 1], [1, 0], [0, 1]]
    assert labels.tolist() == [1, 0, 1]
    tested, labels = data.test.batch(np.arange(2))
    assert tested[:, 0].tolist() == pytest.approx([0, 4 / deviation])
    assert tested[:, 1:].tolist() == [[0, 0], [0, 1]]
    assert labels.tolist() == [0, 1]


def test_parquet_holds_the_same_rows_as_csv(tmp_path: Path) -> None:
    make_table(tmp_path / "made.csv")
    pandas.read_csv(tmp_path / "made.csv").to_parquet(tmp_path / "made.parquet")
    csv, parquet = (Table(path=str(tmp_path / f"made.{kind}"), label="kind").load() for kind in ("csv", "parquet"))
    assert torch.equal(csv.train.batch(np.arange(240))[0], parquet.train.batch(np.arange(240))[0])
    assert len(csv.test) == 60
    assert abs(csv.train.batch(np.arange(240))[0][:, :2].mean(0)).max() < 1e-6


def test_columns_can_be_left_out_or_be_categories(tmp_path: Path) -> None:
    path, test = write(tmp_path / "a.csv", TRAIN), write(tmp_path / "b.csv", TEST)
    assert Table(path=path, test=test, label="kind", ignore=("colour",)).load().input_size == (1,)
    assert Table(path=path, test=test, label="kind", categories=("size",)).load().input_size == (5,)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (TRAIN, {"label": "knd"}, r"expected a column of .*, got 'knd' \(did you mean 'kind'\?\): give dataset\.label"),
        (TRAIN, {"ignore": ("x",)}, r"got 'x' .*give dataset\.ignore"),
        (TRAIN + ",red,a\n", {}, "got none or infinity in row 3, column 'size'"),
        (TRAIN + "4,,a\n", {}, "got none or infinity in row 3, column 'colour'"),
        (TRAIN + "4,red,\n", {}, "got none or infinity in row 3, column 'kind'"),
        (TRAIN.replace("3,", "inf,"), {}, "got none or infinity in row 1, column 'size'"),
        (TRAIN.replace("size", "length"), {}, r"expected the columns of .*, got none of \['length'\]"),
        (TRAIN.replace(",a", ",c"), {}, "expected the labels of .*, got 'a'"),
        (TRAIN, {"ignore": ("size", "colour")}, "expected columns beside the label"),
        ("size,colour,kind\n", {}, "expected rows in"),
        ("", {}, r"expected a CSV or parquet file at .*a\.csv', got: No columns"),
    ],
)
def test_what_cannot_be_used_is_one_line(text: str, settings: dict[str, object], message: str, tmp_path: Path) -> None:
    path, test = write(tmp_path / "a.csv", text), write(tmp_path / "b.csv", TEST)
    with pytest.raises(DataError, match=message):
        Table(**({"path": path, "test": test, "label": "kind"} | settings)).load()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1, 2]] * 10, "expected a number or a word in every row of .*, got a ndarray in row 0, column 'size': give"),
        ([{"a": 1}] * 10, "expected a number or a word in every row of .*, got a dict in row 0, column 'size'"),
        ([1e308, -1e308] * 5, r"expected numbers that can be standardised in .*, got larger in \['size'\]"),
    ],
)
def test_columns_of_other_things_are_named(column: list[object], message: str, tmp_path: Path) -> None:
    table = pandas.DataFrame({"size": column, "kind": ["a", "b"] * 5})
    with pytest.raises(DataError, match=message):
        Table(path=saved(table, tmp_path), label="kind").load()


def test_durations_are_categories(tmp_path: Path) -> None:
    table = pandas.DataFrame({"time": pandas.to_timedelta([1, 2] * 5, unit="s"), "kind": ["a", "b"] * 5})
    assert Table(path=saved(table, tmp_path), label="kind").load().input_size == (2,)


def saved(table: pandas.DataFrame, folder: Path) -> str:
    file = folder / "made.parquet"
    table.to_parquet(file)
    return str(file)


@pytest.fixture
def model(tmp_path: Path) -> Checkpoint:
    """A network of a table: sizes 1, 3, 5, colours blue and red, and an id that is ignored."""
    path = write(
        tmp_path / "a.csv", TRAIN.replace("kind\n", "kind,id\n").replace("b\n", "b,1\n").replace("a\n", "a,2\n")
    )
    data = Table(path=path, test=path, label="kind", ignore=("id",)).load()
    save_model(Network(name="mlp").build(data), tmp_path / "model", data, {})
    return load_model(tmp_path / "model")


def test_what_is_left_of_a_file_becomes_the_same_inputs_without_any_setting(model: Checkpoint, tmp_path: Path) -> None:
    """The row of size 3 and colour blue, and with it class a, is gone."""
    path = write(tmp_path / "left.csv", "id,colour,kind,size\n1,red,b,1\n1,red,b,5\n")
    later = load_whole(model, Table(path=path, test=path, label="kind"), Request(classes=("a",)))
    deviation = (8 / 3) ** 0.5
    assert later.train.batch(np.arange(2))[0].flatten().tolist() == pytest.approx(
        [-2 / deviation, 0, 1, 2 / deviation, 0, 1]
    )
    assert (later.label_names, later.train.labels.tolist()) == (("a", "b"), [1, 1])


def test_the_folder_of_a_model_names_no_value(model: Checkpoint) -> None:
    told = (model.folder / "config.json").read_text()
    assert '"colour"' in told
    assert "blue" not in told
    assert "red" not in told.replace("pretrained", "")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (TRAIN + "4,green,a\n", {}, r"in column 'colour' of .* that the model was trained on, got 'green' in row 3"),
        (TRAIN.replace("3,", "x,"), {}, r"expected numbers in .*a\.csv, column 'size', got: could not convert"),
        (TRAIN.replace("size", "length"), {}, r"columns that the model was trained on, got none of \['size'\] in"),
        (TRAIN, {"ignore": ("colour",)}, r"got dataset\.ignore or categories of \['colour'\]: leave them away"),
        (TRAIN, {"categories": ("size",)}, r"got dataset\.ignore or categories of \['size'\]: leave them away"),
    ],
)
def test_rows_that_cannot_become_such_inputs_are_one_line(
    model: Checkpoint, text: str, settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=message):
        load_whole(model, Table(**({"path": path, "test": path, "label": "kind"} | settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "encoding",
    [
        {"numbers": {}},
        {"numbers": [1], "categories": {}},
        {"numbers": {"size": [0, 0]}, "categories": {}},
        {"numbers": {"size": [0, "nan"]}, "categories": {}},
        {"numbers": {"size": 3}, "categories": {}},
    ],
)
def test_a_folder_that_tells_no_columns_is_refused(encoding: dict[str, object], tmp_path: Path) -> None:
    table = Table(path=write(tmp_path / "a.csv", TRAIN), label="kind")
    with pytest.raises(ModelError, match=r"^expected .* in the model's folder, got"):
        table.load_as(encoding)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "none.csv")):
        with pytest.raises(DataError, match=r"expected a CSV or parquet file, got .*: give dataset\.path"):
            Table(path=path, label="kind").load()


def test_a_column_of_too_many_categories_is_named_before_it_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{number},name-{number},{'ab'[number % 2]}\n" for number in range(1000))
    path = write(tmp_path / "a.csv", "size,name,kind\n" + rows)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)
    with pytest.raises(DataError, match=r"for 801 columns of inputs; column 'name' has 800 values.*dataset\.ignore"):
        Table(path=path, label="kind").load()
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(DataError, match=r"of memory for the table .*a\.csv, got 0\.0 MB: give fewer rows"):
        Table(path=path, label="kind").load()


def test_a_network_of_a_table_is_trained_forgets_and_is_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_table(tmp_path / "made.csv")
    data = ["--data", "table", "--set", f"dataset.path={tmp_path / 'made.csv'}", "--set", "dataset.label=kind"]
    at = [*data, "--device", "cpu"]
    few = ["--set", "epochs=20", "--set", "network.args.width=16"]
    call(monkeypatch, "train", *at, "--network", "mlp", *few, "--out", tmp_path / "o")
    assert load_model(tmp_path / "o").input_size == (5,)
    again = timm.create_model(f"local-dir:{tmp_path / 'o'}", pretrained=True)
    assert again(torch.zeros(2, 5)).shape == (2, 3)
    call(monkeypatch, "forget", tmp_path / "o", *at, "--classes", "class-1", "--out", tmp_path / "u")
    result = ["--classes", "class-1", "--references", "2", "--out", tmp_path / "result.json"]
    call(monkeypatch, "audit", tmp_path / "o", tmp_path / "u", *at, *result)
    call(monkeypatch, "report", tmp_path / "result.json", "--out", tmp_path / "report.html")
    assert "class-1" in (tmp_path / "report.html").read_text()
    kept = pandas.read_csv(tmp_path / "made.csv").query("kind != 'class-1'")
    kept.to_csv(tmp_path / "left.csv", index=False)
    left = [str(word).replace("made.csv", "left.csv") for word in at]
    call(monkeypatch, "forget", tmp_path / "o", *left, "--classes", "class-1", "--out", tmp_path / "without")
    ways = [load_file(tmp_path / name / "model.safetensors") for name in ("u", "without")]
    assert all(torch.equal(ways[0][name], ways[1][name]) for name in ways[0])
    call(monkeypatch, "train", *left, "--network", "mlp", *few, "--out", tmp_path / "r")
    result = [*result[:2], "--retrained", tmp_path / "r", "--out", tmp_path / "other.json"]
    call(monkeypatch, "audit", tmp_path / "o", tmp_path / "u", *at, *result, code=2)
    assert "with another encoding in its config.json: train it on the same data settings" in capsys.readouterr().err
    call(monkeypatch, "train", *at, "--network", "resnet20", "--out", tmp_path / "x", code=2)
    assert "expected arguments that 'resnet20' takes for inputs (5,)" in capsys.readouterr().err


def call(monkeypatch: pytest.MonkeyPatch, *words: object, code: int = 0) -> None:
    monkeypatch.setattr("sys.argv", ["expunge", "-q", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
