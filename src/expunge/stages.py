"""Stages: each step of the story from folder to folder, as the commands run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from expunge.blueprint import blueprint_of
from expunge.cache import Cache
from expunge.case import Adaptable, Audit, Dataset, Method, open_case
from expunge.checkpoint import Checkpoint, load_model, save_model
from expunge.corruption import make_task
from expunge.data import Data, Request, Split, only_classes, split
from expunge.errors import DataError, ModelError
from expunge.experiment import Experiment, judge, recipe_for, train
from expunge.files import check_free, new_folder, write_text
from expunge.forgetting import Forgotten, KeepOrDrop, check_takes_rows, dropped, headed, run_method
from expunge.guard import guarded
from expunge.methods.retrain import Retrain
from expunge.model_files import find_folder
from expunge.network import Network, rebuild
from expunge.population import HERE, Member, Recipe, Workers, grow, grow_both
from expunge.provenance import as_reads, entry, head_values, request_values, with_retraining
from expunge.result import Record, Result, read
from expunge.resume import resumable
from expunge.runtime import Runtime
from expunge.settings import describe, from_mapping, to_mapping
from expunge.training import Training, predict

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
        accuracy = None
        if len(data.test):
            logits, labels = predict(model, data.test, runtime)
            accuracy = (logits.argmax(1) == labels).double().mean().item()
        with new_folder(out, overwrite=overwrite) as folder:
            save_model(model, folder, data, {"training": to_mapping(training)})
    return Trained(
        model=model, test_accuracy=accuracy, seconds=runtime.cost.seconds["train"], events=tuple(runtime.cost.events)
    )


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
    data = load_for(checkpoint, dataset)
    parts = split(data, request)
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

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    model = plan.checkpoint.model
    about = entry(plan.method, plan.parts, plan.seed, plan.head)
    without = dropped(plan.parts, plan.head)
    told = {"command": "forget", "parent": plan.checkpoint.hash, **about}
    with resumable(runtime, plan.out, told, (plan.data.train,)) as runtime:
        forgotten = run_method(plan.method, model, plan.parts, runtime, rebuild(model))
        forgotten = guarded(forgotten, plan.method, model, plan.parts, runtime)
        forgotten = replace(forgotten, model=headed(forgotten.model, plan.parts, plan.head))
        reads = as_reads(forgotten.access)
        record = Record(experiment=about, cost=forgotten.bill, access=reads, images=forgotten.pictures)
        with new_folder(plan.out, overwrite=plan.overwrite) as folder:
            save_model(forgotten.model, folder, plan.data, plan.checkpoint.child(about), dropped=without)
            (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return forgotten


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """Everything that an audit needs, checked."""

    original: Checkpoint
    unlearned: Checkpoint
    given: Sequence[Checkpoint]
    """Retrained models that were given."""
    references: int
    """Further ones to train, or to take from the cache."""
    recipe: Recipe | None
    """Of those; None without any."""
    data: Data
    parts: Split
    record: Record | None
    """What forgetting left beside the unlearned model."""
    told: dict[str, Any]
    """The result's ``experiment``."""
    out: Path
    overwrite: bool


