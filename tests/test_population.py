"""Populations and their cache: what is reused, what is made again, and that nobody's work gets mixed up."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Toy
from expunge import population
from expunge.cache import ENTRY, Cache, name_of
from expunge.data import split
from expunge.datasets.shapes import Shapes
from expunge.errors import OutputError, SettingsError
from expunge.fingerprints import fingerprint
from expunge.methods.head_mask import HeadMask
from expunge.methods.retrain import Retrain
from expunge.model_files import WEIGHTS
from expunge.network import copy_of, rebuild
from expunge.population import (
    Member,
    Recipe,
    Workers,
    as_backend,
    grow,
    grow_both,
    mean_seconds,
    member_key,
    member_seed,
    retrain,
    train_stacked,
)
from expunge.provenance import with_retraining
from expunge.request import Request
from expunge.result import Bill
from expunge.rows import TensorRows
from expunge.training import Training

SHAPES = Shapes(classes=4, size=8, channels=1, train_rows=320, test_rows=160, noise=0.3)
TRAINING = Training(epochs=1)


@pytest.fixture
def recipe(toy: Toy) -> Recipe:
    method = Retrain(training=TRAINING)
    return Recipe(
        network=toy.model, dataset=SHAPES, data=toy.data, parts=toy.split(1), training=TRAINING, method=method
    )


def weights(member: Member) -> dict[str, list[float]]:
    return {name: value.tolist() for name, value in member.model.state_dict().items()}


def test_a_population_is_the_retrained_models_one_by_one(toy: Toy, recipe: Recipe) -> None:
    members = grow(recipe, 2, toy.runtime)
    for number, member in enumerate(members, start=1):
        alone = retrain(toy.model, recipe.parts, TRAINING, toy.runtime, number)
        assert weights(member) == {name: value.tolist() for name, value in alone.model.state_dict().items()}
        assert member.seconds > 0
        assert not member.reused
    assert weights(members[0]) != weights(members[1])


def test_what_was_made_before_is_taken_from_the_cache_with_its_seconds(
    toy: Toy, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = grow(recipe, 2, toy.runtime, cache=Cache(tmp_path))
    third = grow(recipe, 3, toy.runtime, cache=Cache(tmp_path))
    assert [member.reused for member in third] == [True, True, False]
    assert [member.seconds for member in third[:2]] == [member.seconds for member in first]
    assert [weights(member) for member in third[:2]] == [weights(member) for member in first]
    assert third[0].model.training == toy.model.training

    def fail(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(population, "_make", fail)
    assert all(member.reused for member in grow(recipe, 3, toy.runtime, cache=Cache(tmp_path)))


def test_everything_that_decides_the_weights_is_in_the_key(toy: Toy, recipe: Recipe) -> None:
    def key(changed: Recipe, seed: int = 0) -> str:
        rows = fingerprint(population._trained_on(changed))
        return name_of(member_key(changed, seed, toy.runtime, rows))

    frozen = replace(recipe, network=copy_of(recipe.network))
    next(frozen.network.parameters()).requires_grad_(False)
    moved = replace(frozen, network=copy_of(frozen.network))
    with torch.no_grad():
        next(moved.network.parameters()).add_(1)
    other_files = replace(toy.data, train=TensorRows(*toy.data.train.batch(np.arange(320)[::-1].copy())))
    names = [
        key(recipe),
        key(recipe, seed=1),
        key(replace(recipe, dataset=replace(SHAPES, noise=0.4))),
        key(replace(recipe, parts=toy.split(2))),
        key(replace(recipe, parts=split(other_files, Request(classes=(1,))))),
        key(replace(recipe, training=replace(TRAINING, epochs=2))),
        key(replace(recipe, method=None)),
        key(replace(recipe, stacked=2)),
        key(replace(recipe, method=HeadMask())),
        key(frozen),
        key(moved),
    ]
    assert len(set(names)) == len(names)
    assert key(recipe) == key(replace(recipe, network=copy_of(recipe.network)))
    assert key(replace(recipe, stacked=2)) == key(replace(recipe, stacked=64))
    for field, value in (("precision", "64-true"), ("seed", 5)):
        changed = member_key(recipe, 0, toy.runtime, "") | {field: value}
        assert name_of(changed) != name_of(member_key(recipe, 0, toy.runtime, ""))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights cut short": lambda path: (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-4]),
    "weights changed": lambda path: (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-1] + b"\x7f"),
    "no weights": lambda path: (path / WEIGHTS).unlink(),
    "no entry": lambda path: (path / ENTRY).unlink(),
    "no JSON": lambda path: (path / ENTRY).write_text("{"),
    "another key": lambda path: (path / ENTRY).write_text((path / ENTRY).read_text().replace("adamw", "adam")),
    "nothing at all": empty,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_again_and_never_trusted(toy: Toy, recipe: Recipe, tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    before = grow(recipe, 1, toy.runtime, cache=cache)[0]
    DAMAGES[damage](tmp_path / cache.entries()[0].name)
    again = grow(recipe, 1, toy.runtime, cache=cache)[0]
    assert not again.reused
    assert weights(again) == weights(before)
    assert grow(recipe, 1, toy.runtime, cache=cache)[0].reused


def test_writers_at_the_same_time_leave_one_whole_entry(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    cache, key = Cache(tmp_path), {"seed": 1}
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(5):
                cache.store(key, toy.model, toy.data, 1.0, 1)
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    assert os.listdir(tmp_path) == [name_of(key)]
    assert cache.find(key) is not None


def test_the_weights_do_not_depend_on_the_number_of_jobs(toy: Toy, recipe: Recipe) -> None:
    threads = torch.get_num_threads()
    one, two = (grow(recipe, 3, toy.runtime, workers=Workers(jobs=jobs)) for jobs in (1, 2))
    assert [weights(member) for member in one] == [weights(member) for member in two]
    here = grow(recipe, 3, toy.runtime)  # the tests have one thread
    assert [weights(member) for member in one] == [weights(member) for member in here]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", ["originals", "retrained"])
def test_a_stacked_population_is_stacks_of_its_seeds_and_is_found_again(
    toy: Toy, recipe: Recipe, tmp_path: Path, kind: str
) -> None:
    recipe = replace(recipe, stacked=2, method=recipe.method if kind == "retrained" else None)
    members = grow(recipe, 3, toy.runtime, cache=Cache(tmp_path))
    rows, stage = (recipe.parts["retain"], "retrain") if kind == "retrained" else (toy.data.train, "train")
    seeds = [member_seed(toy.runtime.seed, number) for number in (1, 2, 3)]
    states = train_stacked(rebuild(toy.model), rows, toy.runtime, TRAINING, seeds, stage=stage, at_once=2)
    one_by_one = grow(replace(recipe, stacked=0), 3, toy.runtime)
    for member, state, other in zip(members, states, one_by_one, strict=True):
        assert weights(member) == {name: value.tolist() for name, value in state.items()}
        for name, value in other.model.state_dict().items():
            torch.testing.assert_close(member.model.state_dict()[name], value, rtol=0, atol=0.01, msg=name)
        assert (member.stacked, member.reused, other.stacked) == (True, False, False)
    again = grow(recipe, 4, toy.runtime, cache=Cache(tmp_path))
    assert [member.reused for member in again] == [True, True, True, False]
    assert [weights(member) for member in again[:3]] == [weights(member) for member in members]
    assert all(member.stacked for member in again)


def test_what_was_stacked_is_never_taken_for_what_was_not(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    cache, stacked = Cache(tmp_path), replace(recipe, stacked=8)
    grow(stacked, 1, toy.runtime, cache=cache)
    assert [member.reused for member in grow(recipe, 1, toy.runtime, cache=cache)] == [False]
    assert [member.reused for member in grow(stacked, 1, toy.runtime, cache=cache)] == [True]
    masks = replace(recipe, method=HeadMask())
    grow(masks, 1, toy.runtime, cache=cache)
    assert [member.reused for member in grow(replace(masks, stacked=8), 1, toy.runtime, cache=cache)] == [False]


def test_methods_unlearn_stacked_originals_one_after_another(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, stacked=2)
    members = grow(replace(recipe, method=HeadMask()), 2, toy.runtime, cache=Cache(tmp_path))
    originals = grow(replace(recipe, method=None), 2, toy.runtime, cache=Cache(tmp_path))
    assert [original.reused for original in originals] == [True, True]
    for member, original in zip(members, originals, strict=True):
        assert not member.stacked
        assert weights(member)["head.weight"][0] == weights(original)["head.weight"][0]


def test_a_share_of_a_stack_is_not_given_for_the_time_of_one_retraining(toy: Toy) -> None:
    alone, stacked = (
        Member(model=toy.model, seconds=seconds, reused=True, stacked=one)
        for seconds, one in ((4.0, False), (0.1, True))
    )
    assert mean_seconds([alone, stacked]) == 4.0
    assert mean_seconds([stacked]) is None
    bill = Bill(seconds={"total": 1.0}, flops=1, epoch_equivalents=None, peak_memory_bytes=1)
    assert with_retraining(bill, [stacked]) == replace(bill, reused=1)
    assert with_retraining(bill, [alone]) == replace(bill, seconds={"total": 1.0, "retrain": 4.0}, reused=1)
    assert with_retraining(bill, []) == bill


def test_processes_fill_the_cache_that_a_run_without_them_uses(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    made = grow(recipe, 2, toy.runtime, cache=Cache(tmp_path), workers=Workers(jobs=2))
    assert [member.reused for member in made] == [False, False]
    assert [member.reused for member in grow(recipe, 2, toy.runtime, cache=Cache(tmp_path))] == [True, True]


def test_ray_gives_the_same_weights(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'expunge[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        there = grow(recipe, 2, toy.runtime, workers=Workers(jobs=2, backend="ray"))
    finally:
        ray.shutdown()
    here = grow(recipe, 2, toy.runtime, workers=Workers(jobs=1))
    assert [weights(member) for member in there] == [weights(member) for member in here]


def test_without_ray_the_backend_says_what_to_install(
    toy: Toy, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(SettingsError, match=r"pip install 'expunge\[ray\]'"):
        grow(recipe, 1, toy.runtime, workers=Workers(jobs=1, backend="ray"))


def test_unlearned_models_come_each_from_an_original_of_its_own(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    masks = replace(recipe, method=HeadMask())
    members = grow(masks, 2, toy.runtime, cache=Cache(tmp_path))
    originals = grow(replace(recipe, method=None), 2, toy.runtime, cache=Cache(tmp_path))
    assert [original.reused for original in originals] == [True, True]
    for member, original in zip(members, originals, strict=True):
        assert weights(member)["head.bias"] != weights(original)["head.bias"]
        assert weights(member)["head.weight"][0] == weights(original)["head.weight"][0]


def test_no_model_is_retrained_and_unlearned_at_once(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.method is not None
    references, further = grow_both(recipe, recipe.method, recipe.parts, 2, 1, toy.runtime, cache=Cache(tmp_path))
    assert [weights(one) for one in (*references, *further)] == [
        weights(one) for one in grow(recipe, 3, toy.runtime, cache=Cache(tmp_path))
    ]
    references, masked = grow_both(recipe, HeadMask(), recipe.parts, 2, 1, toy.runtime, cache=Cache(tmp_path))
    assert all(one.reused for one in references)
    expected = grow(replace(recipe, method=HeadMask()), 1, toy.runtime, cache=Cache(tmp_path))
    assert [weights(one) for one in masked] == [weights(one) for one in expected]


def test_the_global_generator_is_left_alone(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    for _ in range(2):
        grow(recipe, 1, toy.runtime, cache=Cache(tmp_path))
    assert torch.get_rng_state().equal(before)


def test_clearing_removes_models_and_nothing_else(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    grow(recipe, 1, toy.runtime, cache=cache)
    name = cache.entries()[0].name
    (tmp_path / f".{name}-abc").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "letter").write_text("")
    assert cache.clear() == 1
    assert sorted(os.listdir(tmp_path)) == ["letter", "precious"]
    assert cache.clear() == 0


def test_a_damaged_entry_is_listed_as_such(toy: Toy, recipe: Recipe, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    grow(recipe, 1, toy.runtime, cache=cache)
    (listed,) = cache.entries()
    assert listed.entry is not None
    assert listed.entry.key["request"] == {"classes": [1], "rows": []}
    assert json.dumps(listed.entry.key)
    (tmp_path / listed.name / WEIGHTS).unlink()
    assert cache.entries()[0].entry is None


def test_a_cache_that_cannot_be_written_says_so_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="set EXPUNGE_CACHE to another folder, or give --no-cache"):
        Cache.default()


@pytest.mark.parametrize(
    ("system", "wanted"), [("Linux", ".cache"), ("Darwin", "Library/Caches"), ("Windows", "AppData/Local")]
)
def test_the_default_cache_is_where_the_platform_keeps_caches(
    system: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EXPUNGE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: system)
    assert Cache.default().folder == tmp_path / wanted / "expunge"


def test_bad_workers_are_refused(recipe: Recipe) -> None:
    with pytest.raises(SettingsError, match="expected jobs >= 1, got 0"):
        Workers(jobs=0)
    with pytest.raises(SettingsError, match="expected stacked >= 0, got -1"):
        replace(recipe, stacked=-1)
    with pytest.raises(SettingsError, match="expected a backend local or ray, got 'moon'"):
        as_backend("moon")
