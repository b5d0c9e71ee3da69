"""arrays: NumPy arrays of images or flat features, from an ``.npz`` file or a folder of ``.npy`` files.

`path` holds ``x_train`` and ``y_train``, and ``x_test`` and ``y_test``, without which one row in five is held out for
testing. ``.npy`` files and the members of an uncompressed ``.npz`` are mapped into memory, so that rows are read when
asked for; a compressed member is unpacked if it fits. No pickle is read.

1. Inputs of two dimensions are flat features (rows, features), of three grey images (rows, height, width).
2. Of four dimensions, the channels are the last if they are 1 or 3 and the second are not, and the second if they are
   1 or 3 and the last are not; otherwise `layout` must say it.
3. Bytes are divided by 255, other numbers taken as they are; then `mean` is taken off and `std` divides.
4. Labels are class indices from 0, or words, whose sorted values are then the class names.

See https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt
from jaxtyping import Float, Int64
from torch import Tensor

from expunge.data import Data, Scaling, numbered
from expunge.datasets._halves import hold_out
from expunge.datasets._images import per_channel
from expunge.datasets._npy import Array, array_names, open_array
from expunge.errors import DataError
from expunge.rows import Indices, Rows, TakenRows
from expunge.settings import settings

Labels = Int64[np.ndarray, "_"]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel; empty if inputs are taken as they are."""
CHANNELS = (1, 3)


@settings
class Arrays:
    """NumPy arrays: images as bytes or numbers, or flat features."""

    path: str = ""
    """An ``.npz`` file, or a folder of ``.npy`` files."""
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    """Where the channels of images of four dimensions are; auto goes by the rule above."""
    mean: tuple[float, ...] | None = None
    """Taken off each channel; None is 0.5 of bytes (as numbers from 0 to 1), and nothing of other numbers."""
    std: tuple[Annotated[float, Gt(0)], ...] | None = None
    """Divides each channel after that; None is 0.25 of bytes, and 1 of other numbers."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, in the order of their indices; without them their indices, or the words."""

    def adapted(
        self, input_size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], scaling: Scaling
    ) -> "Arrays":
        """Return the same rows normalised as a model's inputs were; their size stays what it is."""
        return replace(self, mean=mean, std=std)

    def load(self) -> Data:
        """Return the rows, in their order.

        Raises:
            DataError: A file or an array is missing or damaged, has not the shape or type said above, or must be
                unpacked and does not fit into memory.
        """
        path = Path(self.path).expanduser()
        found = array_names(path) if self.path else []
        tested = ("x_test", "y_test") if {"x_test", "y_test"} & set(found) else ()
        for name in ("x_train", "y_train", *tested):
            if name not in found:
                known = ", ".join(found) or "none"
                raise DataError(f"expected an array {name!r} in {self.path!r}, got {known}: look at dataset.path")
        labels, names = _labels(open_array(path, "y_train"), "y_train", None)
        inputs = self._channels_first(open_array(path, "x_train"), "x_train")
        normalisation = self._normalisation(inputs)
        train: Rows = ArrayRows(inputs, labels, normalisation)
        if tested:
            others = self._channels_first(open_array(path, "x_test"), "x_test")
            if (others.shape[1:], others.dtype) != (inputs.shape[1:], inputs.dtype):
                raise DataError(
                    f"expected x_test of {inputs.dtype} {inputs.shape[1:]} a row like x_train, "
                    f"got {others.dtype} {others.shape[1:]}"
                )
            test: Rows = ArrayRows(others, _labels(open_array(path, "y_test"), "y_test", names)[0], normalisation)
        else:
            train, test = (TakenRows(train, half) for half in hold_out(labels, self.label_names or names, self.path))
        return Data(
            train=train,
            test=test,
            label_names=self.label_names or names,
            input_size=inputs.shape[1:],
            mean=normalisation[0],
            std=normalisation[1],
        )

    def _channels_first(self, inputs: Array, name: str) -> Array:
        """Return a view of inputs as (rows, features) or (rows, channels, height, width).

        Raises:
            DataError: They are of another shape, or no numbers.
        """
        if inputs.dtype.kind not in "iuf" or inputs.ndim not in (2, 3, 4):
            raise DataError(f"expected numbers (rows, ...) of 2, 3 or 4 dimensions in {name}, got {_say(inputs)}")
        if inputs.ndim == 2:
            return inputs
        if inputs.ndim == 3:
            return inputs[:, None]
        layout = self.layout
        if layout == "auto":
            last, second = inputs.shape[3] in CHANNELS, inputs.shape[1] in CHANNELS
            if last == second:
                raise DataError(
                    f"expected 1 or 3 channels last or second in {name}, got {_say(inputs)}: give "
                    "dataset.layout=NHWC or NCHW"
                )
            layout = "NHWC" if last else "NCHW"
        return np.moveaxis(inputs, 3, 1) if layout == "NHWC" else inputs

    def _normalisation(self, inputs: Array) -> Normalisation:
        """Return mean and standard deviation per channel, or per flat row as one channel."""
        channels = inputs.shape[1] if inputs.ndim == 4 else 1
        own = ((0.5,), (0.25,)) if inputs.dtype == np.uint8 else ((0.0,), (1.0,))
        if self.mean is None and self.std is None and inputs.dtype != np.uint8:
            return (), ()
        mean, std = (given or default for given, default in zip((self.mean, self.std), own, strict=True))
        return per_channel(mean, channels), per_channel(std, channels)


