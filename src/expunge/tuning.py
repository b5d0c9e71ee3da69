"""Tuning: the same small budget of trials for any method, judged without a row that the method may not read.

1. A share of the retained rows is held back: no trial reads them. How many of them the new model gets right is what it
   `kept`.
2. What it `remembered` is how many rows of the forgotten classes it still gets right: the forgotten rows themselves, if
   the method may read them; otherwise inputs made up from the original until it takes them for those classes (see
   `expunge.synthesis`), so that nothing is read. No test row is ever looked at.
3. The score of a trial is the harmonic mean of `kept` and of what `remembered` lacks to 1.
4. The first trial has the settings that came. The others are drawn by Optuna's tree-structured Parzen estimator
   (https://optuna.readthedocs.io, Akiba et al., https://arxiv.org/abs/1907.10902). Of equal scores the earlier wins.

What is searched are a method's real-valued settings: rates, weights, thresholds, each within a factor of ten of what
came and within its own bounds. Numbers of steps, rows and passes are not, so that a tuned method costs what it did. Nor
is how networks are trained from scratch (``training``), nor a setting of zero or below.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import nn

from expunge.case import Method
from expunge.data import Split
from expunge.errors import DivergedError, RequestError, SettingsError
from expunge.forgetting import run_method
from expunge.rows import Rows, TakenRows, TensorRows
from expunge.runtime import Runtime
from expunge.settings import describe, from_mapping, to_mapping
from expunge.synthesis import synthesise
from expunge.training import predict

WIDTH = 10.0
"""How many times above and below what came a setting is searched."""
MOST = 2000
"""The most retained rows that are held back."""
MADE_UP = 50
"""Inputs made up for each forgotten class where its rows may not be read, by as many steps of Adam."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One choice of settings and what came of it."""

    settings: Mapping[str, float]
    """By their names as ``--set`` takes them."""
    kept: float | None = None
    """Share of the held-back retained rows that the new model gets right; None if there is no new model."""
    remembered: float | None = None
    """Share of the forgotten rows, or of what was made up for them, that it still gets right."""
    score: float = 0.0
    """Harmonic mean of `kept` and 1 - `remembered`; 0 if there is no new model."""
    seconds: float | None = None
    """What the method took."""
    failed: str | None = None
    """Why there is no new model: the method diverged, or refused these settings."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A method with the best settings of some trials."""

    method: dict[str, Any]
    """Name and settings."""
    best: int
    """Number of its trial, from 0, which had the settings that came."""
    judged_on: str
    """``forget`` or ``made up``: what `Trial.remembered` was measured on."""
    held_back: int
    """Retained rows that no trial read."""
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where a setting is searched, evenly in the logarithm of its distance from an end."""

    name: str
    """With dots for settings inside settings."""
    low: float
    high: float
    below: float | None
    """Distances count downwards from here; None if they count upwards from 0."""

    def value(self, distance: float) -> float:
        """Return the setting at a distance."""
        return distance if self.below is None else self.below - distance


def tune(
    method: Method,
    model: nn.Module,
    parts: Split,
    runtime: Runtime,
    build: Callable[[], nn.Module],
    *,
    trials: int = 20,
    held_back: float = 0.2,
) -> Tuning:
    """Return the best of some settings of a method for a request of classes.

    Args:
        method: With the settings to start from.
        model: The original; left as it is.
        parts: The data, split by the request. Test rows are not read.
        runtime: Where; streams ``tune/rows`` and ``tune/made_up``, and each trial has those of the method itself.
        build: Makes a network of the same architecture with fresh weights.
        trials: How many choices to try, the settings that came among them.
        held_back: Share of the retained rows that no trial reads; `MOST` rows at most.

    Raises:
        RequestError: The request is of single rows: how they are answered once forgotten is not known without rows that
            no model has seen.
        SettingsError: There is nothing to search, not one trial, or none that works.
        ExpungeError: What the method raises whatever its settings.
    """
    optuna = _optuna()
    ranges = list(search_space(method))
    _check(method, parts, ranges, trials)
    rest, validation = _hold_back(parts, held_back, runtime)
    judged = _forgotten(method, model, parts, runtime)

    def attempt(drawn: Mapping[str, float]) -> Trial:
        try:
            made = run_method(with_settings(method, drawn), model, rest, runtime, build)
        except (DivergedError, SettingsError) as error:
            return Trial(settings=drawn, failed=str(error))
        kept, remembered = (_right(made.model, rows, runtime) for rows in (validation, judged))
        score = harmonic(kept, 1 - remembered)
        seconds = made.bill.seconds["total"]
        return Trial(settings=drawn, kept=kept, remembered=remembered, score=score, seconds=seconds)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=runtime.seed))
    done = [_remembered(attempt, {}, runtime)]
    with runtime.stage("tune", trials - 1) as advance:
        for _ in range(trials - 1):
            asked = study.ask()
            drawn = {one.name: one.value(asked.suggest_float(one.name, one.low, one.high, log=True)) for one in ranges}
            done.append(_remembered(attempt, drawn, runtime))
            study.tell(asked, done[-1].score)
            advance(1)
    if all(trial.failed for trial in done):
        raise SettingsError(f"expected settings that work among {trials} trials, got none; the first: {done[0].failed}")
    best = max(range(trials), key=lambda number: done[number].score)
    return Tuning(
        method=describe(with_settings(method, done[best].settings)),
        best=best,
        judged_on="forget" if "forget" in method.reads else "made up",
        held_back=len(validation),
        trials=tuple(done),
    )


def _remembered(attempt: Callable[[Mapping[str, float]], Trial], drawn: Mapping[str, float], runtime: Runtime) -> Trial:
    """Return a trial, from the progress of an interrupted command if it is there."""
    if runtime.journal is None:
        return attempt(drawn)
    text = runtime.journal.remembered(lambda: json.dumps(asdict(attempt(drawn))), "trial", dict(drawn))
    return from_mapping(Trial, json.loads(text))


def search_space(method: object, inside: str = "") -> Iterator[Range]:
    """Yield where each real-valued setting of a method is searched; see the head of this file."""
    hints = get_type_hints(type(method), include_extras=True)
    for field in fields(method):  # type: ignore[arg-type]
        value, name = getattr(method, field.name), f"{inside}{field.name}"
        if is_dataclass(value) and field.name != "training":
            yield from search_space(value, f"{name}.")
        elif isinstance(value, float) and value > 0:
            yield _range(name, value, *_bounds(hints[field.name]))


def _range(name: str, value: float, low: float, high: float) -> Range:
    """Return the range of a setting: by its distance from its upper bound if it lies nearer to that than to 0."""
    if math.isfinite(high) and value > high / 2 and value < high:
        distance = high - value
        return Range(
            name=name, low=distance / WIDTH, high=min(distance * WIDTH, high - max(low, 0.0)) * _IN, below=high
        )
    return Range(name=name, low=max(value / WIDTH, low), high=min(value * WIDTH, high * _IN), below=None)


_IN = 1 - 1e-6
"""Keeps what is drawn off an open bound."""


def _bounds(hint: Any) -> tuple[float, float]:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    lows: list[Any] = [mark.gt if isinstance(mark, Gt) else mark.ge for mark in marks if isinstance(mark, Gt | Ge)]
    highs: list[Any] = [mark.lt if isinstance(mark, Lt) else mark.le for mark in marks if isinstance(mark, Lt | Le)]
    return float(max(lows, default=0.0)), float(min(highs, default=math.inf))


def with_settings(method: Method, values: Mapping[str, float]) -> Method:
    """Return a method with some settings replaced, by their names with dots."""
    told = to_mapping(method)
    for name, value in values.items():
        *path, last = name.split(".")
        inner = told
        for key in path:
            inner = inner[key]
        inner[last] = value
    return from_mapping(type(method), told)


def _optuna() -> Any:
    """Return Optuna, which takes half a second to import and is there for this alone.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise SettingsError("expected Optuna for tuning, got none: pip install 'expunge[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _check(method: Method, parts: Split, ranges: list[Range], trials: int) -> None:
    if parts.request.rows:
        raise RequestError(
            "expected classes to forget, got single rows: how these are answered once forgotten is not known "
            "without rows that no model has seen"
        )
    if trials < 1:
        raise SettingsError(f"expected 1 or more trials, got {trials}")
    if not ranges and trials > 1:
        raise SettingsError(
            f"expected a method with settings to search, got {describe(method)['name']}, which has none"
        )


def _hold_back(parts: Split, share: float, runtime: Runtime) -> tuple[Split, Rows]:
    """Return the split without some of its retained rows, and these."""
    retain = parts["retain"]
    order = torch.randperm(len(retain), generator=runtime.generator("tune/rows")).numpy()
    count = min(MOST, round(share * len(retain)))
    if not 0 < count < len(retain):
        raise SettingsError(f"expected some retained rows to hold back, but not all {len(retain)}, got {count}")
    rest = TakenRows(retain, np.sort(order[count:]))
    return replace(parts, parts={**parts.parts, "retain": rest}), TakenRows(retain, np.sort(order[:count]))


def _forgotten(method: Method, model: nn.Module, parts: Split, runtime: Runtime) -> Rows:
    """Return what stands for the forgotten rows: themselves if the method may read them, else what is made up."""
    if "forget" in method.reads:
        return parts["forget"]
    classes = torch.tensor([int(index) for index in parts.request.classes])
    labels = classes.repeat_interleave(MADE_UP)
    here = replace(runtime.fresh(), journal=None)
    start = torch.randn(len(labels), *parts.input_size, generator=here.generator("tune/made_up"))
    images = synthesise(model, start, labels, here, steps=MADE_UP, lr=0.1, statistics=1.0)
    return TensorRows(images, labels)


def _right(model: nn.Module, rows: Rows, runtime: Runtime) -> float:
    logits, labels = predict(model, rows, runtime)
    return (logits.argmax(1) == labels).double().mean().item()


def harmonic(one: float, other: float) -> float:
    """Return the harmonic mean of two shares."""
    return 2 * one * other / (one + other) if one + other else 0.0
