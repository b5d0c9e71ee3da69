"""Model files: where a model's folder is, and how its JSON and safetensors are read: measured before they take memory.

A folder may come from a stranger. Its configuration can name no code, no file and no address; the weights' header says
how large every tensor is, and a network that is larger is never built.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from expunge.errors import ModelError

WEIGHTS = "model.safetensors"
STATISTICS = "statistics.safetensors"
"""Beside the weights: what a method has kept for the model's next request; see `expunge.access`."""
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
LARGEST_CONFIG = 16 * 2**20
"""Bytes that a configuration may have."""
LARGEST_NUMBER = 2**16
"""What a number in a configuration may be, and more only where a tensor of the weights is as long."""
LARGEST_BUFFERS = 2**30
"""Bytes of buffers that a network may have beside those in the weights file."""
LOADING = frozenset(signature(timm.create_model).parameters) - {"kwargs"} | {"weights", "weights_backbone", "auto_map"}
"""Arguments that say where weights or code come from: for users, never for a folder."""
Shapes = Mapping[str, tuple[int, ...]]


def find_folder(place: str) -> Path:
    """Return the folder of a model, from the Hugging Face hub if it is there.

    Args:
        place: A path; ``local-dir:PATH``; ``hf-hub:USER/MODEL`` or ``hf-hub:USER/MODEL@REVISION``; or
            ``transformers:`` with a path, or what follows ``hf-hub:``.

    Raises:
        ModelError: It is a file and no folder, or the hub does not give it.
    """
    source, _, rest = place.partition(":")
    if source == "hf-hub" or (source == "transformers" and not Path(rest).is_dir()):
        return _download(rest)
    path = Path(rest if source in ("local-dir", "transformers") else place)
    if path.is_file():
        raise ModelError(f"expected a model folder, got the file {path}: make a folder of it with `{how(path)}`")
    return path


def how(path: Path) -> str:
    """Return the command that makes a model folder of a file of weights."""
    allow = " --allow-pickle" if path.suffix != ".safetensors" else ""
    return f"expunge convert {path}{allow} --network NAME --data DATA --out DIR"


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    name, _, revision = repository.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS, PROCESSOR]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"expected a model of the Hugging Face hub, got {repository!r}: {error}") from error


def check_whole(path: Path) -> None:
    """Refuse a folder without configuration or weights.

    Raises:
        ModelError: What is missing; where there is a pickle in its place, what to do.
    """
    for file in (CONFIG, WEIGHTS):
        if not (path / file).is_file():
            pickles = sorted(other for other in path.glob("*") if other.suffix in PICKLES)
            hint = f", but a pickle, which can run code: `{how(pickles[0])}`" if pickles else ""
            raise ModelError(f"expected a model folder with {CONFIG} and {WEIGHTS}, got {path} without {file}{hint}")


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ModelError: The file is too large, or holds no object.
    """
    if file.stat().st_size > LARGEST_CONFIG:
        raise ModelError(f"expected at most {LARGEST_CONFIG} bytes in {file}, got {file.stat().st_size}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"expected a JSON object in {file}, got a damaged one: {error!r}") from error
    if not isinstance(found, dict):
        raise ModelError(f"expected a JSON object in {file}, got a damaged one: {type(found).__name__}")
    return found


def read_shapes(file: Path) -> Shapes:
    """Return the shape of every tensor of a safetensors file from its header; no tensor is read.

    Raises:
        ModelError: The file is damaged: its header and its length are not those of one another.
    """
    return {name: shape for name, (shape, _) in _header(file).items()}


def read_halves(file: Path) -> dict[str, torch.dtype]:
    """Return the tensors of a safetensors file that are in half precision, from its header; no tensor is read.

    Raises:
        ModelError: The file is damaged.
    """
    known = {"BF16": torch.bfloat16, "F16": torch.float16}
    return {name: known[kind] for name, (_, kind) in _header(file).items() if kind in known}


def _header(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and kind of every tensor."""
    try:
        with safe_open(file, framework="pt") as tensors:
            found = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            return {name: (tuple(tensor.get_shape()), tensor.get_dtype()) for name, tensor in found.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"expected a whole {file.name} in {file.parent}, got a damaged one: {error}") from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        ModelError: The file is damaged.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"expected a whole {file.name} in {file.parent}, got a damaged one: {error}") from error


