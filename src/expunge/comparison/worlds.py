"""Worlds: the models that all methods of one world share, and one method run and audited beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from expunge.cache import Cache
from expunge.case import Case, Evidence, gather
from expunge.cost import peak_memory_bytes
from expunge.data import Data, Split
from expunge.experiment import Experiment, recipe_for, train
from expunge.fingerprints import fingerprint
from expunge.forgetting import epoch_flops, run_method
from expunge.judging import judge
from expunge.methods.retrain import Retrain
from expunge.network import copy_of, rebuild
from expunge.population import Member, Recipe, Workers, grow, member_key
from expunge.provenance import with_retraining
from expunge.result import Bill, Result, Subject
from expunge.runtime import Runtime
from expunge.subject import subject_of, weights_of


@dataclass(frozen=True, kw_only=True)
class Models:
    """What all methods of a world share."""

    original: nn.Module
    references: list[Member]
    held_out: list[Member]
    """Retrained networks that are no references: the first is the control, the others its population."""
    recipe: Recipe
    evidence: tuple[Evidence, ...]
    """Of the original and the references; audits share what they find out about these."""


def train_models(
    world: Experiment, data: Data, parts: Split, runtime: Runtime, cache: Cache, workers: Workers
) -> Models:
    """Train what all methods of a world share, or take it from the cache.

    Args:
        world: The experiment; its method is of no matter.
        data: Its data set.
        parts: The data, split by its request.
        runtime: Where, with the world's seed.
        cache: Where to look first, and to keep what is trained.
        workers: Who trains the retrained networks.
    """
    original = _original(world, data, parts, runtime, cache)
    recipe = recipe_for(world, original, data, parts)
    members = grow(recipe, world.references + 1 + world.population, runtime, cache=cache, workers=workers)
    references = members[: world.references]
    shared = [("original", original), *((f"retrained {n}", one.model) for n, one in enumerate(references, start=1))]
    return Models(
        original=original,
        references=references,
        held_out=members[world.references :],
        recipe=recipe,
        evidence=tuple(gather(name, model, parts, runtime) for name, model in shared),
    )


def _original(world: Experiment, data: Data, parts: Split, runtime: Runtime, cache: Cache) -> nn.Module:
    """Return the original that `expunge run` would train, from the cache if it is there."""
    with runtime.seeded("train/init"):
        network = world.network.build(data)
    recipe = replace(recipe_for(world, network, data, parts), method=None, stacked=0)
    key = member_key(recipe, world.seed, runtime, fingerprint(data.train, workers=runtime.workers))
    hit = cache.find(key)
    if hit is None:
        own = runtime.fresh()
        original = train(world.network, data, world.training, own)
        cache.store(key, original, data, own.cost.total, torch.get_num_threads())
        return original
    model = copy_of(network)
    model.load_state_dict(hit[0])
    return model


def run_cell(
    cell: Experiment,
    told: Mapping[str, Any],
    models: Models,
    parts: Split,
    runtime: Runtime,
    cache: Cache,
    workers: Workers,
) -> Result:
    """Return the result of one method in a world; of `Retrain`, that of the held-out retrained network.

    Args:
        cell: The world's experiment with the method.
        told: The same as plain values, for the result.
        models: What the world's methods share.
        parts: The data, split by the world's request.
        runtime: Where, with the world's seed.
        cache: Where populations of unlearned networks are looked for.
        workers: Who trains these.
    """
    if isinstance(cell.method, Retrain):
        control, *others = models.held_out
        case = _case(models, control.model, others, parts, runtime)
        bill = with_retraining(_bill(models.recipe, control, parts, runtime), models.references)
        return judge(case, cell.audits, told, _subject(models, control.model), bill=bill, views=cell.views)
    forgotten = run_method(cell.method, models.original, parts, runtime, rebuild(models.original))
    recipe = replace(models.recipe, method=cell.method)
    population = grow(recipe, cell.population, runtime, cache=cache, workers=workers)
    return judge(
        _case(models, forgotten.model, population, parts, runtime),
        cell.audits,
        told,
        _subject(models, forgotten.model),
        bill=with_retraining(forgotten.bill, models.references),
        access=forgotten.access,
        pictures=forgotten.pictures,
        views=cell.views,
    )


def _subject(models: Models, unlearned: nn.Module) -> Subject:
    references = [weights_of(member.model) for member in models.references]
    return subject_of(weights_of(models.original), weights_of(unlearned), references, models.recipe.data)


def _case(models: Models, unlearned: nn.Module, population: Sequence[Member], parts: Split, runtime: Runtime) -> Case:
    original, *references = models.evidence
    return Case(
        split=parts,
        original=original,
        unlearned=gather("unlearned", unlearned, parts, runtime),
        retrained=tuple(references),
        runtime=runtime,
        unlearned_population=tuple(
            gather(f"unlearned {number}", member.model, parts, runtime)
            for number, member in enumerate(population, start=1)
        ),
    )


def _bill(recipe: Recipe, member: Member, parts: Split, runtime: Runtime) -> Bill:
    """Return what a retrained network cost: its measured seconds, and the operations of its passes over the rows.

    Of one that was trained in a stack no seconds are known.
    """
    kept, all_rows = len(parts["retain"]), len(recipe.data.train)
    passes = recipe.training.epochs
    return Bill(
        seconds={} if member.stacked else {"total": member.seconds},
        flops=epoch_flops(recipe.network, parts.input_size, kept) * passes,
        epoch_equivalents=passes * kept / all_rows,
        peak_memory_bytes=peak_memory_bytes(runtime.device),
    )
