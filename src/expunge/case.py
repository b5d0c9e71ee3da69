"""Case: the models under audit with their evidence; and what methods and audits are."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from expunge.access import Access
from expunge.bootstrap import Values, auc_interval, mean_interval
from expunge.data import PARTS, Part, Split, choose
from expunge.errors import ModelError
from expunge.finding import Finding, Ideal, Interval, Meaning, Series, finding
from expunge.memory import check_fits
from expunge.outputs import DROPPED, AmongAll, count_outputs, drop_outputs
from expunge.precision import in_single
from expunge.rows import Indices
from expunge.runtime import Runtime
from expunge.taps import HEAD, find_taps
from expunge.training import observe

FEATURE_ROWS = 5000
"""The most rows of each part that features are kept of: as many of each class, drawn once for all models."""
Features = Mapping[Part, Float[Tensor, "kept _"]]
T = TypeVar("T")


@runtime_checkable
class Method(Protocol):
    """A way to forget: a frozen dataclass of settings that is called with a model."""

    reads: ClassVar[frozenset[Part]]

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a new model that has forgotten the request; leave `model` as it was."""


@runtime_checkable
class Audit(Protocol):
    """A question about a case: a frozen dataclass of settings that is called with it."""

    level: ClassVar[int | None]

    def __call__(self, case: "Case") -> list[Finding]:
        """Return the findings; change no model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What one model says of every row of every part, gathered once and shared by all audits.

    Each is equal to itself alone, and can be the key of a dictionary. Cases with one split, original and runtime may
    share it, and with it what audits have found out about the model.
    """

    model: nn.Module
    """In single precision, where it was in half."""
    logits: Mapping[Part, Float[Tensor, "rows classes"]]
    """On the CPU, in the order of the rows; an empty part has no rows."""
    labels: Mapping[Part, Int64[Tensor, " rows"]]
    features: Mapping[str, Features] = field(default_factory=dict)
    """By depth, from the input to ``head``, what the head reads; of at most `FEATURE_ROWS` rows of every part."""
    feature_labels: Mapping[Part, Int64[Tensor, " kept"]] = field(default_factory=dict)
    """Labels of the rows that there are features of."""
    blind: str | None = None
    """Why there are no features."""
    _found: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def probabilities(self, part: Part) -> Float[Tensor, "rows classes"]:
        """Return the softmax of a part's logits."""
        return self.logits[part].softmax(dim=1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything an audit may look at."""

    split: Split
    original: Evidence
    unlearned: Evidence
    retrained: tuple[Evidence, ...]
    runtime: Runtime
    unlearned_population: tuple[Evidence, ...] = ()
    """Further unlearned models, each from an original of its own; empty unless the experiment made some."""

    def measure(
        self,
        name: str,
        value: Callable[[Evidence], float | None],
        *,
        level: int | None,
        meaning: str,
        better: Ideal = "retrained",
        higher: Meaning | None = None,
        note: str | None = None,
        series: Series | None = None,
        paired: bool = False,
        limits: Interval = (-math.inf, math.inf),
        step: float = 0.0,
        rows: Callable[[Evidence], Values] | None = None,
        ranked: Callable[[Evidence], tuple[Values, Values]] | None = None,
    ) -> Finding:
        """Return the finding of a number that each model has by itself; the arguments are those of `finding`.

        `rows` gives the numbers of the rows whose mean `value` is, or `ranked` those of the two groups that it ranks
        apart; either gives the finding its interval over rows. Stream: ``bootstrap/{name}``.
        """
        seed = self.runtime.generator(f"bootstrap/{name}").initial_seed()
        interval = mean_interval(rows(self.unlearned), seed) if rows else None
        interval = auc_interval(*ranked(self.unlearned), seed) if ranked else interval
        return finding(
            name,
            original=value(self.original),
            unlearned=value(self.unlearned),
            retrained=[value(evidence) for evidence in self.retrained],
            level=level,
            meaning=meaning,
            better=better,
            higher=higher,
            note=note,
            series=series,
            paired=paired,
            limits=limits,
            step=step,
            interval=interval,
        )

    def each(self, key: Hashable, compute: Callable[[Evidence], T]) -> dict[Evidence, T]:
        """Return what an audit finds out about every model by itself, computed once per model.

        Args:
            key: The audit, with whatever else tells this work from its other work.
            compute: The work; it may look at the model, the split, the original and the runtime's streams, and at
                nothing else of the case.
        """
        for evidence in self.models:
            if key not in evidence._found:
                evidence._found[key] = compute(evidence)
        return {evidence: evidence._found[key] for evidence in self.models}

    def row(self, part: Part) -> float:
        """Return the step of a share of the rows of a part: one row; of a part without rows, all of it."""
        return 1 / max(1, len(self.original.labels[part]))

    @property
    def models(self) -> tuple[Evidence, ...]:
        """The evidence of all models: original, unlearned, then the retrained ones."""
        return self.original, self.unlearned, *self.retrained

    def missing(self, part: Part) -> str | None:
        """Return a note that the part has no rows, or None if it has some."""
        return None if len(self.original.labels[part]) else f"no rows in {part}"

    def closed(self) -> str | None:
        """Return a note that a model has no output of a forgotten class, or None if all have one."""
        return DROPPED if any(isinstance(evidence.model, AmongAll) for evidence in self.models) else None

    @property
    def depths(self) -> tuple[str, ...]:
        """Return the depths that all models have features of, the input of the head last."""
        return tuple(name for name in self.original.features if all(name in one.features for one in self.models))

    def unseen(self, *parts: Part) -> str | None:
        """Return a note that there are no features of what the head reads, or no rows in a part; else None."""
        if HEAD not in self.depths:
            return "no features: " + next((one.blind for one in self.models if one.blind), "a model gave none")
        return next((missing for part in parts if (missing := self.missing(part))), None)

    def beside_retrained(
        self, distance: Callable[[Evidence, Sequence[Evidence]], float]
    ) -> Callable[[Evidence], float | None]:
        """Return the function that measures a model against retrained ones.

        A retrained model is measured against all the others. Any other model is measured against each choice of all
        retrained models but one, and gets the mean, so that it is held against as many models as they are. None if
        nothing is left to measure against. A band of such numbers takes three references: two are equally far from
        each other.
        """

        def value(evidence: Evidence) -> float | None:
            others = [[other for other in self.retrained if other is not left_out] for left_out in self.retrained]
            if evidence in self.retrained:
                others = [others[self.retrained.index(evidence)]]
            return fmean(distance(evidence, models) for models in others) if others and others[0] else None

        return value

    def series(self, x: Sequence[str], axis: str, values: Callable[[Evidence], Sequence[float]]) -> Series:
        """Return the series of a row of numbers that each model has by itself."""
        return Series(
            x=tuple(x),
            axis=axis,
            original=_floats(values(self.original)),
            unlearned=_floats(values(self.unlearned)),
            retrained=tuple(_floats(values(evidence)) for evidence in self.retrained),
        )


def open_case(
    split: Split,
    original: nn.Module,
    unlearned: nn.Module,
    retrained: Sequence[nn.Module],
    runtime: Runtime,
    *,
    population: Sequence[nn.Module] = (),
) -> Case:
    """Gather the evidence of all models.

    A model with one logit per retained class has no outputs of the forgotten ones; see `expunge.outputs`. If the
    unlearned model is such a one, those of all retrained and further models are dropped too: like beside like.

    Raises:
        ModelError: A model gives logits that are not finite, or neither one per class nor one per retained class.
        DataError: The logits of all models do not fit into memory.
    """
    models = [("original", original), ("unlearned", unlearned)]
    models += [(f"retrained {number}", model) for number, model in enumerate(retrained, start=1)]
    models += [(f"unlearned {number}", model) for number, model in enumerate(population, start=1)]
    rows, classes = sum(len(split[part]) for part in PARTS), len(split.label_names)
    needed = (len(models) + 1) * rows * (4 * classes + 8)  # one more while a model's batches are put together
    check_fits(needed, f"{classes} logits of {rows} rows by {len(models)} models", "audit with fewer rows or models")
    models = _alike(models, split)
    gathered = []
    with runtime.stage("evidence", len(models)) as advance:
        for name, model in models:
            gathered.append(gather(name, model, split, runtime))
            advance(1)
    return Case(
        split=split,
        original=gathered[0],
        unlearned=gathered[1],
        retrained=tuple(gathered[2 : 2 + len(retrained)]),
        runtime=runtime,
        unlearned_population=tuple(gathered[2 + len(retrained) :]),
    )


def _alike(models: list[tuple[str, nn.Module]], split: Split) -> list[tuple[str, nn.Module]]:
    """Return models with a logit for every class; those after the first as the second has them."""
    first, _ = split["retain"].batch(np.zeros(1, dtype=np.int64))
    forgotten, classes = tuple(int(index) for index in split.request.classes), len(split.label_names)
    dropped = bool(forgotten) and count_outputs(models[1][1], first) == classes - len(forgotten)
    if not dropped:
        return models
    alike = models[:1]
    for name, model in models[1:]:
        has_all = count_outputs(model, first) == classes
        outputs = drop_outputs(model, forgotten, classes) if has_all else model
        alike.append((name, AmongAll(outputs, forgotten, classes).train(model.training)))
    return alike


def gather(name: str, model: nn.Module, split: Split, runtime: Runtime) -> Evidence:
    """Return the evidence of one model, from one pass over every part.

    A model in half precision answers as it is; what audits then do with it, such as to train it, is done with a copy in
    single precision, as anyone who holds it would.

    Raises:
        ModelError: It gives logits that are not finite, or not one per class; `name` says which model it is.
    """
    classes = len(split.label_names)
    logits: dict[Part, Tensor] = {}
    labels: dict[Part, Tensor] = {}
    kept: dict[Part, Indices] = {}
    features: dict[str, dict[Part, Tensor]] = {}
    try:
        taps, blind = find_taps(model, classes), None
    except ModelError as error:
        taps, blind = (), str(error)
    for part in PARTS:
        kept[part] = _keep(split, part, runtime)
        if len(split[part]) == 0:
            logits[part], labels[part] = torch.zeros(0, classes), torch.zeros(0, dtype=torch.int64)
            continue
        observed = observe(model, split[part], runtime, taps, kept[part])
        logits[part], labels[part] = observed.logits, observed.labels
        for tap, values in observed.features.items():
            features.setdefault(tap, {})[part] = values
        if logits[part].ndim != 2 or logits[part].shape[1] != classes:
            shape = tuple(logits[part].shape)
            raise ModelError(f"expected logits (rows, {classes}) of the {name} model, got {shape}")
        given = logits[part][:, model.kept] if isinstance(model, AmongAll) else logits[part]
        if not all(values.isfinite().all() for values in (given, *observed.features.values())):
            raise ModelError(f"expected finite logits of the {name} model on {part}, got NaN or infinity")
    filled = [part for part in PARTS if len(split[part])]
    return Evidence(
        model=in_single(model),
        logits=logits,
        labels=labels,
        features={
            tap: {part: found[part] if part in filled else next(iter(found.values()))[:0] for part in PARTS}
            for tap, found in features.items()
            if all(part in found for part in filled)
        },
        feature_labels={part: labels[part][torch.from_numpy(kept[part])] for part in PARTS},
        blind=blind,
    )


def _keep(split: Split, part: Part, runtime: Runtime) -> Indices:
    labels = split[part].labels
    if len(labels) <= FEATURE_ROWS:
        return np.arange(len(labels))
    return choose(labels, max(1, FEATURE_ROWS // len(np.unique(labels))), runtime.generator(f"evidence/{part}"))


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