def check_args(args: Mapping[str, Any], shapes: Shapes, source: Path) -> None:
    """Refuse arguments of a folder that say where to load from, or that no network of these weights can have.

    Raises:
        ModelError: Which argument.
    """
    longest = max([LARGEST_NUMBER, *(size for shape in shapes.values() for size in shape)])
    for key, value in _each(args):
        if key in LOADING:
            raise ModelError(f"expected arguments of a network in {source}, got {key!r}, which loads something else")
        if isinstance(value, int) and abs(value) > longest:
            raise ModelError(f"expected {key} of at most {longest}, for the weights in {source}, got {value}")


def _each(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    match value:
        case Mapping():
            for name, inner in value.items():
                yield name, None
                yield from _each(inner, name)
        case list() | tuple():
            for inner in value:
                yield from _each(inner, key)
        case _:
            yield key, value


def check_fits(build: Callable[[], nn.Module], shapes: Shapes, source: Path, *, named_alike: bool = True) -> None:
    """Build a network without memory and compare it with a weights file.

    The few networks that compute with values while they are built cannot be built so; of them only the arguments are
    known to be sound (`check_args`).

    Args:
        build: Makes the network.
        shapes: Of the tensors in the file.
        source: For messages.
        named_alike: Whether tensors have the names of the network's; otherwise only their number of elements counts.

    Raises:
        ModelError: A tensor is missing, left over or of another shape, or the network needs more memory.
    """
    try:
        with torch.device("meta"), _at_most(8 * len(shapes) + 1000, source):
            model = build()
    except NotImplementedError:
        return
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if named_alike:
        check_shapes(wanted, shapes, source)
    came, needed = (sum(map(_elements, every.values())) for every in (shapes, wanted))
    if needed > came + LARGEST_NUMBER:
        raise ModelError(f"expected {needed} numbers in the weights of {source}, as its network has, got {came}")
    beside = sum(buffer.nbytes for buffer in model.buffers())
    if beside > 8 * came + LARGEST_BUFFERS:
        raise ModelError(f"expected a network of the size of its weights in {source}, got buffers of {beside} bytes")


def check_shapes(wanted: Shapes, came: Shapes, source: Path) -> None:
    """Refuse weights that are not those of a network, all of them and no others.

    Raises:
        ModelError: The first name, in their order, whose shape differs, and how many more do.
    """
    differing = sorted(name for name in wanted.keys() | came.keys() if wanted.get(name) != came.get(name))
    if not differing:
        return
    name = differing[0]
    if name not in wanted:
        told = f"expected the weights of this network in {source}, got {name!r}, which it does not have"
    elif name not in came:
        told = f"expected the weights of this network in {source}, got none for {name!r}"
    else:
        told = f"expected weights of shape {wanted[name]} for {name!r} in {source}, got {came[name]}"
    more = f" and {len(differing) - 1} more that do not fit" if len(differing) > 1 else ""
    raise ModelError(f"{told}{more}: are they of another network?")


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Put weights into a model, all of them and no others.

    Raises:
        ModelError: A name or shape does not fit, or a weight is not finite.
    """
    shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in (model.state_dict(), weights)]
    check_shapes(shapes[0], shapes[1], source)
    check_finite(weights, source)
    model.load_state_dict(weights)


def check_finite(weights: Mapping[str, Tensor], source: Path) -> None:
    """Refuse weights that are not finite.

    Raises:
        ModelError: Which.
    """
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ModelError(f"expected finite weights, got NaN or infinity in {name!r} of {source}")


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


@contextmanager
def _at_most(count: int, source: Path) -> Iterator[None]:
    """Stop a network that registers more weights than this while it is built: its depth is no tensor's size."""
    registered = 0

    def note(module: nn.Module, name: str, value: nn.Parameter) -> None:
        nonlocal registered
        registered += 1
        if registered > count:
            raise ModelError(f"expected a network of the size of its weights in {source}, got one of more layers")

    handle = register_module_parameter_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()
