"""Dry runs: what each command would read, write and take, found out without writing anything.

Everything that can be wrong is checked as the command itself checks it. What is trained is rehearsed (see
`expunge.rehearsal`); models of one recipe are rehearsed once, and counted as often as the cache has them not. What
audits do beyond gathering the answers of all models is not foreseen: each works in its own way.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from expunge.auditing import AuditPlan
from expunge.cache import Cache
from expunge.case import Method
from expunge.corruption import make_task
from expunge.cost import peak_memory_bytes
from expunge.data import PARTS, Split
from expunge.datasets import Dataset
from expunge.experiment import Experiment, recipe_for, train
from expunge.files import check_free
from expunge.forgetting import check_takes_rows, headed, run_method
from expunge.guard import guarded
from expunge.methods.retrain import Retrain
from expunge.network import Network, rebuild
from expunge.population import missing
from expunge.rehearsal import Forecast, Rehearsal, joined
from expunge.rows import Rows, TakenRows
from expunge.runtime import Runtime, batch_starts
from expunge.stages import Plan
from expunge.tracking import UNTRACKED
from expunge.training import Training, predict

PREDICTED = 512
"""Rows of a step of prediction: as many as `predict` takes at once."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a command would do."""

    reads: dict[str, int]
    """Rows that it may read, by half or part of the data."""
    out: str
    """What it would write."""
    to_train: int
    """Models of a population, references among them, that it would train."""
    cached: int
    """Those that it would take from the cache."""
    forecast: Forecast


def rehearse_training(
    dataset: Dataset, network: Network, training: Training, out: Path, runtime: Runtime, *, overwrite: bool
) -> DryRun:
    """Return what `train_folder` would do.

    Raises:
        ExpungeError: As `train_folder`.
    """
    check_free(out, overwrite=overwrite)
    data = dataset.load()

    def work(here: Runtime) -> tuple[None, int]:
        model = train(network, data, training, here)
        if len(data.test):
            _predict(model, [data.test], here, "predict")
        return None, here.cost.flops

    _, forecast = _rehearse(work, runtime)
    reads = {"train": len(data.train), "test": len(data.test)}
    return DryRun(reads=reads, out=str(out), to_train=0, cached=0, forecast=forecast)


def rehearse_forgetting(plan: Plan, runtime: Runtime) -> DryRun:
    """Return what `forget_folder` would do.

    Raises:
        ExpungeError: As `forget_folder`.
    """
    checkpoint = plan.checkpoint
    forecast = _forget(plan.method, checkpoint.model, plan.parts, runtime, checkpoint.statistics())
    reads: dict[str, int] = {part: len(plan.parts[part]) for part in sorted(plan.method.reads)}
    return DryRun(reads=reads, out=str(plan.out), to_train=0, cached=0, forecast=forecast)


def rehearse_audit(plan: AuditPlan, runtime: Runtime, cache: Cache | None) -> DryRun:
    """Return what `audit_folders` would do.

    Raises:
        ExpungeError: As `audit_folders`.
    """
    model, models = plan.original.model, 2 + len(plan.given) + plan.references
    pieces, to_train = [(_evidence(model, plan.parts, runtime), models)], 0
    if plan.recipe is not None:
        to_train = len(missing(plan.recipe, plan.references, runtime, cache=cache))
    if plan.recipe is not None and to_train:
        retraining = Retrain(training=plan.recipe.training)
        pieces.append((_forget(retraining, model, plan.parts, runtime), to_train))
    return DryRun(
        reads={part: len(plan.parts[part]) for part in PARTS},
        out=str(plan.out),
        to_train=to_train,
        cached=plan.references - to_train,
        forecast=joined(*pieces),
    )


def rehearse_run(
    experiment: Experiment, runtime: Runtime, out: Path, *, overwrite: bool, cache: Cache | None
) -> DryRun:
    """Return what `run` would do.

    Raises:
        ExpungeError: As `run`.
    """
    check_free(out, overwrite=overwrite)
    runtime = runtime.fresh(seed=experiment.seed)
    task = make_task(experiment.dataset.load(), experiment.request, experiment.corruption, runtime)
    method, parts = experiment.method, task.asked
    check_takes_rows(method, parts, runtime, lambda: experiment.network.build(task.data))

    def work(here: Runtime) -> tuple[nn.Module, int]:
        return train(experiment.network, task.data, experiment.training, here), here.cost.flops

    original, training = _rehearse(work, runtime)
    headed(original, parts, experiment.head)
    recipe = recipe_for(experiment, original, task.data, task.whole)
    references, population = experiment.references, experiment.population
    if method == recipe.method and parts.request == recipe.parts.request:  # one population, as in `grow_both`
        references, population = references + population, 0
    retrainings = missing(recipe, references, runtime, cache=cache)
    forgettings = missing(replace(recipe, method=method, parts=parts), population, runtime, cache=cache)
    originals = 0
    if forgettings and not isinstance(method, Retrain):
        originals = len(missing(replace(recipe, method=None), max(forgettings), runtime, cache=cache))
    pieces = [
        (training, 1 + originals),
        (_forget(method, original, parts, runtime), 1 + len(forgettings)),
        (_evidence(original, task.whole, runtime), 2 + experiment.references + experiment.population),
    ]
    if retrainings:
        retraining = Retrain(training=experiment.training)
        pieces.append((_forget(retraining, original, task.whole, runtime), len(retrainings)))
    to_train = len(retrainings) + len(forgettings)
    return DryRun(
        reads={part: len(parts[part]) for part in PARTS},
        out=str(out),
        to_train=to_train,
        cached=references + population - to_train,
        forecast=joined(*pieces),
    )


def _forget(
    method: Method,
    model: nn.Module,
    parts: Split,
    runtime: Runtime,
    statistics: Mapping[str, Tensor] | None = None,
) -> Forecast:
    def work(here: Runtime) -> tuple[None, int]:
        forgotten = run_method(method, model, parts, here, rebuild(model), statistics=statistics)
        guarded(forgotten, method, model, parts, here)
        # of all processes; what the others did is theirs to count
        return None, forgotten.bill.flops // here.fabric.world_size

    return _rehearse(work, runtime)[1]


def _evidence(model: nn.Module, parts: Split, runtime: Runtime) -> Forecast:
    def work(here: Runtime) -> tuple[None, int]:
        _predict(model, [parts[part] for part in PARTS], here, "evidence")
        return None, here.cost.flops

    return _rehearse(work, runtime)[1]


def _predict(model: nn.Module, sets: Sequence[Rows], runtime: Runtime, stage: str) -> None:
    """Rehearse predictions of all rows of some sets, as batches of `predict`."""
    chunks = [
        TakenRows(rows, chunk)
        for rows in sets
        if len(rows)
        for chunk in np.split(np.arange(len(rows)), batch_starts(len(rows), PREDICTED)[1:])
    ]
    with runtime.stage(stage, len(chunks), sum(map(len, sets))) as advance:
        for chunk in chunks:
            predict(model, chunk, runtime)
            advance(1)


def _rehearse(work: Callable[[Runtime], tuple[T, int]], runtime: Runtime) -> tuple[T, Forecast]:
    """Rehearse work that gives something and tells the operations that it counted in this process."""
    begun, rehearsal = time.perf_counter(), Rehearsal()
    made, flops = work(replace(runtime.fresh(), rehearsal=rehearsal, journal=None, tracking=UNTRACKED))
    seconds, peak = time.perf_counter() - begun, peak_memory_bytes(runtime.device)
    flops = int(runtime.total(flops + rehearsal.flops))
    return made, rehearsal.forecast(seconds, flops, int(runtime.highest(peak)))
