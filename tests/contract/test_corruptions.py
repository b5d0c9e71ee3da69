"""What every corruption must do; each file of ``expunge.corruptions`` is taken in by its name."""

import copy
import dataclasses
import inspect
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.case import Case, open_case
from expunge.corruption import Corrupted, Corruption, Task, make_task
from expunge.data import Data
from expunge.datasets.shapes import Shapes
from expunge.experiment import DEFAULT_REQUEST, retrain, train
from expunge.finding import Finding
from expunge.network import Network
from expunge.rows import Indices, Rows, TakenRows
from expunge.runtime import Runtime, open_runtime
from expunge.settings import build, describe, find, names
from expunge.training import Training

CORRUPTIONS = names("corruptions")
AT_TOY_SIZE: dict[str, dict[str, Any]] = {
    "interclass_confusion": {"classes": [1, 2]},
    "backdoor": {"size": 1, "share": 0.15},
    "canaries": {"count": 30},
}
TRAINING = Training(epochs=30, batch_size=48, lr=0.01)


@pytest.fixture(scope="module")
def data() -> Data:
    return Shapes(classes=4, size=8, channels=1, train_rows=240, test_rows=160, noise=0.1).load()


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return open_runtime(device="cpu")


@pytest.fixture(scope="module", params=CORRUPTIONS)
def scored(request: pytest.FixtureRequest, data: Data, runtime: Runtime) -> tuple[Corruption, Task, Case]:
    """A corruption, its data, and a held-out retrained model in the place of the unlearned one."""
    corruption = make(request.param)
    task = make_task(data, DEFAULT_REQUEST, corruption, runtime)
    original = train(Network(name="mlp", args={"width": 32}), task.data, TRAINING, runtime)
    models = [retrain(original, task.whole, TRAINING, runtime, number).model for number in range(1, 6)]
    return corruption, task, open_case(task.whole, original, models[0], models[1:], runtime)


def make(name: str, **settings: Any) -> Corruption:
    corruption: Corruption = build("corruptions", {"name": name} | AT_TOY_SIZE.get(name, {}) | settings)
    return corruption


def score(corruption: Corruption, task: Task, case: Case) -> list[Finding]:
    assert task.corrupted is not None
    return corruption.score(case, task.corrupted)


