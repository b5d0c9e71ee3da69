"""Population: many models of one recipe, each from a seed of its own, trained side by side or taken from the cache.

A population of retrained models says where retraining leads, of which one retrained model is one draw. A population of
unlearned models says where a method leads: each is made by the method from an original of its own, since a method
without randomness gives one original always the same model.

Small networks that are trained from scratch can be trained many at once, as one stack. Sums are then taken in another
order, which training makes more of: after some epochs the weights are others than those of one after another, though
from the same seeds and as good as any. So the key of a model says whether it was stacked, and one is never taken for
the other; how many were in its stack may move its last bits, and is no part of the key.

Processes that train side by side have one PyTorch thread each, so that a model's weights do not depend on how many of
them there are. Without them models are trained one after the other in this process, with all its threads; on a CPU the
number of threads may move the last bits of a weight, and so is noted with each model but is no part of its key.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from expunge.blueprint import blueprint_of
from expunge.cache import Cache
from expunge.case import Method
from expunge.data import Data, Split
from expunge.datasets import Dataset
from expunge.errors import DivergedError, SettingsError
from expunge.fingerprints import fingerprint, tensors_hash
from expunge.forgetting import Forgotten, run_method
from expunge.methods.retrain import Retrain
from expunge.network import copy_of, rebuild
from expunge.rows import Rows
from expunge.runtime import Runtime, open_runtime
from expunge.settings import describe, to_mapping
from expunge.stacked import train_stacked as train_stacked
from expunge.training import Training, fit

SCHEMA = 2
"""Raised when the same settings come to train other weights, so that models of before are not found any more."""
Backend = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights of every model of a population, but for its seed."""

    network: nn.Module
    """Every model has its architecture and its frozen weights, and is left on its device and in its mode."""
    dataset: Dataset
    data: Data
    parts: Split
    training: Training
    method: Method | None
    """How a model forgets: `Retrain` from scratch, any other from an original of its own. None makes originals."""
    stacked: int = 0
    """The most networks that are trained from scratch at once, as one stack; 0 trains one after another."""

    def __post_init__(self) -> None:
        if self.stacked < 0:
            raise SettingsError(f"expected stacked >= 0, got {self.stacked}")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who trains."""

    jobs: int | None = None
    """Processes side by side, with one PyTorch thread each; None for this process with all its threads."""
    backend: Backend = "local"
    """Processes of this machine, or those of a Ray cluster."""

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"expected jobs >= 1, got {self.jobs}")


HERE = Workers()
"""This process."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model of a population."""

    model: nn.Module
    seconds: float
    """What making it took, measured when it was made; in a stack its share of what the stack took."""
    reused: bool
    """Whether it was made before and came from the cache."""
    stacked: bool = False
    """Whether it was trained in a stack, so that its seconds are not those of a training by itself."""


def as_backend(word: str) -> Backend:
    """Return a word as a backend.

    Raises:
        SettingsError: It is none.
    """
    for backend in get_args(Backend):
        if word == backend:
            return backend  # type: ignore[no-any-return]
    raise SettingsError(f"expected a backend local or ray, got {word!r}")


def retrain(original: nn.Module, parts: Split, training: Training, runtime: Runtime, number: int) -> Forgotten:
    """Return the `number`-th reference: trained without the forgotten rows, with a seed of its own."""
    seeded = runtime.fresh(seed=member_seed(runtime.seed, number))
    return run_method(Retrain(training=training), original, parts, seeded, rebuild(original))


def member_seed(seed: int, number: int) -> int:
    """Return the seed of the `number`-th model of a population, counted from 1."""
    return 1_000_003 * number + seed


