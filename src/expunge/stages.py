"""Stages: each step of the story from folder to folder, as the commands run it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from expunge.cache import Cache
from expunge.case import Method
from expunge.checkpoint import Checkpoint, load_model, save_model
from expunge.corruption import make_task
from expunge.data import Data, Split, renumbered, split
from expunge.datasets import Adaptable, Dataset, Encoded
from expunge.errors import DataError, ModelError
from expunge.experiment import Experiment, recipe_for, train
from expunge.files import check_free, new_folder, write_text
from expunge.forgetting import Forgotten, KeepOrDrop, check_takes_rows, dropped, headed
from expunge.guard import run_guarded
from expunge.history import as_left, classes_in
from expunge.methods.retrain import Retrain
from expunge.network import Network, rebuild
from expunge.population import Member, Workers, grow_both
from expunge.precision import rounded
from expunge.provenance import as_reads, entry
from expunge.request import Request
from expunge.result import Record, environment
from expunge.resume import resumable
from expunge.runtime import Runtime
from expunge.settings import describe, from_mapping, to_mapping
from expunge.training import Training, predict
from expunge.tuning import Tuning, tune

RECORD = "forget.json"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network and how well it does."""

    model: nn.Module
    test_accuracy: float | None
    """Share of test rows that it gets right; None without test rows."""
    seconds: float
    events: tuple[str, ...] = ()
    """What went wrong and was put right, a line each."""


def train_folder(
    dataset: Dataset, network: Network, training: Training, out: Path, runtime: Runtime, *, overwrite: bool
) -> Trained:
    """Train a network on a data set and write a model folder.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    check_free(out, overwrite=overwrite)
    data = dataset.load()
    told = {"command": "train", "dataset": describe(dataset), "network": to_mapping(network)}
    told |= {"training": to_mapping(training)}
    with resumable(runtime, out, told, (data.train,)) as runtime:
        model = train(network, data, training, runtime)
        unseen = [name for index, name in enumerate(data.label_names) if index not in data.train.labels]
        accuracy = None
        if len(data.test):
            logits, labels = predict(model, data.test, runtime)
            accuracy = (logits.argmax(1) == labels).double().mean().item()
        with new_folder(out, overwrite=overwrite) as folder:
            save_model(model, folder, data, {"training": to_mapping(training)})
    events = [*runtime.cost.events, *(f"there were no training rows of {name!r}" for name in unseen)]
    return Trained(model=model, test_accuracy=accuracy, seconds=runtime.cost.seconds["train"], events=tuple(events))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that forgetting needs, checked."""

    checkpoint: Checkpoint
    method: Method
    seed: int
    data: Data
    parts: Split
    head: KeepOrDrop
    out: Path
    overwrite: bool


