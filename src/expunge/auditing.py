"""Auditing: from model folders to a result file, planned and done, as the command runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.blueprint import blueprint_of
from expunge.cache import Cache
from expunge.case import Audit, open_case
from expunge.checkpoint import Checkpoint, load_model
from expunge.data import Data, Split, split
from expunge.datasets import Dataset
from expunge.errors import DataError, ModelError
from expunge.files import check_free, write_text
from expunge.history import as_left, judged, since, trained_without
from expunge.judging import judge
from expunge.methods.retrain import Retrain
from expunge.model_files import find_folder
from expunge.population import HERE, Member, Recipe, Workers, grow
from expunge.provenance import earlier_values, head_values, request_values, with_retraining
from expunge.request import Request
from expunge.result import Record, Result, read
from expunge.resume import resumable
from expunge.runtime import Runtime
from expunge.settings import describe, from_mapping
from expunge.stages import RECORD, check_kind, load_whole
from expunge.subject import check_apart, subject_of, weights_in, weights_of
from expunge.training import Training
from expunge.views import View, check_views


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
    whole: Data
    """As they were before anything was forgotten."""
    data: Data
    """As the original's history leaves them."""
    parts: Split
    record: Record | None
    """What forgetting left beside the unlearned model; None if it left nothing, or tells of one request of several."""
    told: dict[str, Any]
    """The result's ``experiment``."""
    out: Path
    overwrite: bool
    views: Sequence[View] = ()
    """What to draw besides."""


def plan_audit(
    original_dir: Path | str,
    unlearned_dir: Path | str,
    retrained_dirs: Sequence[Path | str],
    request: Request | None,
    dataset: Dataset,
    audits: Sequence[Audit],
    out: Path,
    *,
    seed: int,
    overwrite: bool,
    references: int = 0,
    stacked: int = 0,
    builder: str | None = None,
    views: Sequence[View] = (),
) -> AuditPlan:
    """Check everything that can be checked before an audit.

    Args:
        original_dir: A model folder, or the name of a model of the hub.
        unlearned_dir: Another.
        retrained_dirs: Those of retrained models.
        request: What was to be forgotten: all that was asked since the original; None takes it from the history.
        dataset: Where the rows come from.
        audits: What is to be asked.
        out: The file to write.
        seed: Seed of all random streams.
        overwrite: Replace what is there.
        references: So many further models are to be trained as the original was, or found in the cache.
        stacked: So many of them at once, or one by one if 0.
        builder: The user's own code that builds the networks, where their folders name such.
        views: What to draw besides.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    check_views(views)
    check_free(out, overwrite=overwrite)
    places = (original_dir, unlearned_dir, *retrained_dirs)
    original, unlearned, *given = (load_model(place, builder=builder) for place in places)
    whole = load_whole(original, dataset)
    data = as_left(whole, original.history)
    check_kind(original, data)
    steps = since(whole, original.history, unlearned.history)
    parts = split(data, judged(request, data, steps, str(unlearned_dir)))
    for place, other in zip(places[1:], (unlearned, *given), strict=True):
        _check_classes(other, parts, place)
        _check_inputs(other, original, place)
    wanted = [*original.history, {"request": request_values(parts.request)}]
    for place, other in zip(retrained_dirs, given, strict=True):
        trained_without(whole, other.history, wanted, str(place))
    named = {f"{place} ({n})": one.model for n, (place, one) in enumerate(zip(retrained_dirs, given, strict=True), 1)}
    check_apart(original.model, unlearned.model, named)
    record_file = find_folder(str(unlearned_dir)) / RECORD
    record = read(Record, record_file) if record_file.exists() and len(steps) < 2 else None
    told: dict[str, Any] = {
        "dataset": describe(dataset),
        "network": {"name": blueprint.name if (blueprint := blueprint_of(original.model)) else None},
        "training": original.about.get("training"),
        "request": request_values(parts.request),
        **earlier_values(parts),
        "method": record.experiment["method"] if record else None,
        **({"steps": list(steps)} if len(steps) > 1 else {}),
        **(head_values(steps[-1].get("head", "keep")) if steps else {}),
        "audits": [describe(audit) for audit in audits],
        "references": references + len(given),
        "stacked": stacked,
        **({"views": list(views)} if views else {}),
        "seed": seed,
    }
    return AuditPlan(
        original=original,
        unlearned=unlearned,
        given=given,
        references=references,
        recipe=replace(_recipe(original, original_dir, dataset, data, parts), stacked=stacked) if references else None,
        whole=whole,
        data=data,
        parts=parts,
        record=record,
        told=told,
        out=out,
        overwrite=overwrite,
        views=views,
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
        about = subject_of(
            weights_in(plan.original.hash),
            weights_in(plan.unlearned.hash),
            [*(weights_in(other.hash) for other in plan.given), *(weights_of(member.model) for member in grown)],
            plan.whole,
            given=len(plan.given),
        )
        result = judge(case, audits, plan.told, about, pictures=record.images if record else (), views=plan.views)
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


def _check_inputs(checkpoint: Checkpoint, original: Checkpoint, place: Path | str) -> None:
    """Refuse a model that was trained on rows made into inputs in another way; what a folder does not tell may be so.

    Raises:
        DataError: It was: by the original's inputs it would be judged at what it never learned.
    """
    for what in ("mean", "std", "scaling", "encoding"):
        own, others = getattr(original, what), getattr(checkpoint, what)
        if own and others and own != others:
            raise DataError(
                f"expected models that take inputs as the original does, got {place} with another {what} in its "
                "config.json: train it on the same data settings, as `expunge forget --method retrain` does"
            )


def _recipe(original: Checkpoint, path: Path | str, dataset: Dataset, data: Data, parts: Split) -> Recipe:
    recorded = original.about.get("training")
    if recorded is None:
        raise ModelError(f"expected a model whose training is known, to train others like it, got {path} without")
    training = from_mapping(Training, recorded)
    method = Retrain(training=training)
    return Recipe(network=original.model, dataset=dataset, data=data, parts=parts, training=training, method=method)