def grow(
    recipe: Recipe, count: int, runtime: Runtime, *, cache: Cache | None = None, workers: Workers = HERE
) -> list[Member]:
    """Return the first `count` models of a population, from the cache where they are there.

    Args:
        recipe: What to make.
        count: How many.
        runtime: Where; the seeds are `member_seed` of its own.
        cache: Where to look first, and to store each model as soon as it is made; None makes all anew.
        workers: Who trains.

    Raises:
        ExpungeError: Something that the caller can put right.
        SettingsError: Ray is asked for and not installed.
        ModelError: Networks are to be stacked that cannot be.
    """
    keys = _keys(recipe, count, runtime) if cache else {}
    found = _find(recipe, keys, cache)
    to_make = [number for number in range(1, count + 1) if number not in found]
    starts = dict.fromkeys(to_make, recipe.network)
    if to_make and not _from_scratch(recipe):
        originals = grow(replace(recipe, method=None), max(to_make), runtime, cache=cache, workers=workers)
        starts = {number: originals[number - 1].model for number in to_make}
    for made in _make_all(recipe, starts, runtime, workers):
        member = found[made.number] = _member(recipe, made.weights, made.seconds, reused=False)
        if cache:
            cache.store(keys[made.number], member.model, recipe.data, made.seconds, made.threads)
    return [found[number] for number in range(1, count + 1)]


def missing(recipe: Recipe, count: int, runtime: Runtime, *, cache: Cache | None) -> list[int]:
    """Return the numbers of the models, among the first `count`, that `grow` would have to make."""
    found = _find(recipe, _keys(recipe, count, runtime) if cache else {}, cache)
    return [number for number in range(1, count + 1) if number not in found]


def _keys(recipe: Recipe, count: int, runtime: Runtime) -> dict[int, dict[str, Any]]:
    rows = fingerprint(_trained_on(recipe), workers=runtime.workers) if count else ""
    numbers = range(1, count + 1)
    return {number: member_key(recipe, member_seed(runtime.seed, number), runtime, rows) for number in numbers}


def _find(recipe: Recipe, keys: dict[int, dict[str, Any]], cache: Cache | None) -> dict[int, Member]:
    found = {}
    for number, key in keys.items():
        hit = cache.find(key) if cache else None
        if hit is not None:
            found[number] = _member(recipe, hit[0], hit[1].seconds, reused=True)
    return found


def grow_both(
    recipe: Recipe,
    method: Method,
    asked: Split,
    references: int,
    unlearned: int,
    runtime: Runtime,
    *,
    cache: Cache | None = None,
    workers: Workers = HERE,
) -> tuple[list[Member], list[Member]]:
    """Return the first retrained models of a recipe, and as many unlearned by a method as are wanted; see `grow`.

    The method is told of what `asked` forgets, which may be less than the recipe leaves out. No model is in both: where
    the method is to retrain as the recipe does, the unlearned are those that come next.
    """
    if method == recipe.method and asked.request == recipe.parts.request:
        members = grow(recipe, references + unlearned, runtime, cache=cache, workers=workers)
        return members[:references], members[references:]
    return (
        grow(recipe, references, runtime, cache=cache, workers=workers),
        grow(replace(recipe, method=method, parts=asked), unlearned, runtime, cache=cache, workers=workers),
    )


def member_key(recipe: Recipe, seed: int, runtime: Runtime, rows: str) -> dict[str, Any]:
    """Return everything that decides the weights of one model, as plain values.

    Args:
        recipe: What is made.
        seed: The model's seed.
        runtime: Gives precision and kind of device.
        rows: Fingerprint of the rows that it is trained on: no setting can tell whether a folder's files have changed.
    """
    frozen = {name: weight for name, weight in recipe.network.named_parameters() if not weight.requires_grad}
    blueprint = blueprint_of(recipe.network)
    key = {
        "schema": SCHEMA,
        "torch": torch.__version__,
        "dataset": describe(recipe.dataset),
        "rows": rows,
        "request": None if recipe.method is None else to_mapping(recipe.parts.request),
        "network": blueprint.key() if blueprint else {"name": None, "args": None},
        "frozen": tensors_hash(frozen) if frozen else None,
        "training": to_mapping(recipe.training),
        "method": {"name": "train"} if recipe.method is None else describe(recipe.method),
        "seed": seed,
        "precision": runtime.precision,
        "device": runtime.device.type,
    }
    return key | {"stacked": True} if recipe.stacked else key


@dataclass(frozen=True, kw_only=True)
class _Made:
    number: int
    weights: dict[str, Tensor]
    seconds: float
    threads: int


