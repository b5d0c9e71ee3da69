"""NumPy's files: arrays that are mapped into memory where they lie there as they are, and never unpickled."""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy.lib import format as npy

from expunge.errors import DataError, expecting
from expunge.memory import check_fits

Array = Shaped[np.ndarray, "..."]
LOCAL_HEADER = 30
"""Bytes before the name of a member of a zip file (APPNOTE, section 4.3.7)."""


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays of an ``.npz`` file or of a folder of ``.npy`` files.

    Raises:
        DataError: There is no such file or folder, or it is no zip file.
    """
    if path.is_dir():
        return sorted(file.stem for file in path.glob("*.npy"))
    wanted = f"expected an .npz file or a folder of .npy files at {str(path)!r}"
    with expecting(wanted, DataError), zipfile.ZipFile(path) as archive:
        return sorted(name.removesuffix(".npy") for name in archive.namelist())


def open_array(path: Path, name: str) -> Array:
    """Return an array by its name, mapped into memory unless it is compressed.

    Raises:
        DataError: It is damaged, holds objects, or is compressed and does not fit into memory.
    """
    with expecting(f"expected an array {name!r} of plain numbers in {path}", DataError):
        if path.is_dir():
            found: Array = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            return found
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type == zipfile.ZIP_STORED:
                return _map(path, member)
            check_fits(member.file_size, f"{name} of {path}", "save it with numpy.savez, which does not compress")
            with archive.open(member) as file:
                unpacked: Array = npy.read_array(file, allow_pickle=False)
            return unpacked


def _map(path: Path, member: zipfile.ZipInfo) -> Array:
    """Return a member of a zip file that is stored as it is, mapped into memory."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER)
        skipped = sum(int.from_bytes(header[start : start + 2], "little") for start in (26, 28))  # its name, and extra
        file.seek(skipped, 1)
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("Python objects, which are pickled")
        mapped: Array = np.memmap(path, dtype, mode="r", offset=file.tell(), shape=shape, order="F" if fortran else "C")
        return mapped
