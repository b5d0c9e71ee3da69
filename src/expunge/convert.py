"""Convert: a file of weights becomes a model folder. The only place that may read a pickle, and only if it is told to.

A pickle is a program. PyTorch's loader for weights alone runs none of it: it knows tensors and plain containers, and
refuses anything else. There is no other way to read one here.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.checkpoint import save_model
from expunge.datasets import Dataset
from expunge.errors import ModelError
from expunge.files import check_free, new_folder
from expunge.hugging_face import bare
from expunge.model_files import how, load_weights, read_weights
from expunge.network import Network
from expunge.precision import HALVES, in_precisions

SAFE = ".safetensors"
ZIP = b"PK"
"""How a file begins that ``torch.save`` wrote in its present format, the one that can be mapped into memory."""
PICKLED = (ZIP, b"\x80")
"""How all that it writes begin: a zip, or a pickle in binary."""
INSIDE = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the weights in what they save."""


def convert_file(
    file: Path, network: Network, dataset: Dataset, out: Path, *, allow_pickle: bool, overwrite: bool
) -> None:
    """Write a model folder of a network with the weights in a file; what is in half precision there stays so.

    Args:
        file: ``.safetensors``, or a pickle that ``torch.save`` wrote of a ``state_dict``.
        network: What the weights are of.
        dataset: Gives classes and inputs.
        out: The folder to make.
        allow_pickle: Whether `file` may be a pickle.
        overwrite: Replace what is at `out`.

    Raises:
        ModelError: The file is missing or damaged, a pickle that was not allowed or holds more than weights, or of
            another network.
        ExpungeError: Something else that the caller can put right; nothing is written.
    """
    check_free(out, overwrite=overwrite)
    if not file.is_file():
        raise ModelError(f"expected a file of weights, got {file}: it is not there, or no file")
    if file.suffix != SAFE and not _begins(file, *PICKLED):
        raise ModelError(
            f"expected weights, as {SAFE} or as torch.save writes them, got {file}, a file of another kind"
        )
    weights = read_weights(file) if file.suffix == SAFE else _read_pickle(file, allowed=allow_pickle)
    data = dataset.load()
    model = network.build(data)
    load_weights(bare(model), weights, file)
    in_precisions(bare(model), {name: value.dtype for name, value in weights.items() if value.dtype in HALVES})
    with new_folder(out, overwrite=overwrite) as folder:
        save_model(model, folder, data, {})


def _read_pickle(file: Path, *, allowed: bool) -> dict[str, Tensor]:
    if not allowed:
        raise ModelError(
            f"expected {SAFE}, got {file}, a pickle, which can run code: save it with safetensors.torch.save_file, or "
            f"let its tensors alone be read with `{how(file)}`"
        )
    try:
        found: Any = torch.load(file, weights_only=True, map_location="cpu", mmap=_begins(file, ZIP))
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, TypeError) as error:
        raise ModelError(
            f"expected weights alone (a state_dict) in {file}, got a pickle of something else, of which nothing was "
            f"run: {_first_line(error)}"
        ) from error
    return _weights_in(found, file)


def _begins(file: Path, *starts: bytes) -> bool:
    """Return whether a file begins with one of these bytes."""
    with file.open("rb") as opened:
        return opened.read(2).startswith(starts)


def _weights_in(found: Any, file: Path) -> dict[str, Tensor]:
    inner = next((found[key] for key in INSIDE if isinstance(found.get(key), Mapping)), found) if _is(found) else found
    if not _is(inner) or not inner or not all(isinstance(value, Tensor) for value in inner.values()):
        raise ModelError(f"expected named tensors (a state_dict) in {file}, got {type(inner).__name__}")
    parallel = all(str(name).startswith("module.") for name in inner)  # DataParallel puts its name before all others
    return {str(name).removeprefix("module." if parallel else ""): value for name, value in inner.items()}


def _is(found: Any) -> bool:
    return isinstance(found, Mapping)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