def _make_all(recipe: Recipe, starts: dict[int, nn.Module], runtime: Runtime, workers: Workers) -> Iterator[_Made]:
    """Yield models as they are done, in any order."""
    if not starts:
        return
    if recipe.stacked and _from_scratch(recipe):
        yield from _make_stacked(recipe, list(starts), runtime)
        return
    if workers.jobs is None:
        for number, start in starts.items():
            yield _make(recipe, start, runtime.fresh(seed=member_seed(runtime.seed, number)), number)
        return
    from joblib import Parallel, delayed

    where = (str(runtime.device), runtime.precision)
    with _backend(workers.backend), runtime.stage("population", len(starts)) as advance:
        # Ray's backend hands out nothing before all is done, so that an interrupted run leaves nothing in the cache
        parallel = Parallel(
            n_jobs=workers.jobs, return_as="generator_unordered" if workers.backend == "local" else "list"
        )
        tasks = [
            delayed(_work)(recipe, start, number, member_seed(runtime.seed, number), *where)
            for number, start in starts.items()
        ]
        for made in parallel(tasks):
            advance(1)
            yield made


def _make_stacked(recipe: Recipe, numbers: Sequence[int], runtime: Runtime) -> Iterator[_Made]:
    training, stage = (
        (recipe.method.training, "retrain") if isinstance(recipe.method, Retrain) else (recipe.training, "train")
    )
    for chunk in (numbers[start : start + recipe.stacked] for start in range(0, len(numbers), recipe.stacked)):
        seeds = [member_seed(runtime.seed, number) for number in chunk]
        here = runtime.fresh()
        states = train_stacked(
            rebuild(recipe.network), _trained_on(recipe), here, training, seeds, stage=stage, at_once=recipe.stacked
        )
        seconds, threads = here.cost.total / len(chunk), torch.get_num_threads()
        for number, weights in zip(chunk, states, strict=True):
            yield _Made(number=number, weights=weights, seconds=seconds, threads=threads)


def _work(recipe: Recipe, start: nn.Module, number: int, seed: int, device: str, precision: str) -> _Made:
    """Make one model in a process of its own, or in this one as if it were: with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _make(recipe, start, open_runtime(device=device, precision=precision, seed=seed), number)
    finally:
        torch.set_num_threads(threads)


def _make(recipe: Recipe, start: nn.Module, runtime: Runtime, number: int) -> _Made:
    if recipe.method is None:
        with runtime.seeded("train/init"):
            model = rebuild(start)()
        fit(model, recipe.data.train, runtime, recipe.training, stage="train")
        seconds, events = runtime.cost.total, tuple(runtime.cost.events)
    else:
        forgotten = run_method(recipe.method, start, recipe.parts, runtime, rebuild(start))
        model, seconds, events = forgotten.model, forgotten.bill.seconds["total"], forgotten.bill.events
    if events:
        raise DivergedError(f"expected model {number} to train as its recipe says, got: {events[0]}")
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    return _Made(number=number, weights=weights, seconds=seconds, threads=torch.get_num_threads())


def _from_scratch(recipe: Recipe) -> bool:
    return recipe.method is None or isinstance(recipe.method, Retrain)


def _trained_on(recipe: Recipe) -> Rows:
    return recipe.parts["retain"] if isinstance(recipe.method, Retrain) else recipe.data.train


def _member(recipe: Recipe, weights: dict[str, Tensor], seconds: float, *, reused: bool) -> Member:
    model = copy_of(recipe.network)
    model.load_state_dict(weights)
    stacked = recipe.stacked > 0 and _from_scratch(recipe)
    return Member(model=model, seconds=seconds, reused=reused, stacked=stacked)


@contextmanager
def _backend(name: Backend) -> Iterator[None]:
    from joblib import parallel_config

    if name == "ray":
        try:
            importlib.import_module("ray.util.joblib").register_ray()
        except ImportError as error:
            raise SettingsError(f"expected Ray for --backend ray, got: {error}: pip install 'expunge[ray]'") from None
    with nullcontext() if name == "local" else parallel_config(backend="ray"):
        yield


def mean_seconds(members: Sequence[Member]) -> float | None:
    """Return the mean of what making each by itself took; None if none was made by itself."""
    seconds = [member.seconds for member in members if not member.stacked]
    return sum(seconds) / len(seconds) if seconds else None
