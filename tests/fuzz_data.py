"""Fuzz targets of data: hostile arrays, tables, images and the data sets that read them."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expunge.data import Data
from expunge.datasets.arrays import Arrays
from expunge.datasets.folder import Folder
from expunge.datasets.huggingface import Huggingface
from expunge.datasets.table import Table
from expunge.datasets.torchvision import Torchvision
from images import images, make_hub, make_mnist, make_table
from mutations import NUMBERS, in_bytes, word

CLASSES = ("cat", "dog")


def read_some(data: Data) -> None:
    """Read the first rows of each half."""
    for rows in (data.train, data.test):
        rows.batch(np.arange(min(3, len(rows))))


def arrays(chance: Random, seeds: Path, folder: Path) -> None:
    """An .npz file, or .npy files, with hostile arrays, or damaged."""
    given: dict[str, Any] = {"x_train": np.zeros((20, 3, 6), np.uint8), "y_train": np.arange(20) % 2}
    if chance.random() < 0.5:
        given |= {"x_test": np.zeros((6, 3, 6), np.uint8), "y_test": np.arange(6) % 2}
    if chance.random() < 0.7:
        given[chance.choice(list(given))] = _array(chance)
    if chance.random() < 0.3:
        for name in list(given):
            buffer = io.BytesIO()
            np.save(buffer, given[name], allow_pickle=True)
            (folder / f"{name}.npy").write_bytes(_damaged(chance, buffer.getvalue(), 0.3))
        return
    buffer = io.BytesIO()
    (np.savez if chance.random() < 0.6 else np.savez_compressed)(buffer, **given)
    data = buffer.getvalue()
    if chance.random() < 0.2:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(
                chance.choice(["../escaped.npy", "/escaped.npy", "x_train", "y_test.npy", "x_test.npy"]), b"x"
            )
        data = buffer.getvalue()
    (folder / "data.npz").write_bytes(_damaged(chance, data, 0.5))


def take_arrays(folder: Path) -> None:
    """Load them, and read some rows."""
    file = folder / "data.npz"
    read_some(Arrays(path=str(file if file.exists() else folder)).load())


def _array(chance: Random) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: np.array([{"a": 1}, print], dtype=object),
        lambda: np.array([chance.choice(NUMBERS[-7:]) for _ in range(20)], dtype=np.float64),
        lambda: np.full(20, chance.choice([-1, 2**40, 2**62, -(2**63)]), dtype=np.int64),
        lambda: np.full(20, 2**64 - 1, dtype=np.uint64),
        lambda: np.array([word(chance)[:30].replace("\udcff", "").replace("\ud800", "") for _ in range(20)]),
        lambda: np.array([b"\xff\x00"] * 20),
        lambda: np.zeros((20, 3), dtype=chance.choice(["c8", "M8[s]", "V5", "f2", ">f4", "?", "f8", "<i2", "i4,f4"])),
        lambda: np.zeros(
            chance.choice([(), (0,), (20,), (20, 0), (20, 1), (0, 3, 6), (20, 3, 6, 1), (20, 2, 2, 2, 2)])
        ),
        lambda: np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (20, 0, 10**9), (0, 0, 0)),
        lambda: np.asfortranarray(np.ones((20, 3, 6), np.float32)),
        lambda: np.full((20, 3, 6), chance.choice([np.nan, np.inf, 1e300])),
    ]
    return chance.choice(kinds)()


def csv_table(chance: Random, seeds: Path, folder: Path) -> None:
    """A CSV file with hostile cells, or damaged."""
    make_table(folder / "table.csv", rows=30)
    lines = [line.split(",") for line in (folder / "table.csv").read_text().splitlines()]
    for _ in range(chance.randrange(4)):
        line = chance.choice(lines)
        line[chance.randrange(len(line))] = chance.choice([word(chance), str(chance.choice(NUMBERS))])
    text = "\n".join(",".join(line) for line in lines).encode("utf-8", "surrogatepass")
    (folder / "table.csv").write_bytes(_damaged(chance, text, 0.4))


def parquet_table(chance: Random, seeds: Path, folder: Path) -> None:
    """A parquet file with a hostile column, or damaged."""
    columns: dict[str, Any] = {
        "height": list(range(30)),
        "colour": ["red", "blue", "green"] * 10,
        "kind": [0, 1, 2] * 10,
    }
    if chance.random() < 0.6:
        columns[chance.choice([*columns, word(chance).encode("utf-8", "replace").decode()])] = _column(chance)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    (folder / "table.parquet").write_bytes(_damaged(chance, buffer.getvalue(), 0.6))


def take_table(folder: Path) -> None:
    """Load it, and read some rows."""
    read_some(Table(path=str(next(folder.glob("table.*"))), label="kind").load())


def _column(chance: Random) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: pa.array([[1, 2]] * 30),
        lambda: pa.array([{"a": 1, "b": None}] * 30),
        lambda: pa.array([b"\xff\xfe"] * 30),
        lambda: pa.array([None] * 30),
        lambda: pa.array([True, False, None] * 10),
        lambda: pa.array([1.5, float("nan"), float("inf")] * 10),
        lambda: pa.array([10**18, -(10**18), 0] * 10),
        lambda: pa.array([1, 2, 3] * 10, pa.timestamp("ns")),
        lambda: pa.array([1, 2, 3] * 10, pa.duration("s")),
        lambda: pa.array([1, 2, 3] * 10, pa.decimal128(20, 3)),
        lambda: pa.array(["a", "b", "c"] * 10).dictionary_encode(),
        lambda: pa.array([word(chance).encode("utf-8", "replace").decode() for _ in range(30)]),
        lambda: pa.array([(1, 2)] * 30, pa.list_(pa.int8(), 2)),
    ]
    return chance.choice(kinds)()


def hub(chance: Random, seeds: Path, folder: Path) -> None:
    """A parquet file of images as the hub has them, with a hostile column, or damaged."""
    table = make_hub(per_class=10).with_format("arrow")[:]
    if chance.random() < 0.5:
        name = chance.choice(["img", "label", "other"])
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, _column(chance))
    elif chance.random() < 0.5:
        cells = table["img"].to_pylist()
        for cell in chance.sample(cells, 3):
            cell["bytes"], cell["path"] = (
                in_bytes(chance, cell["bytes"]),
                chance.choice([None, "../../x", "/etc/passwd"]),
            )
        cells[0] = chance.choice(
            [
                None,
                {"bytes": None, "path": None},
                {"bytes": None, "path": "/etc/passwd"},
                {"bytes": b"", "path": ""},
                cells[1],
            ]
        )
        table = table.drop_columns(["img"]).append_column("img", pa.array(cells, table["img"].type))
    if chance.random() < 0.3:
        table = table.replace_schema_metadata(
            {"huggingface": in_bytes(chance, (table.schema.metadata or {b"huggingface": b"{}"})[b"huggingface"])}
        )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    (folder / "data.parquet").write_bytes(_damaged(chance, buffer.getvalue(), 0.4))


def take_hub(folder: Path) -> None:
    """Load it, and read some rows."""
    read_some(Huggingface(path=str(folder / "data.parquet"), size=8).load())


def image_folder(chance: Random, seeds: Path, folder: Path) -> None:
    """Folders of images, with hostile names, or damaged files."""
    root = folder / "images"
    names = [*CLASSES]
    if chance.random() < 0.3:
        names.append(word(chance)[:200].replace("/", "_").replace("\0", "_").replace("\ud800", "_"))
    names = [name for name in names if name not in ("", ".", "..")]
    kind = chance.choice(["png", "jpg", "bmp", "gif", "tiff", "webp", "ppm"])
    for index, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images(index, 6)):
            buffer = io.BytesIO()
            image.save(buffer, {"jpg": "jpeg"}.get(kind, kind))
            (root / name / f"{number}.{kind}").write_bytes(_damaged(chance, buffer.getvalue(), 0.04))
    place = root / chance.choice(CLASSES)
    match chance.randrange(8):
        case 0:
            (place / "0.png").write_bytes(
                png_of(chance.choice([1, 20_000, 60_000, 2**31 - 1]), chance.choice([1, 60_000]))
            )
        case 1:
            (place / "9.png").mkdir()
        case 2:
            (place / "9.png").symlink_to(chance.choice(["/dev/null", "nowhere", ".", "/etc/passwd"]))
        case 3:
            (root / "empty").mkdir()
        case 4:
            (place / "loop").symlink_to("..")
        case 5:
            (root / "train").mkdir()
        case _:
            pass


def take_folder(folder: Path) -> None:
    """Load it, and read all rows."""
    data = Folder(path=str(folder / "images"), size=8).load()
    for rows in (data.train, data.test):
        rows.batch(np.arange(len(rows)))


def mnist(chance: Random, seeds: Path, folder: Path) -> None:
    """The files of MNIST, a few of them damaged."""
    make_mnist(folder, per_class=3)
    for file in chance.sample(sorted((folder / "MNIST" / "raw").iterdir()), chance.choice([1, 1, 2])):
        file.write_bytes(in_bytes(chance, file.read_bytes(), 2))


def take_mnist(folder: Path) -> None:
    """Load it, and read some rows."""
    read_some(Torchvision(which="MNIST", root=str(folder), channels=1).load())


def png_of(width: int, height: int) -> bytes:
    """Return a PNG whose header tells of any size, with next to no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


def _damaged(chance: Random, data: bytes, share: float) -> bytes:
    return in_bytes(chance, data) if chance.random() < share else data