def plan_audit(
    original_dir: Path | str,
    unlearned_dir: Path | str,
    retrained_dirs: Sequence[Path | str],
    request: Request,
    dataset: Dataset,
    audits: Sequence[Audit],
    out: Path,
    *,
    seed: int,
    overwrite: bool,
    references: int = 0,
    stacked: int = 0,
    builder: str | None = None,
) -> AuditPlan:
    """Check everything that can be checked before an audit.

    Args:
        original_dir: A model folder, or the name of a model of the hub.
        unlearned_dir: Another.
        retrained_dirs: Those of retrained models.
        request: What was to be forgotten.
        dataset: Where the rows come from.
        audits: What is to be asked.
        out: The file to write.
        seed: Seed of all random streams.
        overwrite: Replace what is there.
        references: So many further models are to be trained as the original was, or found in the cache.
        stacked: So many of them at once, or one by one if 0.
        builder: The user's own code that builds the networks, where their folders name such.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    check_free(out, overwrite=overwrite)
    places = (original_dir, unlearned_dir, *retrained_dirs)
    original, unlearned, *given = (load_model(place, builder=builder) for place in places)
    data = load_for(original, dataset)
    parts = split(data, request)
    for place, other in zip(places[1:], (unlearned, *given), strict=True):
        _check_classes(other, parts, place)
    record_file = find_folder(str(unlearned_dir)) / RECORD
    record = read(Record, record_file) if record_file.exists() else None
    told: dict[str, Any] = {
        "dataset": describe(dataset),
        "network": {"name": blueprint.name if (blueprint := blueprint_of(original.model)) else None},
        "training": original.about.get("training"),
        "request": request_values(parts),
        "method": record.experiment["method"] if record else None,
        **(head_values(record.experiment.get("head", "keep")) if record else {}),
        "audits": [describe(audit) for audit in audits],
        "references": references + len(given),
        "stacked": stacked,
        "seed": seed,
    }
    if record and record.experiment["request"] != told["request"]:
        raise DataError(
            f"expected the request that {unlearned_dir} was made for, {record.experiment['request']}, "
            f"got {told['request']}"
        )
    return AuditPlan(
        original=original,
        unlearned=unlearned,
        given=given,
        references=references,
        recipe=replace(_recipe(original, original_dir, dataset, data, parts), stacked=stacked) if references else None,
        data=data,
        parts=parts,
        record=record,
        told=told,
        out=out,
        overwrite=overwrite,
    )


def audit_folders(
    plan: AuditPlan, audits: Sequence[Audit], runtime: Runtime, *, cache: Cache | None = None, workers: Workers = HERE
) -> Result:
    """Audit an unlearned model beside its original and retrained models, and write the result.

    Cost and reads are those in the unlearned folder's ``forget.json``, and None if it has none. References are looked
    for in the cache first.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    models = [one.hash for one in (plan.original, plan.unlearned, *plan.given)]
    key = {"command": "audit", "models": models, **plan.told}
    record = plan.record
    with resumable(runtime, plan.out, key, (plan.data.train, plan.data.test)) as runtime:
        grown: list[Member] = []
        if plan.recipe is not None:
            grown = grow(plan.recipe, plan.references, runtime, cache=cache, workers=workers)
        retrained = [*(other.model for other in plan.given), *(member.model for member in grown)]
        case = open_case(plan.parts, plan.original.model, plan.unlearned.model, retrained, runtime)
        result = judge(case, audits, plan.told, pictures=record.images if record else ())
        if record:
            result = replace(result, cost=with_retraining(record.cost, grown), access=record.access)
        write_text(plan.out, result.to_json(), overwrite=plan.overwrite)
    return result


def _check_classes(checkpoint: Checkpoint, parts: Split, place: Path | str) -> None:
    """Refuse a model of other classes than all, or all but the forgotten ones, in their order.

    Raises:
        DataError: Its classes are others.
    """
    kept = tuple(name for index, name in enumerate(parts.label_names) if index not in parts.request.classes)
    if checkpoint.label_names and checkpoint.label_names not in (parts.label_names, kept):
        raise DataError(
            f"expected a model of the original's {len(parts.label_names)} classes, or of those without the forgotten "
            f"ones, got {place} of {len(checkpoint.label_names)} ({', '.join(checkpoint.label_names)[:60]})"
        )


def _recipe(original: Checkpoint, path: Path | str, dataset: Dataset, data: Data, parts: Split) -> Recipe:
    recorded = original.about.get("training")
    if recorded is None:
        raise ModelError(f"expected a model whose training is known, to train others like it, got {path} without")
    training = from_mapping(Training, recorded)
    method = Retrain(training=training)
    return Recipe(network=original.model, dataset=dataset, data=data, parts=parts, training=training, method=method)


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


def load_for(checkpoint: Checkpoint, dataset: Dataset) -> Data:
    """Return data for a model, after a check that it is of the model's kind.

    Inputs that can be brought to any shape are brought to the model's, and normalised as its own were. Rows of classes
    whose outputs an earlier request has dropped are left out.

    Raises:
        DataError: Classes or input size are not the model's.
        ModelError: The model was trained on corrupted data, which only its experiment can make again.
    """
    if "corruption" in checkpoint.about:
        name = checkpoint.about["corruption"]["name"]
        raise ModelError(
            f"expected a model of the data as they are, got one of a {name}: use `expunge run` on its file"
        )
    if isinstance(dataset, Adaptable) and checkpoint.mean:
        dataset = dataset.adapted(checkpoint.input_size, checkpoint.mean, checkpoint.std, checkpoint.scaling)
    data = dataset.load()
    if any(entry.get("head") == "drop" for entry in checkpoint.about.get("history", ())):
        data = only_classes(data, checkpoint.label_names)
    if checkpoint.label_names and checkpoint.label_names != data.label_names:
        known, came = checkpoint.label_names, data.label_names
        raise DataError(
            f"expected the {len(known)} classes that the model was trained on ({', '.join(known)[:60]}), "
            f"got {len(came)} ({', '.join(came)[:60]})"
        )
    if checkpoint.input_size and checkpoint.input_size != data.input_size:
        raise DataError(f"expected inputs {checkpoint.input_size} as the model takes, got {data.input_size}")
    return data


def as_trained(plan: Plan, chosen: Mapping[str, Any]) -> Plan:
    """Return a plan in which `retrain` trains as the original was trained, unless other settings were chosen."""
    recorded = plan.checkpoint.about.get("training")
    if not isinstance(plan.method, Retrain) or "training" in chosen or recorded is None:
        return plan
    return replace(plan, method=Retrain(training=from_mapping(Training, recorded)))
