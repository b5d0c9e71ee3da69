"""Columns: how the columns of a table become inputs, decided once, by the rows that a model is trained on."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int64

from expunge.errors import DataError, ModelError, expecting
from expunge.fingerprints import name_hash
from expunge.memory import check_fits

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SMALLER = "give fewer rows, or name columns in dataset.ignore"


@dataclass(frozen=True)
class Columns:
    """The columns of a table in the order of a network's inputs, those of numbers first."""

    numbers: dict[str, tuple[float, float]]
    """By name, what is taken off a column of numbers and what then divides it."""
    categories: dict[str, tuple[str, ...]]
    """By name, a hash of each value of any other column, in the order of its inputs. The values, which may be words of
    forgotten rows alone, are not kept."""

    @classmethod
    def of(cls, table: "DataFrame", categories: Collection[str], source: str) -> "Columns":
        """Return the columns of training rows: means and deviations by scikit-learn, values by pandas, sorted.

        Args:
            table: Columns of inputs alone.
            categories: Columns of numbers that stand for categories.
            source: The file, for messages.

        Raises:
            DataError: Numbers are too large to be standardised, or the inputs do not fit into memory.
        """
        from sklearn.preprocessing import StandardScaler

        numeric = [
            name for name in table.select_dtypes("number", exclude="timedelta").columns if name not in categories
        ]
        values = {name: table[name].factorize(sort=True)[1] for name in table.columns if name not in numeric}
        width = len(numeric) + sum(map(len, values.values()))
        largest = max(values, key=lambda name: len(values[name]), default=None)
        most = "" if largest is None else f"; column {largest!r} has {len(values[largest])} values"
        check_fits(4 * width * len(table), f"{width} columns of inputs{most}", SMALLER)
        numbers = {}
        if numeric:
            with np.errstate(over="ignore", invalid="ignore"):
                scaler = StandardScaler().fit(table[numeric].to_numpy(np.float64))
            pairs = zip(scaler.mean_.tolist(), scaler.scale_.tolist(), strict=True)
            numbers = dict(zip(numeric, pairs, strict=True))
        wild = [name for name, pair in numbers.items() if not np.isfinite(pair).all()]
        if wild:
            raise DataError(f"expected numbers that can be standardised in {source}, got larger in {wild[:3]}")
        return cls(numbers, {name: tuple(map(_hash, found)) for name, found in values.items()})

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Columns":
        """Return what a model's folder says.

        Raises:
            ModelError: It does not say columns.
        """
        with expecting("expected the columns of a table in the model's folder", ModelError):
            numbers = {name: (float(mean), float(scale)) for name, (mean, scale) in told["numbers"].items()}
            categories = {name: tuple(map(str, values)) for name, values in told["categories"].items()}
        if not np.isfinite(list(numbers.values())).all() or any(scale <= 0 for _, scale in numbers.values()):
            raise ModelError("expected finite means and deviations above 0 in the model's folder, got others")
        return cls(numbers, categories)

    def told(self) -> dict[str, Any]:
        """Return what a model's folder is to say, as JSON."""
        return asdict(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of the inputs."""
        return (*self.numbers, *self.categories)

    @property
    def width(self) -> int:
        """How many inputs they make."""
        return len(self.numbers) + sum(map(len, self.categories.values()))

    def inputs(self, table: "DataFrame", source: str, *, unknown: bool) -> Float32[np.ndarray, "rows columns"]:
        """Return rows as inputs.

        Args:
            table: Has all columns.
            source: The file, for messages.
            unknown: Whether a value that is none of a category's becomes all zeros, or is refused.

        Raises:
            DataError: A number is none, or too large to be standardised; a value is unknown; or the inputs do not fit
                into memory.
        """
        check_fits(4 * self.width * len(table), f"{self.width} columns of inputs", SMALLER)
        made = np.zeros((len(table), self.width), dtype=np.float32)
        for place, (name, (mean, scale)) in enumerate(self.numbers.items()):
            with expecting(f"expected numbers in {source}, column {name!r}", DataError):
                column = table[name].to_numpy(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                made[:, place] = (column - mean) / scale
            if not np.isfinite(made[:, place]).all():
                raise DataError(f"expected numbers that can be standardised in {source}, got larger in {[name]}")
        place = len(self.numbers)
        for name, values in self.categories.items():
            which = self._which(table[name], values)
            strange = np.flatnonzero(which < 0)
            if len(strange) and not unknown:
                raise DataError(
                    f"expected in column {name!r} of {source} the values that the model was trained on, got "
                    f"{table[name].iloc[strange[0]]!r} in row {table.index[strange[0]]}"
                )
            known = np.flatnonzero(which >= 0)
            made[known, place + which[known]] = 1
            place += len(values)
        return made

    @staticmethod
    def _which(column: "Series", values: tuple[str, ...]) -> Int64[np.ndarray, " rows"]:
        """Return the index of each row's value, -1 of one that is unknown."""
        places = {value: place for place, value in enumerate(values)}
        codes, found = column.factorize()
        each = np.array([places.get(_hash(value), -1) for value in found], dtype=np.int64)
        chosen: Int64[np.ndarray, " rows"] = each[codes]
        return chosen


def _hash(value: object) -> str:
    return name_hash(str(value))