def plan_forgetting(
    model: Path | str,
    request: Request,
    dataset: Dataset,
    method: Method,
    out: Path,
    *,
    seed: int,
    overwrite: bool,
    head: KeepOrDrop = "keep",
    builder: str | None = None,
) -> Plan:
    """Check everything that can be checked before a method runs.

    Args:
        model: A model folder, or the name of a model of the hub; see `model_files.find_folder`.
        request: What to forget.
        dataset: Where the rows come from.
        method: How.
        out: The folder to make.
        seed: Seed of all random streams.
        overwrite: Replace what is there.
        head: Whether the outputs of forgotten classes are kept.
        builder: The user's own code that builds the network, where the model's folder names such.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    check_free(out, overwrite=overwrite)
    checkpoint = load_model(model, builder=builder)
    data = load_for(checkpoint, dataset, request)
    parts = split(data, request, absent=True)
    headed(checkpoint.model, parts, head)
    return Plan(
        checkpoint=checkpoint,
        method=method,
        seed=seed,
        data=data,
        parts=parts,
        head=head,
        out=out,
        overwrite=overwrite,
    )


def forget_folder(plan: Plan, runtime: Runtime) -> Forgotten:
    """Let a model forget and write the new model's folder, with ``forget.json`` beside the weights.

    Weights are written in the precision that the folder of the original has them in.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    model = plan.checkpoint.model
    asked = entry(describe(plan.method), plan.parts, plan.seed, plan.head)
    without = dropped(plan.parts, plan.head)
    statistics = plan.checkpoint.statistics()
    told = {"command": "forget", "parent": plan.checkpoint.hash, "statistics": sorted(statistics), **asked}
    with resumable(runtime, plan.out, told, (plan.data.train,)) as runtime:
        forgotten = run_guarded(plan.method, model, plan.parts, runtime, rebuild(model), statistics=statistics)
        forgotten = _as_stored(forgotten, plan.checkpoint)
        forgotten = replace(forgotten, model=headed(forgotten.model, plan.parts, plan.head))
        about = entry(forgotten.method, plan.parts, plan.seed, plan.head)
        reads = as_reads(forgotten.access)
        record = Record(experiment=about, cost=forgotten.bill, access=reads, images=forgotten.pictures)
        with new_folder(plan.out, overwrite=plan.overwrite) as folder:
            about = plan.checkpoint.child(about)
            save_model(forgotten.model, folder, plan.data, about, dropped=without, statistics=forgotten.statistics)
            (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return forgotten


def _as_stored(forgotten: Forgotten, checkpoint: Checkpoint) -> Forgotten:
    """Return what a method made with the new model in the precision of the original's file."""
    if not checkpoint.halves:
        return forgotten
    model, event = rounded(forgotten.model, checkpoint.model, checkpoint.as_stored())
    return replace(forgotten, model=model, bill=replace(forgotten.bill, events=(*forgotten.bill.events, event)))


def tune_folder(plan: Plan, runtime: Runtime, *, trials: int) -> Tuning:
    """Try settings of a method and write the best, with all trials, into a JSON file; see `expunge.tuning`.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    model = plan.checkpoint.model
    asked = entry(describe(plan.method), plan.parts, plan.seed, plan.head)
    told = {"command": "tune", "parent": plan.checkpoint.hash, "trials": trials, **asked}
    with resumable(runtime, plan.out, told, (plan.data.train,)) as runtime:
        found = tune(plan.method, model, plan.parts, runtime, rebuild(model), trials=trials)
        record = {"experiment": asked, **asdict(found), "environment": environment(str(runtime.device))}
        write_text(plan.out, json.dumps(record, indent=1) + "\n", overwrite=plan.overwrite)
    return found


def population_of(
    experiment: Experiment, count: int, unlearned: int, runtime: Runtime, *, cache: Cache, workers: Workers
) -> tuple[list[Member], list[Member]]:
    """Return an experiment's first retrained models and unlearned models, made now where the cache has them not.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    runtime = runtime.fresh(seed=experiment.seed)
    task = make_task(experiment.dataset.load(), experiment.request, experiment.corruption, runtime)
    data = task.data
    with runtime.seeded("train/init"):
        network = experiment.network.build(data)
    check_takes_rows(experiment.method, task.asked, runtime, lambda: experiment.network.build(data))
    recipe = recipe_for(experiment, network, data, task.whole)
    return grow_both(recipe, experiment.method, task.asked, count, unlearned, runtime, cache=cache, workers=workers)


def load_for(checkpoint: Checkpoint, dataset: Dataset, request: Request) -> Data:
    """Return data for a model, after a check that it is of the model's kind.

    Inputs that can be brought to any shape are brought to the model's, and normalised as its own were. Classes are the
    model's, by their names; those that are to be forgotten, or were before, may be missing. What the model was made to
    forget before stands in the data as earlier requests; rows of classes whose outputs were dropped are left out.

    Raises:
        DataError: Classes or input size are not the model's.
        RequestError: A class to forget is none of the model's, or its history holds what is no request of the data.
        ModelError: The model was trained on corrupted data, which only its experiment can make again.
    """
    data = load_whole(checkpoint, dataset, request)
    dropped = [entry.get("head") == "drop" for entry in checkpoint.history]
    if not all(dropped) or data.label_names != checkpoint.label_names:
        data = as_left(data, checkpoint.history)
    check_kind(checkpoint, data)
    return data


def load_whole(checkpoint: Checkpoint, dataset: Dataset, absent: Request | None = None) -> Data:
    """Return data with inputs as a model takes them, as they were before anything was forgotten.

    Args:
        checkpoint: The model.
        dataset: Where the rows come from.
        absent: Names classes that may be missing, as those of the model's history may.

    Raises:
        DataError: The inputs cannot have that shape.
        RequestError: A class that may be missing is none of the model's.
        ModelError: The model was trained on corrupted data, which only its experiment can make again.
    """
    if "corruption" in checkpoint.about:
        name = checkpoint.about["corruption"]["name"]
        raise ModelError(
            f"expected a model of the data as they are, got one of a {name}: use `expunge run` on its file"
        )
    if isinstance(dataset, Adaptable) and checkpoint.mean:
        dataset = dataset.adapted(checkpoint.input_size, checkpoint.mean, checkpoint.std, checkpoint.scaling)
    if isinstance(dataset, Encoded) and checkpoint.encoding:
        data = dataset.load_as(checkpoint.encoding)
    else:
        data = dataset.load()
    known = checkpoint.label_names
    one_each = len(set(known)) == len(known)  # of two classes with one name, only the order tells which is which
    dropped = any(entry.get("head") == "drop" for entry in checkpoint.history)
    if known != data.label_names and one_each and set(known) >= set(data.label_names) and not dropped:
        before = classes_in(checkpoint.history)
        gone = {name for index, name in enumerate(known) if index in before}
        if absent is not None and absent.classes:
            gone |= {known[int(index)] for index in absent.resolve(known, data.train).classes}
        if set(known) - gone <= set(data.label_names):
            data = renumbered(data, known)
    return data


def check_kind(checkpoint: Checkpoint, data: Data) -> None:
    """Refuse data that are not of a model's kind.

    Raises:
        DataError: Classes or input size are not the model's.
    """
    if checkpoint.label_names and checkpoint.label_names != data.label_names:
        known, came = checkpoint.label_names, data.label_names
        absent = [name for name in known if name not in came] if {*came} < {*known} else []
        do = f": give data that have rows of {absent[0]!r} too" if absent else ""
        raise DataError(
            f"expected the {len(known)} classes that the model was trained on ({', '.join(known)[:60]}), "
            f"got {len(came)} ({', '.join(came)[:60]}){do}"
        )
    if checkpoint.input_size and checkpoint.input_size != data.input_size:
        raise DataError(f"expected inputs {checkpoint.input_size} as the model takes, got {data.input_size}")


def as_trained(plan: Plan, chosen: Mapping[str, Any]) -> Plan:
    """Return a plan in which `retrain` trains as the original was trained, unless other settings were chosen."""
    recorded = plan.checkpoint.about.get("training")
    if not isinstance(plan.method, Retrain) or "training" in chosen or recorded is None:
        return plan
    return replace(plan, method=Retrain(training=from_mapping(Training, recorded)))