class ArrayRows:
    """Rows of an array, read and normalised when asked for.

    Args:
        inputs: (rows, features) or (rows, channels, height, width), in memory or mapped into it.
        labels: The class index of every row.
        normalisation: What to take off each channel, of bytes as numbers from 0 to 1, and what then divides it.

    Raises:
        DataError: There are not as many labels as inputs.
    """

    def __init__(self, inputs: Array, labels: Labels, normalisation: Normalisation) -> None:
        if len(inputs) != len(labels):
            raise DataError(f"expected as many labels as inputs, got {len(labels)} for {len(inputs)}")
        self._inputs = inputs
        self._labels = labels
        shape = (-1, *[1] * (inputs.ndim - 2))
        self._normalisation = [torch.tensor(values).view(shape) for values in normalisation if values]

    @property
    def labels(self) -> Int64[np.ndarray, " rows"]:
        """The class index of every row."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Indices) -> tuple[Float[Tensor, "rows ..."], Int64[Tensor, " rows"]]:
        """Return the inputs and labels of some rows, in the order asked for."""
        chosen = self._inputs[indices]
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which training tells of
            inputs = torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float32))
        if chosen.dtype == np.uint8:
            inputs = inputs / 255
        if self._normalisation:
            mean, std = self._normalisation
            inputs = (inputs - mean) / std
        return inputs, torch.from_numpy(self._labels[indices])


def _labels(values: Array, name: str, names: tuple[str, ...] | None) -> tuple[Labels, tuple[str, ...]]:
    """Return the class index of every row and the class names; words must be among the names if these are given."""
    flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if flat.ndim != 1 or flat.dtype.kind not in "iuU" or not len(flat):
        raise DataError(f"expected class indices or words (rows,) in {name}, got {_say(values)}")
    if flat.dtype.kind != "U":
        labels = flat.astype(np.int64)
        return labels, names or numbered(labels)
    known = np.unique(flat) if names is None else np.array(names)
    labels = np.searchsorted(known, flat).astype(np.int64)
    strange = known[np.minimum(labels, len(known) - 1)] != flat
    if strange.any():
        raise DataError(f"expected the words of y_train in {name}, got {str(flat[strange][0])!r}")
    return labels, tuple(str(word) for word in known)


def _say(values: Array) -> str:
    return f"{values.dtype} {values.shape}"