def content(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    return rows.batch(np.arange(len(rows)))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_is_one_frozen_dataclass_with_defaults_and_a_source(name: str) -> None:
    cls = find("corruptions", name)
    assert cls.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))
    assert cls().known == 1.0
    assert isinstance(cls(), Corruption)
    about = inspect.getdoc(sys.modules[cls.__module__]) or ""
    assert about.startswith(f"{name}: ")
    assert "https://" in about
    assert build("corruptions", json.loads(json.dumps(describe(cls())))) == cls()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_manipulates_the_rows_that_it_names_and_no_others(data: Data, runtime: Runtime, name: str) -> None:
    before, labels = content(data.train)
    corrupted = make(name).corrupt(data, runtime)
    after, changed = content(corrupted.data.train)
    assert len(corrupted.rows) > 0
    assert np.all(np.diff(corrupted.rows) > 0)
    touched = torch.zeros(len(labels), dtype=torch.bool)
    touched[torch.from_numpy(corrupted.rows)] = True
    assert torch.equal(after[~touched], before[~touched])
    assert torch.equal(changed[~touched], labels[~touched])
    assert bool((changed[touched] != labels[touched]).all())
    assert np.array_equal(corrupted.truth, labels[touched].numpy())
    assert np.array_equal(corrupted.data.train.labels, changed.numpy())
    assert np.array_equal(corrupted.manipulated.labels, changed[touched].numpy())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_leaves_the_test_rows_and_the_data_that_it_was_given(data: Data, runtime: Runtime, name: str) -> None:
    before = [*content(data.train), *content(data.test)]
    corrupted = make(name).corrupt(data, runtime)
    content(corrupted.data.train)
    assert corrupted.data.test is data.test
    assert replace(corrupted.data, train=data.train) == data
    for old, new in zip(before, [*content(data.train), *content(data.test)], strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_one_seed_gives_the_same_rows_and_another_seed_others(data: Data, runtime: Runtime, name: str) -> None:
    first, second = (make(name).corrupt(data, runtime) for _ in range(2))
    assert np.array_equal(first.rows, second.rows)
    for left, right in zip(content(first.data.train), content(second.data.train), strict=True):
        assert torch.equal(left, right)
    assert not np.array_equal(first.rows, make(name).corrupt(data, runtime.fresh(seed=1)).rows)


class Untouchable:
    """Rows with labels and no inputs."""

    def __init__(self, rows: Rows) -> None:
        self.labels = rows.labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("a row was read")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_reads_no_row_of_normalised_data(data: Data, runtime: Runtime, name: str) -> None:
    sealed = replace(data, train=Untouchable(data.train), test=Untouchable(data.test), mean=(0.5,), std=(0.25,))
    corrupted = make(name).corrupt(sealed, runtime)
    assert len(corrupted.data.train) == len(data.train)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_batch_is_its_rows_one_by_one(data: Data, runtime: Runtime, name: str) -> None:
    corrupted = make(name).corrupt(data, runtime)
    indices = np.array([corrupted.rows[1], 2, corrupted.rows[0], 9])
    together = corrupted.data.train.batch(indices)
    apart = [corrupted.data.train.batch(np.array([index])) for index in indices]
    for position in (0, 1):
        assert torch.equal(together[position], torch.cat([row[position] for row in apart]))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_is_known_is_a_share_of_the_same_rows(data: Data, runtime: Runtime, name: str) -> None:
    whole, half = make(name).corrupt(data, runtime), make(name, known=0.5).corrupt(data, runtime)
    assert np.array_equal(whole.known, whole.rows)
    assert np.array_equal(half.rows, whole.rows)
    assert set(half.known) < set(half.rows)
    assert len(half.known) == round(len(half.rows) / 2)
    task = make_task(data, DEFAULT_REQUEST, make(name, known=0.5), runtime)
    assert task.asked.request.rows == tuple(half.known)
    assert task.whole.request.rows == tuple(half.rows)
    assert len(task.whole["retain"]) == len(data.train) - len(half.rows)


def test_the_original_is_outside_and_a_model_retrained_with_another_seed_inside(
    scored: tuple[Corruption, Task, Case],
) -> None:
    corruption, task, case = scored
    held_out = score(corruption, task, case)
    assert [finding.name for finding in held_out if not finding.inside] == []
    assert all(finding.level == 0 for finding in held_out)
    untouched = score(corruption, task, replace(case, unlearned=case.original))
    remembered = next(finding for finding in untouched if finding.name.endswith("/memorised"))
    assert remembered.inside is False
    assert remembered.band is not None
    assert remembered.unlearned is not None
    assert remembered.unlearned > max(0.6, remembered.band[1])


def test_the_order_of_rows_does_not_matter(scored: tuple[Corruption, Task, Case]) -> None:
    corruption, task, case = scored
    assert task.corrupted is not None
    shuffle = np.random.default_rng(0)
    order = shuffle.permutation(len(task.corrupted.rows))
    test = TakenRows(task.data.test, shuffle.permutation(len(task.data.test)).astype(np.int64))
    shuffled = Corrupted(
        data=replace(task.data, test=test),
        rows=task.corrupted.rows[order],
        known=task.corrupted.known,
        truth=task.corrupted.truth[order],
    )
    for left, right in zip(corruption.score(case, task.corrupted), corruption.score(case, shuffled), strict=True):
        assert (left.name, left.inside) == (right.name, right.inside)
        assert left.unlearned == pytest.approx(right.unlearned, abs=1e-9)
        assert left.original == pytest.approx(right.original, abs=1e-9)
        assert left.retrained == pytest.approx(right.retrained, abs=1e-9)


def test_scoring_changes_no_model_and_says_where_references_are_missing(scored: tuple[Corruption, Task, Case]) -> None:
    corruption, task, case = scored
    before = [(copy.deepcopy(one.model.state_dict()), one.model.training) for one in case.models]
    for finding in score(corruption, task, replace(case, retrained=())):
        assert (finding.retrained, finding.band, finding.inside) == (None, None, None)
        assert finding.note is not None
    for (weights, training), one in zip(before, case.models, strict=True):
        assert one.model.training == training
        assert all(torch.equal(weights[key], value) for key, value in one.model.state_dict().items())


def test_without_test_rows_what_needs_them_is_not_known(scored: tuple[Corruption, Task, Case]) -> None:
    corruption, task, case = scored
    assert task.corrupted is not None
    empty = TakenRows(task.data.test, np.zeros(0, dtype=np.int64))
    bare = replace(task.corrupted, data=replace(task.data, test=empty))
    for finding in corruption.score(case, bare):
        if finding.name.split("/")[1] in ("generalised", "success", "clean_accuracy") or finding.name.startswith(
            "backdoor/recovered"
        ):
            assert (finding.unlearned, finding.level) == (None, None)
            assert finding.note == "no rows to measure it on"
        else:
            assert finding.unlearned is not None
