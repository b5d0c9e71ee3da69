"""Folders of images: what is read, in which shape, and what is refused."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from expunge.checkpoint import load_model, save_model
from expunge.cli import main
from expunge.data import Data, Scaling, only_classes, split
from expunge.datasets._halves import hold_out
from expunge.datasets.arrays import Arrays
from expunge.datasets.folder import Folder
from expunge.errors import DataError, RequestError
from expunge.network import Network
from expunge.request import Request, parse_request
from expunge.rows import names_of
from expunge.stages import load_for
from images import make_arrays, make_folder
from test_cli import call as cli

CLASSES = ("cat", "dog", "ship")


def test_halves_are_the_folders_and_classes_their_names(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", classes=CLASSES, per_class=4)
    make_folder(tmp_path / "val", classes=CLASSES, per_class=2, seed=1)
    data = Folder(path=str(tmp_path), size=10).load()
    assert data.label_names == CLASSES
    assert (data.train.labels.tolist(), len(data.test)) == ([0] * 4 + [1] * 4 + [2] * 4, 6)
    assert data.input_size == (3, 10, 10)
    assert (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("halves", [True, False])
def test_a_training_row_is_called_by_its_file(tmp_path: Path, *, halves: bool) -> None:
    make_folder(tmp_path / "train" if halves else tmp_path, classes=CLASSES, per_class=10)
    if halves:
        make_folder(tmp_path / "test", classes=CLASSES, per_class=2, seed=1)
    data = Folder(path=str(tmp_path)).load()
    names = names_of(data.train)
    assert names is not None
    assert len(names) == (30 if halves else 24)
    listed = tmp_path / "listed.txt"
    listed.write_text(f"{names[20]}\n\n{names[3]}\n")
    for words in (f"@{listed}", f"{names[20]}, 3", f"20,{names[3]}"):
        assert split(data, parse_request([], words)).request.rows == (20, 3)
    assert names_of(split(data, Request(rows=(20, 3)))["forget"]) == [names[3], names[20]]
    assert names_of(only_classes(data, [1, 2]).train) == [name for name in names if not name.startswith("cat/")]
    Image.new("RGB", (9, 9)).save((tmp_path / "train" if halves else tmp_path) / names[20])
    black = [bool((data.train.batch(np.array([row]))[0] == -2).all()) for row in range(len(names))]
    assert black.index(True) == 20
    assert sum(black) == 1
    with pytest.raises(RequestError, match=r"such as 'cat/.*png', got 'cat/x.png' and 1 more: no such file, or one"):
        split(data, Request(rows=("cat/x.png", "dog/x.png", 3)))
    with pytest.raises(RequestError, match="expected each row once, got one by name and by number"):
        split(data, Request(rows=(3, names[3])))


def test_an_image_is_scaled_cut_and_normalised(tmp_path: Path) -> None:
    """A picture of two halves: after the cut to the middle both are as wide, and their values known."""
    make_folder(tmp_path, classes=CLASSES, per_class=10)
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, 20:] = 255
    Image.fromarray(pixels).save(tmp_path / "cat" / "000.png")
    data = Folder(path=str(tmp_path), size=20, channels=1, mean=(0.25,), std=(0.5,)).load()
    rows = {0: data.train, 1: data.test}
    found = [rows[half].batch(np.array([0]))[0][0] for half in rows]
    image = next(one for one in found if one[0, 0, 0] == -0.5)
    assert image.shape == (1, 20, 20)
    assert torch.equal(image[0, :, :10], torch.full((20, 10), -0.5))
    assert torch.equal(image[0, :, 10:], torch.full((20, 10), 1.5))


def test_without_a_test_folder_one_in_five_is_held_out_of_every_class(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=CLASSES, per_class=10)
    data = Folder(path=str(tmp_path)).load()
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]


def test_no_image_is_opened_before_it_is_asked_for(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=CLASSES, per_class=10)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"no image")
    data = Folder(path=str(tmp_path)).load()
    with pytest.raises(DataError, match=r"expected an image in \S+cat/004\.png, got: cannot identify"):
        data.train.batch(np.array([3]))


def test_an_image_that_was_cut_off_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, classes=CLASSES, per_class=10)
    file = tmp_path / "cat" / "004.png"
    file.write_bytes(file.read_bytes()[:-200])
    data = Folder(path=str(tmp_path)).load()
    with pytest.raises(DataError, match=r"^expected an image in \S+cat/004\.png, got: .*truncated"):
        data.train.batch(np.array([3]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "expected images in a folder per class in"),
        (lambda folder: (folder / "cat").mkdir(), "expected images in a folder per class in .*, got none"),
        (lambda folder: make_folder(folder / "train", classes=CLASSES, per_class=1), "or neither, got one of them"),
        (lambda folder: make_folder(folder, classes=CLASSES, per_class=1), r"got class 'cat' with 1 row: add rows"),
    ],
)
def test_a_folder_without_images_says_what_was_wanted(make: object, message: str, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        Folder(path=str(tmp_path)).load()


def test_no_path_and_a_wrong_one_are_told(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "nothing")):
        with pytest.raises(DataError, match=r"expected a folder with a folder of images per class.*give dataset\.path"):
            Folder(path=path).load()


def test_halves_with_other_classes_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", classes=CLASSES, per_class=1)
    make_folder(tmp_path / "test", classes=CLASSES[:2], per_class=1)
    with pytest.raises(DataError, match=r"expected the classes of .*train in .*test too, got none of \['ship'\]"):
        Folder(path=str(tmp_path)).load()


def test_what_is_held_out_stays_when_other_images_go() -> None:
    names = [f"{name}/{number}.png" for name in CLASSES for number in range(20)]

    def held_out(left: list[str]) -> set[str]:
        labels = np.array([CLASSES.index(name.split("/")[0]) for name in left])
        return {left[row] for row in hold_out(labels, CLASSES, "images", left)[1]}

    before = held_out(names)
    assert [sum(name.startswith(one) for name in before) for one in CLASSES] == [4, 4, 4]
    without_cats = {name for name in before if not name.startswith("cat")}
    assert held_out([name for name in names if not name.startswith("cat")]) == without_cats
    for gone in names:
        assert len(before - held_out([name for name in names if name != gone]) - {gone}) <= 1


@pytest.mark.parametrize("gone", ["the class", "its images"])
def test_a_class_whose_images_are_gone_is_forgotten(
    gone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model knows the class; the data do not have to."""
    images = tmp_path / "images"
    make_folder(images, classes=CLASSES, per_class=20)
    data = ["--data", "folder", "--set", f"dataset.path={images}", "--device", "cpu"]
    own = ["--set", "dataset.size=8", "--set", "epochs=4", "--set", "network.args.width=2"]
    code, _, err = cli(capsys, "train", *data, *own, "--out", str(tmp_path / "o"))
    assert code == 0, err
    shutil.rmtree(images / "cat")
    if gone == "its images":
        (images / "cat").mkdir()
    code, out, err = cli(capsys, "forget", str(tmp_path / "o"), *data, "--classes", "cat", "--out", str(tmp_path / "u"))
    assert code == 0, err
    assert "0 reads of forgotten rows" in out
    assert load_model(tmp_path / "u").label_names == CLASSES
    later = ["--classes", "dog", "--out", str(tmp_path / "later")]
    code, out, err = cli(capsys, "forget", str(tmp_path / "u"), *data, *later)
    assert code == 0, err  # what an earlier request named may be gone, too
    asked = ["--classes", "cat", "--method", "salun", "--out", str(tmp_path / "v")]
    code, _, err = cli(capsys, "forget", str(tmp_path / "o"), *data, *asked)
    assert code == 2
    assert "salun, forgetting 'cat': expected training rows to forget, which this method reads, got none" in err


