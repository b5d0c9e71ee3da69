"""What every audit must do; each file of ``expunge.audits`` is taken in by its name."""

import copy
import dataclasses
import inspect
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conftest import TRAINING, Toy, make_toy
from expunge.case import Audit, Case, Evidence, open_case
from expunge.experiment import DEFAULT_AUDITS, retrain
from expunge.finding import JUDGED, Finding
from expunge.methods.head_mask import HeadMask
from expunge.network import Network
from expunge.rows import TakenRows
from expunge.settings import build, describe, find, names

AUDITS = names("audits")


AT_TOY_SIZE: dict[str, dict[str, Any]] = {
    "relearning": {"batch_size": 32, "max_epochs": 4, "retain_epochs": 1},  # as many steps as digits have by default
    "few_shot": {"shots": [10], "steps": 30},
}


@pytest.fixture(scope="module")
def world() -> Toy:
    """A toy with rows enough for every audit to count."""
    return make_toy(Network(name="small_cnn", args={"width": 8}), train_rows=480, test_rows=420)


@pytest.fixture(scope="module")
def case(world: Toy) -> Case:
    """Class 1 to forget, and a held-out retrained model in the place of the unlearned one."""
    parts = world.split(1)
    models = [retrain(world.model, parts, TRAINING, world.runtime, number).model for number in range(1, 10)]
    return open_case(parts, world.model, models[0], models[1:], world.runtime)


@pytest.mark.parametrize("name", AUDITS)
def test_is_one_frozen_dataclass_with_defaults_and_a_source(name: str) -> None:
    cls = find("audits", name)
    assert cls.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))
    assert cls.level in (None, 0, 1, 2, 3, 4)
    assert (inspect.getdoc(sys.modules[cls.__module__]) or "").startswith(f"{name}: ")
    assert build("audits", json.loads(json.dumps(describe(cls())))) == cls()


@pytest.mark.parametrize("name", AUDITS)
def test_changes_no_model(case: Case, name: str) -> None:
    models = [case.original.model, case.unlearned.model, *(one.model for one in case.retrained)]
    before = [copy.deepcopy(model) for model in models]
    make(name)(case)
    for model, old in zip(models, before, strict=True):
        assert [m.training for m in model.modules()] == [m.training for m in old.modules()]
        assert all(weight.grad is None for weight in model.parameters())
        for key, value in old.state_dict().items():
            assert model.state_dict()[key].equal(value), key


@pytest.mark.parametrize("name", AUDITS)
def test_two_audits_of_one_case_are_equal(case: Case, name: str) -> None:
    assert make(name)(case) == make(name)(afresh(case))


@pytest.mark.parametrize("name", [name for name in AUDITS if find("audits", name).level != 3])
def test_the_order_of_rows_does_not_matter(case: Case, name: str) -> None:
    """Recovery audits train, and training goes through rows in an order; all others must not care."""
    shuffle = np.random.default_rng(0)
    parts = {
        part: TakenRows(rows, shuffle.permutation(len(rows)).astype(np.int64))
        for part, rows in case.split.parts.items()
    }
    models = [one.model for one in case.retrained]
    shuffled = open_case(
        replace(case.split, parts=parts), case.original.model, case.unlearned.model, models, case.runtime
    )
    for left, right in zip(make(name)(case), make(name)(shuffled), strict=True):
        assert left.name == right.name
        assert left.unlearned == pytest.approx(right.unlearned, abs=1e-6), left.name
        assert left.retrained == pytest.approx(right.retrained, abs=1e-6), left.name
        assert left.inside == right.inside, left.name


@pytest.mark.parametrize("name", AUDITS)
def test_a_model_retrained_with_another_seed_passes(case: Case, name: str) -> None:
    outside = [finding.name for finding in make(name)(case) if finding.inside is False]
    assert outside == []


@pytest.mark.parametrize("name", AUDITS)
def test_without_a_reference_it_says_so(case: Case, name: str) -> None:
    alone = replace(case, retrained=())
    for finding in make(name)(alone):
        assert finding.retrained is None
        assert finding.band is None
        assert finding.inside is None
        assert finding.note is not None, finding.name


@pytest.mark.parametrize("name", [name for name in AUDITS if find("audits", name).level is not None])
def test_doing_nothing_fails_or_is_said_to_be_beyond_the_audit(case: Case, name: str) -> None:
    judged = [found for found in make(name)(replace(case, unlearned=case.original)) if found.level is not None]
    assert judged
    assert not passes(judged) or all(
        found.informative is False and "not informative here" in (found.note or "") for found in judged
    )


def test_no_more_findings_count_than_bands_are_corrected_for(case: Case) -> None:
    """The default audits at least; a longer list of own audits makes the joint confidence smaller than stated."""
    judged = [found.name for audit in DEFAULT_AUDITS for found in audit(case) if found.level is not None]
    assert len(judged) <= JUDGED


def test_what_was_found_out_of_a_model_is_shared_by_cases_and_computed_once(case: Case) -> None:
    calls: list[Evidence] = []

    def count(evidence: Evidence) -> int:
        calls.append(evidence)
        return len(calls)

    shared = afresh(case)
    first = shared.each("key", count)
    assert list(first) == list(shared.models)
    another = replace(shared, unlearned=replace(shared.unlearned))
    second = another.each("key", count)
    assert len(calls) == len(shared.models) + 1
    assert all(second[evidence] == first[evidence] for evidence in (shared.original, *shared.retrained))
    assert shared.each("other", count)[shared.original] == len(shared.models) + 2


@pytest.mark.parametrize("logit", [-5.0, -30.0, -1000.0])
def test_hiding_the_logit_passes_the_accuracies_and_comes_back(case: Case, world: Toy, logit: float) -> None:
    parts = case.split
    masked = HeadMask(logit=logit)(world.model, world.access(parts, HeadMask.reads), world.runtime.fresh())
    references = [one.model for one in case.retrained]
    hidden = open_case(parts, world.model, masked, references, case.runtime)
    assert passes(make("accuracy")(hidden))
    assert recovers(make("few_shot")(hidden))
    assert recovers(make("head_bias")(hidden))
    assert not passes(make("similarity")(hidden))
    assert not passes(make("head")(hidden))


def afresh(case: Case) -> Case:
    """Return the same case with nothing found out yet."""
    original, unlearned, *retrained = (replace(evidence) for evidence in case.models)
    return replace(case, original=original, unlearned=unlearned, retrained=tuple(retrained))


def passes(findings: list[Finding]) -> bool:
    return all(finding.inside for finding in findings if finding.level is not None)


def recovers(findings: list[Finding]) -> bool:
    """Return whether a number that counts is above its band: not only unlike retraining, but because of memory."""
    judged = [(one.unlearned, one.band) for one in findings if one.level is not None]
    return any(number is not None and band is not None and number > band[1] for number, band in judged)


def make(name: str) -> Audit:
    audit: Audit = build("audits", {"name": name} | AT_TOY_SIZE.get(name, {}))
    return audit
