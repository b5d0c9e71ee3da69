"""Stages: each step of the story from folder to folder, as the commands run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from expunge.cache import Cache
from expunge.case import Adaptable, Audit, Dataset, Method, open_case
from expunge.checkpoint import Checkpoint, load_model, save_model
from expunge.corruption import make_task
from expunge.data import Data, Request, Split, split
from expunge.errors import DataError, ModelError
from expunge.experiment import (
    Experiment,
    as_reads,
    entry,
    judge,
    recipe_for,
    request_values,
    train,
    with_retraining,
)
from expunge.files import check_free, new_folder, write_text
from expunge.forgetting import Forgotten, check_takes_rows, run_method
from expunge.methods.retrain import Retrain
from expunge.network import Network, architecture, rebuild
from expunge.population import HERE, Member, Recipe, Workers, grow, grow_both
from expunge.result import Record, Result, read
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


def train_folder(
    dataset: Dataset, network: Network, training: Training, out: Path, runtime: Runtime, *, overwrite: bool
) -> Trained:
    """Train a network on a data set and write a model folder.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    check_free(out, overwrite=overwrite)
    data = dataset.load()
    model = train(network, data, training, runtime)
    accuracy = None
    if len(data.test):
        logits, labels = predict(model, data.test, runtime)
        accuracy = (logits.argmax(1) == labels).double().mean().item()
    with new_folder(out, overwrite=overwrite) as folder:
        save_model(model, folder, data, {"training": to_mapping(training)})
    return Trained(model=model, test_accuracy=accuracy, seconds=runtime.cost.seconds["train"])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that forgetting needs, checked."""

    checkpoint: Checkpoint
    method: Method
    seed: int
    data: Data
    parts: Split
    out: Path
    overwrite: bool


def plan_forgetting(
    model_dir: Path, request: Request, dataset: Dataset, method: Method, out: Path, *, seed: int, overwrite: bool
) -> Plan:
    """Check everything that can be checked before a method runs.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    check_free(out, overwrite=overwrite)
    checkpoint = load_model(model_dir)
    data = load_for(checkpoint, dataset)
    return Plan(
        checkpoint=checkpoint,
        method=method,
        seed=seed,
        data=data,
        parts=split(data, request),
        out=out,
        overwrite=overwrite,
    )


def forget_folder(plan: Plan, runtime: Runtime) -> Forgotten:
    """Let a model forget and write the new model's folder, with ``forget.json`` beside the weights.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    model = plan.checkpoint.model
    forgotten = run_method(plan.method, model, plan.parts, runtime, rebuild(model))
    about = entry(plan.method, plan.parts, plan.seed)
    record = Record(experiment=about, cost=forgotten.bill, access=as_reads(forgotten.access), images=forgotten.pictures)
    with new_folder(plan.out, overwrite=plan.overwrite) as folder:
        save_model(forgotten.model, folder, plan.data, plan.checkpoint.child(about))
        (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return forgotten


def audit_folders(
    original_dir: Path,
    unlearned_dir: Path,
    retrained_dirs: Sequence[Path],
    request: Request,
    dataset: Dataset,
    audits: Sequence[Audit],
    out: Path,
    runtime: Runtime,
    *,
    overwrite: bool,
    references: int = 0,
    stacked: int = 0,
    cache: Cache | None = None,
    workers: Workers = HERE,
) -> Result:
    """Audit an unlearned model beside its original and retrained models, and write the result.

    Cost and reads are those in the unlearned folder's ``forget.json``, and None if it has none. So many further
    `references` are trained as the original was, or found in the cache; `stacked` of them at once, or one by one if 0.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is written.
    """
    check_free(out, overwrite=overwrite)
    original, unlearned, *given = (load_model(path) for path in (original_dir, unlearned_dir, *retrained_dirs))
    data = load_for(original, dataset)
    parts = split(data, request)
    grown: list[Member] = []
    if references:
        recipe = replace(_recipe(original, original_dir, dataset, data, parts), stacked=stacked)
        grown = grow(recipe, references, runtime, cache=cache, workers=workers)
    retrained = [*(other.model for other in given), *(member.model for member in grown)]
    record = read(Record, unlearned_dir / RECORD) if (unlearned_dir / RECORD).exists() else None
    case = open_case(parts, original.model, unlearned.model, retrained, runtime)
    told: dict[str, Any] = {
        "dataset": describe(dataset),
        "network": {"name": architecture(original.model)},
        "training": original.about.get("training"),
        "request": request_values(parts),
        "method": record.experiment["method"] if record else None,
        "audits": [describe(audit) for audit in audits],
        "references": len(retrained),
        "stacked": stacked,
        "seed": runtime.seed,
    }
    if record and record.experiment["request"] != told["request"]:
        raise DataError(
            f"expected the request that {unlearned_dir} was made for, {record.experiment['request']}, "
            f"got {told['request']}"
        )
    result = judge(case, audits, told, pictures=record.images if record else ())
    if record:
        result = replace(result, cost=with_retraining(record.cost, grown), access=record.access)
    write_text(out, result.to_json(), overwrite=overwrite)
    return result


def _recipe(original: Checkpoint, path: Path, dataset: Dataset, data: Data, parts: Split) -> Recipe:
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

    Inputs that can be brought to any shape are brought to the model's, and normalised as its own were.

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
    if checkpoint.label_names and checkpoint.label_names != data.label_names:
        known, came = checkpoint.label_names, data.label_names
        raise DataError(
            f"expected the {len(known)} classes that the model was trained on ({', '.join(known)[:60]}), "
            f"got {len(came)} ({', '.join(came)[:60]})"
        )
    if checkpoint.input_size != data.input_size:
        raise DataError(f"expected inputs {checkpoint.input_size} as the model takes, got {data.input_size}")
    return data


def as_trained(plan: Plan, chosen: Mapping[str, Any]) -> Plan:
    """Return a plan in which `retrain` trains as the original was trained, unless other settings were chosen."""
    recorded = plan.checkpoint.about.get("training")
    if not isinstance(plan.method, Retrain) or "training" in chosen or recorded is None:
        return plan
    return replace(plan, method=Retrain(training=from_mapping(Training, recorded)))
