"""Data sets, one file each: the file's name is its command-line name. What a data set is stands here."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from expunge.data import Data, Scaling


@runtime_checkable
class Dataset(Protocol):
    """Where rows come from: a frozen dataclass of settings."""

    def load(self) -> Data:
        """Return the data."""


@runtime_checkable
class Adaptable(Protocol):
    """A data set whose inputs can be brought to the shape that a model takes."""

    def adapted(
        self, input_size: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], scaling: Scaling
    ) -> Dataset:
        """Return the data set with inputs of this shape, scaled so and normalised by these per channel.

        Raises:
            DataError: Its inputs cannot have that shape.
        """


@runtime_checkable
class Encoded(Protocol):
    """A data set whose training rows decide how rows become inputs, as the means of columns do."""

    def load_as(self, encoding: Mapping[str, Any]) -> Data:
        """Return the data with inputs made as those were that a model was trained on.

        Args:
            encoding: `Data.encoding` of those.

        Raises:
            DataError: The rows cannot be made into such inputs.
        """
