"""Data sets read by the library `datasets`: from parquet, folders of images and disk; what is refused in one line."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from expunge.cli import main
from expunge.datasets.folder import Folder
from expunge.datasets.huggingface import Huggingface
from expunge.errors import DataError
from images import images, make_folder, make_hub

CLASSES = ("cat", "dog", "ship")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")


def parquet(folder: Path) -> Path:
    folder.mkdir()
    make_hub(per_class=6).to_parquet(folder / "train-00000-of-00001.parquet")
    make_hub(per_class=2, seed=1).to_parquet(folder / "test-00000-of-00001.parquet")
    return folder


def test_parquet_files_have_the_rows_that_were_written(tmp_path: Path) -> None:
    data = Huggingface(path=str(parquet(tmp_path / "made")), size=12).load()
    assert data.label_names == CLASSES
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 2] * 6, [0, 1, 2] * 2)
    written = np.array(images(1, 6)[0])  # of exactly 12 x 12 pixels
    found, labels = data.train.batch(np.array([1]))
    assert labels.tolist() == [1]
    assert torch.equal(found[0], (torch.from_numpy(written).permute(2, 0, 1).float() / 255 - 0.5) / 0.25)


def test_one_file_a_saved_set_and_a_folder_of_images_give_the_same_rows(tmp_path: Path) -> None:
    made = make_hub(per_class=10)
    made.to_parquet(tmp_path / "one.parquet")
    made.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=made, validation=made.select(range(6))).save_to_disk(tmp_path / "both")
    one, saved, both = (
        Huggingface(path=str(tmp_path / name), size=8).load() for name in ("one.parquet", "saved", "both")
    )
    assert (len(one.train), len(one.test)) == (24, 6)
    assert np.bincount(one.test.labels).tolist() == [2, 2, 2]
    assert torch.equal(one.train.batch(np.arange(24))[0], saved.train.batch(np.arange(24))[0])
    assert (len(both.train), len(both.test)) == (30, 6)


def test_a_folder_of_images_is_read_as_by_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", classes=CLASSES, per_class=4)
    make_folder(tmp_path / "test", classes=CLASSES, per_class=2, seed=1)
    ours, theirs = Folder(path=str(tmp_path), size=8).load(), Huggingface(path=str(tmp_path), size=8).load()
    assert theirs.label_names == ours.label_names
    assert torch.equal(theirs.train.batch(np.arange(12))[0], ours.train.batch(np.arange(12))[0])


def test_words_and_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    made = make_hub(per_class=10).remove_columns("label")
    for values, names in (("bac", ("a", "b", "c")), ((30, 4, 5), ("4", "5", "30"))):
        folder = tmp_path / names[0]
        named = made.add_column("kind", list(values) * 10)
        datasets.DatasetDict(train=named, test=named).save_to_disk(folder)
        data = Huggingface(path=str(folder)).load()
        assert data.label_names == names
        assert data.train.labels[:3].tolist() == [names.index(str(value)) for value in values]


def test_labels_are_known_without_decoding_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_hub(per_class=10).save_to_disk(tmp_path / "saved")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    assert len(Huggingface(path=str(tmp_path / "saved")).load().train.labels) == 24


def test_the_first_rows_of_every_class_are_taken(tmp_path: Path) -> None:
    path = parquet(tmp_path / "made")
    data = Huggingface(path=str(path), rows_per_class=2, size=8).load()
    whole = Huggingface(path=str(path), size=8).load()
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 2] * 2, [0, 1, 2] * 2)
    assert torch.equal(data.train.batch(np.arange(6))[0], whole.train.batch(np.arange(6))[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, r"expected an id on the hub, a folder or a parquet file, got '': give dataset\.path"),
        ({"train": "training"}, r"expected a split 'training', got train, test: give dataset\.train or dataset\.test"),
        ({"test": "dev"}, "expected a split 'dev', got train, test"),
        ({"image": "image"}, r"expected a column of .*, got 'image' \(known: img, label\)"),
        ({"image": "label"}, "expected a column of images, got 'label'"),
    ],
)
def test_what_is_not_there_is_told(settings: dict[str, str], message: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "made")
    with pytest.raises(DataError, match=message):
        Huggingface(**({"path": str(path)} | settings)).load()  # type: ignore[arg-type]


def test_two_columns_that_could_be_meant_are_told(tmp_path: Path) -> None:
    made = make_hub(per_class=10)
    made.add_column("fine", [0, 1, 2] * 10).cast_column("fine", made.features["label"]).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match=r"expected one column of labels, got label, fine: give dataset\.label"):
        Huggingface(path=str(tmp_path / "two")).load()
    assert Huggingface(path=str(tmp_path / "two"), label="fine").load().label_names == CLASSES


def test_a_missing_label_and_one_of_test_rows_alone_are_refused(tmp_path: Path) -> None:
    made = make_hub(per_class=2).remove_columns("label")
    words = made.add_column("kind", ["a", "b", None] * 2)
    datasets.DatasetDict(train=words, test=words).save_to_disk(tmp_path / "missing")
    with pytest.raises(DataError, match="expected a label in every row, got 2 without in column 'kind'"):
        Huggingface(path=str(tmp_path / "missing")).load()
    halves = {half: made.add_column("kind", list(kinds) * 2) for half, kinds in (("train", "abc"), ("test", "abz"))}
    datasets.DatasetDict(halves).save_to_disk(tmp_path / "strange")
    with pytest.raises(DataError, match="expected labels of the training rows, got 'z' in column 'kind'"):
        Huggingface(path=str(tmp_path / "strange")).load()


def test_a_hub_that_is_not_reached_is_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    words = ["expunge", "train", "--data", "huggingface", "--set", "dataset.path=nobody/nothing"]
    monkeypatch.setattr("sys.argv", [*words, "--device", "cpu", "--out", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("expunge: expected a data set in 'nobody/nothing', got: Couldn't reach 'nobody/nothing'")


def test_a_damaged_file_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"expected a data set in .*, got: .*Parquet"):
        Huggingface(path=str(tmp_path)).load()
    assert capfd.readouterr().err == ""