def test_another_class_must_not_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "images", classes=CLASSES, per_class=5)
    data = ["--data", "folder", "--set", f"dataset.path={tmp_path / 'images'}", "--device", "cpu"]
    own = ["--set", "dataset.size=8", "--set", "epochs=1", "--set", "network.args.width=2"]
    assert cli(capsys, "train", *data, *own, "--out", str(tmp_path / "o"))[0] == 0
    shutil.rmtree(tmp_path / "images" / "dog")
    code, _, err = cli(capsys, "forget", str(tmp_path / "o"), *data, "--classes", "cat", "--out", str(tmp_path / "u"))
    assert code == 2
    assert "expected the 3 classes that the model was trained on (cat, dog, ship), got 2 (cat, ship)" in err
    assert "(cat, ship): give data that have rows of 'dog' too" in err


def test_a_model_says_how_its_images_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained at a size and scale of its own; forgetting is told of neither."""
    make_folder(tmp_path / "images", classes=CLASSES, per_class=20)
    at = ["--data", "folder", "--set", f"dataset.path={tmp_path / 'images'}", "--device", "cpu"]
    own = ["--set", "dataset.size=8", "--set", "dataset.channels=1", "--set", "dataset.mean=[0.3]"]
    call(monkeypatch, "train", *at, *own, "--set", "epochs=1", "--set", "network.args.width=2", "--out", tmp_path / "o")
    checkpoint = load_model(tmp_path / "o")
    assert (checkpoint.input_size, checkpoint.mean, checkpoint.std) == ((1, 8, 8), (0.3,), (0.25,))
    call(
        monkeypatch, "forget", tmp_path / "o", *at, "--classes", "dog", "--method", "head_mask", "--out", tmp_path / "u"
    )
    assert (tmp_path / "u" / "model.safetensors").exists()


@pytest.mark.parametrize("mode", ["center", "border", "squash"])
def test_a_model_says_how_its_images_are_scaled_and_cut(tmp_path: Path, mode: str) -> None:
    """timm, given the folder's config.json and no word from us, makes the same input of a picture."""
    make_folder(tmp_path / "images", classes=CLASSES, per_class=5)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 12, 3), dtype=np.uint8)
    for file in (tmp_path / "images" / "cat").glob("*.png"):
        Image.fromarray(pixels).save(file)
    told = Scaling(interpolation="nearest", crop_pct=0.5, crop_mode=mode)
    data = Folder(path=str(tmp_path / "images")).adapted((3, 12, 12), (0.0,), (1.0,), told).load()
    assert data.scaling == told
    model = timm.create_model("small_cnn", num_classes=3, width=2)
    save_model(model, tmp_path / "model", data, {})
    assert load_model(tmp_path / "model").scaling == told
    image = data.train.batch(np.flatnonzero(data.train.labels == 0)[:1])[0][0]
    by_timm = create_transform(
        **resolve_data_config(
            pretrained_cfg=json.loads((tmp_path / "model" / "config.json").read_text())["pretrained_cfg"]
        )
    )
    assert torch.equal(image, by_timm(Image.fromarray(pixels)))


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["expunge", "-q", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0


def test_two_classes_of_one_name_stay_two(tmp_path: Path) -> None:
    """ImageNet has two cranes: the bird and the machine."""
    images, labels = make_arrays(rows=30, shape=(8, 8, 3))
    np.savez(tmp_path / "arrays.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    dataset = Arrays(path=str(tmp_path / "arrays.npz"))
    data = dataset.load()
    names = ("crane", "crane", *data.label_names[2:])
    model = Network(args={"width": 2}).build(data)
    save_model(model, tmp_path / "model", replace(data, label_names=names), {})
    named = Named(dataset, names)
    loaded = load_for(load_model(tmp_path / "model"), named, Request(classes=(2,)))
    assert loaded.train.labels.tolist() == data.train.labels.tolist()


@dataclass(frozen=True)
class Named:
    """A data set under other names."""

    dataset: Arrays
    names: tuple[str, ...]

    def load(self) -> Data:
        return replace(self.dataset.load(), label_names=self.names)
