"""NumPy arrays: which shapes and types are read, that they are mapped, and that no object is unpickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge import memory
from expunge.datasets._npy import open_array
from expunge.datasets.arrays import Arrays
from expunge.errors import DataError
from images import make_arrays


def save(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "made.npz", **arrays)
    return str(folder / "made.npz")


def pair(*shape: int) -> dict[str, Any]:
    inputs, labels = make_arrays(rows=30, shape=shape)
    return {"x_train": inputs, "y_train": labels, "x_test": inputs[:6], "y_test": labels[:6]}


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((5,), "auto", (5,)),
        ((8, 9), "auto", (1, 8, 9)),
        ((8, 9, 3), "auto", (3, 8, 9)),
        ((3, 8, 9), "auto", (3, 8, 9)),
        ((1, 8, 3), "NCHW", (1, 8, 3)),
        ((4, 8, 9), "NCHW", (4, 8, 9)),
        ((8, 9, 4), "NHWC", (4, 8, 9)),
    ],
)
def test_the_rule_of_shapes(tmp_path: Path, shape: tuple[int, ...], layout: Any, expected: tuple[int, ...]) -> None:
    data = Arrays(path=save(tmp_path, **pair(*shape)), layout=layout).load()
    assert data.input_size == expected
    assert data.train.batch(np.array([4, 2]))[0].shape == (2, *expected)


@pytest.mark.parametrize("shape", [(1, 8, 3), (4, 8, 9)])
def test_channels_that_could_be_either_must_be_told(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"channels last or second in x_train, got uint8 .*: give dataset\.layout"):
        Arrays(path=save(tmp_path, **pair(*shape))).load()


def test_bytes_are_scaled_and_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    made = pair(2, 2, 3)
    made["x_train"][7, 0, 1] = (0, 51, 255)
    data = Arrays(path=save(tmp_path, **made)).load()
    assert data.train.batch(np.array([7]))[0][0, :, 0, 1].tolist() == pytest.approx([-2, -1.2, 2])
    assert (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)
    numbers = {name: value.astype(np.float64) if name[0] == "x" else value for name, value in made.items()}
    data = Arrays(path=save(tmp_path, **numbers)).load()
    assert data.train.batch(np.array([7]))[0][0, :, 0, 1].tolist() == [0, 51, 255]
    assert (data.mean, data.std) == ((), ())
    data = Arrays(path=save(tmp_path, **numbers), mean=(51.0,), std=(2.0,)).load()
    assert data.train.batch(np.array([7]))[0][0, :, 0, 1].tolist() == [-25.5, 0, 102]


def test_files_and_plain_members_are_mapped_and_equal_what_numpy_reads(tmp_path: Path) -> None:
    made = pair(4, 4)
    np.savez(tmp_path / "plain.npz", **made)
    np.savez_compressed(tmp_path / "small.npz", **made)
    for name, value in made.items():
        np.save(tmp_path / f"{name}.npy", np.asfortranarray(value))
        for path, mapped in ((tmp_path, True), (tmp_path / "plain.npz", True), (tmp_path / "small.npz", False)):
            found = open_array(path, name)
            assert isinstance(found, np.memmap) is mapped
            assert np.array_equal(found, value)
            assert found.dtype == value.dtype


def test_words_are_classes_and_names_can_be_given(tmp_path: Path) -> None:
    made = pair(3)
    words = np.array(["cat", "ant", "dog"])
    data = Arrays(path=save(tmp_path, **made | {name: words[made[name]] for name in ("y_train", "y_test")})).load()
    assert data.label_names == ("ant", "cat", "dog")
    assert data.train.labels[:3].tolist() == [1, 0, 2]
    data = Arrays(path=save(tmp_path, **made), label_names=("x", "y", "z")).load()
    assert data.label_names == ("x", "y", "z")


def test_without_test_arrays_one_row_in_five_is_held_out(tmp_path: Path) -> None:
    inputs, labels = make_arrays(rows=30, shape=(4,))
    data = Arrays(path=save(tmp_path, x_train=inputs, y_train=labels[:, None])).load()
    assert (np.bincount(data.train.labels).tolist(), np.bincount(data.test.labels).tolist()) == ([8] * 3, [2] * 3)
    rows = torch.cat([half.batch(np.arange(len(half)))[0] for half in (data.train, data.test)])
    assert len({row.numpy().tobytes() for row in rows}) == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": None}, "expected an array 'y_train' in .*, got x_test, x_train, y_test"),
        ({"y_test": None}, "expected an array 'y_test' in"),
        ({"x_train": np.array([{}, None])}, "expected an array 'x_train' of plain numbers in .*, got: .*pickled"),
        ({"y_train": np.arange(29) % 3}, "expected as many labels as inputs, got 29 for 30"),
        ({"y_train": np.full(30, 0.5)}, "expected class indices or words .* in y_train, got float64"),
        ({"y_train": np.arange(30) % 3 - 1}, "expected train labels from 0 to"),
        ({"y_train": np.full(30, 2**40)}, "expected labels that are class indices below 1048576, got 1099511627776"),
        ({"x_test": np.zeros((6, 5))}, "expected x_test of uint8 .* a row like x_train, got float64"),
        ({"x_train": np.zeros((30, 1, 1, 1, 1))}, "expected numbers .* of 2, 3 or 4 dimensions in x_train"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    made = {name: value for name, value in (pair(4) | changes).items() if value is not None}
    with pytest.raises(DataError, match=message):
        Arrays(path=save(tmp_path, **made)).load()


def test_a_missing_file_and_one_that_is_no_archive_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    for path in (tmp_path / "x.npz", tmp_path / "nothing.npz"):
        with pytest.raises(DataError, match=r"expected an \.npz file or a folder of \.npy files at .*, got: "):
            Arrays(path=str(path)).load()


def test_a_damaged_header_is_told(tmp_path: Path) -> None:
    arrays = pair(4)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    whole = (tmp_path / "y_train.npy").read_bytes()
    (tmp_path / "y_train.npy").write_bytes(whole.replace(b"(30,)", b"(30,("))  # numpy lets out a tokenizer's error
    with pytest.raises(
        DataError, match=r"expected an array 'y_train' of plain numbers in .*, got: .*EOF in multi-line"
    ):
        Arrays(path=str(tmp_path)).load()


def test_a_compressed_array_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", x_train=np.zeros((1000, 100)), y_train=np.arange(1000) % 2)
    monkeypatch.setattr(memory, "available_bytes", lambda: 700_000)
    with pytest.raises(DataError, match=r"expected 0\.8 MB of memory for x_train .*, got 0\.7 MB: save it with"):
        Arrays(path=str(tmp_path / "x.npz")).load()
