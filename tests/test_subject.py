"""Which models a result is about: told by their hashes; and retrained models that are none are refused."""

import copy
import hashlib
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from conftest import TRAINING, Toy
from examples import EXPERIMENT, example_result
from expunge import audit, forget, render
from expunge.audits.accuracy import Accuracy
from expunge.errors import ModelError, RequestError
from expunge.experiment import experiment_from
from expunge.experiment import run as run_experiment
from expunge.fingerprints import glance, tensors_hash
from expunge.methods.retrain import Retrain
from expunge.result import Result, Subject, Weights, from_json
from expunge.runtime import Runtime
from test_cli import SHAPES, call, models
from test_report import Page

assert models  # the fixture
QUICK = (Accuracy(),)


def audited(
    capsys: pytest.CaptureFixture[str], models: Path, out: Path, *retrained: str, asked: str = "1"
) -> tuple[int, str]:
    words = [word for name in retrained for word in ("--retrained", str(models / name))]
    folders = [str(models / "original"), str(models / "unlearned")]
    given = [*folders, *words, *SHAPES, "--classes", asked, "--audits", "accuracy", "--out", str(out)]
    code, _, err = call(capsys, "audit", *given)
    return code, err


@pytest.mark.parametrize(
    ("retrained", "message"),
    [
        (
            ["retrained-1", "retrained-1"],
            r"got \S*retrained-1 \(2\) with the weights of \S*retrained-1 \(1\): leave it",
        ),
        (["retrained-1", "original"], r"got \S*original \(2\) with the weights of the original: leave it out"),
        (["retrained-1", "copy"], r"with the weights of the unlearned model: leave it out"),
        (["retrained-1", "unlearned"], "expected a model retrained without what was to be forgotten, got .*'unsir'"),
        (["again"], "expected a model retrained without class 'shape-1', got .*, retrained without class 'shape-2'"),
        (["more"], "without class 'shape-1', got .*, retrained without class 'shape-1' and class 'shape-2'"),
    ],
)
def test_a_folder_that_holds_no_retrained_model_is_refused(
    retrained: list[str], message: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parent, name in (("original", "again"), ("retrained-1", "more")):
        words = [str(models / parent), *SHAPES, "--classes", "2", "--method", "retrain", "--set", "training.epochs=1"]
        if not (models / name).exists():
            assert call(capsys, "forget", *words, "--out", str(models / name))[0] == 0
    if not (models / "copy").exists():
        shutil.copytree(models / "unlearned", models / "copy")
        config = json.loads((models / "copy" / "config.json").read_text())
        del config["expunge"]["history"]
        (models / "copy" / "config.json").write_text(json.dumps(config))
    code, err = audited(capsys, models, tmp_path / "a.json", *retrained)
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(message, err)
    assert not (tmp_path / "a.json").exists()


def test_models_retrained_after_an_earlier_request_do_for_both(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--method", "retrain", "--set", "training.epochs=1"]
    for seed, parent, asked, name in (
        ("1", models / "unlearned", "2", "second"),
        ("2", models / "original", "1,2", "both"),
        ("3", models / "unlearned", "2", "made"),
    ):
        how = ["--method", "finetune"] if name == "made" else quick
        words = [
            "forget",
            str(parent),
            *SHAPES,
            "--classes",
            asked,
            *how,
            "--seed",
            seed,
            "--out",
            str(tmp_path / name),
        ]
        assert call(capsys, *words)[0] == 0
    given = [word for name in ("second", "both") for word in ("--retrained", str(tmp_path / name))]
    for original in ("original", "unlearned"):
        words = [str(models / original), str(tmp_path / "made"), *given, *SHAPES, "--audits", "accuracy"]
        assert call(capsys, "audit", *words, "--out", str(tmp_path / f"{original}.json"))[::2] == (0, "")


def test_a_result_names_its_models_and_data_by_hash(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], toy: Toy
) -> None:
    assert audited(capsys, models, tmp_path / "a.json", "retrained-1", "retrained-2") == (0, "")
    result = from_json(Result, (tmp_path / "a.json").read_text(), "a.json")
    subject = result.subject
    assert subject is not None
    names = ("original", "unlearned", "retrained-1", "retrained-2")
    files = [hashlib.sha256((models / name / "model.safetensors").read_bytes()).hexdigest() for name in names]
    assert [one.sha256 for one in (subject.original, subject.unlearned, *subject.retrained)] == files
    assert {one.of for one in (subject.original, *subject.retrained)} == {"file"}
    assert subject.given == 2
    assert abs((datetime.now(UTC) - datetime.fromisoformat(subject.judged)).total_seconds()) < 600
    page = Page(render(result)).text
    assert all(digest in page for digest in (*files, *subject.data.values()))
    assert "2 of the retrained networks were supplied, and no setting here makes them again" in page
    assert "repeats to the last bit" not in page
    assert "Data shapes" in page
    assert re.search(r"Judged \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", page)


def test_an_experiment_repeats_to_the_last_bit_and_its_references_tell_what_they_are(
    tmp_path: Path, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {
        "references": 2,
        "audits": ["accuracy"],
        "dataset": {"name": "shapes", "classes": 4, "size": 8, "train_rows": 160, "test_rows": 80},
        "network": {"name": "mlp", "args": {"width": 8}},
        "training": {"epochs": 1},
        "request": {"classes": [1]},
    }
    runtime: Runtime = toy.runtime
    result = run_experiment(experiment_from(values), runtime, tmp_path / "out")
    assert result.subject is not None
    for name, weights in (("unlearned", result.subject.unlearned), ("retrained-2", result.subject.retrained[1])):
        assert (
            hashlib.sha256((tmp_path / "out" / name / "model.safetensors").read_bytes()).hexdigest() == weights.sha256
        )
    assert result.subject.given == 0
    assert "repeats to the last bit" in Page(render(result)).text
    folders = [str(tmp_path / "out" / name) for name in ("original", "unlearned", "retrained-1")]
    words = ["audit", *folders[:2], "--retrained", folders[2], *SHAPES, "--audits", "accuracy"]
    assert call(capsys, *words, "--out", str(tmp_path / "a.json"))[0] == 0
    config = json.loads((tmp_path / "out" / "retrained-2" / "config.json").read_text())["expunge"]
    assert (config["history"][0]["request"], config["history"][0]["method"]["name"]) == ({"classes": [1]}, "retrain")
    assert (
        config["history"][0]["seed"]
        != json.loads(Path(folders[2], "config.json").read_text())["expunge"]["history"][0]["seed"]
    )


def test_a_result_of_an_earlier_version_opens_and_names_nothing() -> None:
    values = json.loads(example_result().to_json())
    for name in ("subject", "doubts"):
        del values[name]
    old = from_json(Result, json.dumps(values), "old.json")
    assert old.subject is None
    assert "SHA-256" not in Page(render(old)).text


def test_an_audit_does_not_say_that_its_settings_make_it_again() -> None:
    one = Weights(sha256="ab" * 32, of="tensors")
    subject = Subject(judged="2026-01-01T00:00:00+00:00", original=one, unlearned=one, retrained=(), given=0, data={})
    told = {key: value for key, value in EXPERIMENT.items() if key != "population"}  # as `audit` writes it
    result = example_result(subject=subject, experiment=told)
    assert "This is an audit of networks that were made before." in Page(render(result)).text
    assert "repeats to the last bit" in Page(render(replace(result, experiment=EXPERIMENT))).text
    several = EXPERIMENT | {"steps": [{"method": {"name": "unsir"}}, {}], "earlier": {"rows": 40, "requests": [{}]}}
    page = Page(render(example_result(experiment=several, access=None))).text
    assert "Forgotten before 40 rows, in 1 earlier requests Requests since the original unsir, not known" in page
    assert "several requests; what each took stands in the forget.json" in page


@pytest.fixture(scope="module")
def halves(toy: Toy) -> tuple[TensorDataset, TensorDataset]:
    train, test = (TensorDataset(*half.batch(np.arange(len(half)))) for half in (toy.data.train, toy.data.test))
    return train, test


def test_python_refuses_what_is_no_retrained_model(toy: Toy, halves: tuple[TensorDataset, TensorDataset]) -> None:
    made = forget(toy.model, halves[0], classes=[1], method="head_mask", device="cpu")
    retrained = forget(toy.model, halves[0], classes=[1], method=Retrain(training=TRAINING), seed=1, device="cpu")
    twice = [retrained, copy.deepcopy(retrained.model)]

    def judge(*references: object, classes: list[int]) -> Result:
        return audit(toy.model, made, *halves, classes=classes, retrained=references, audits=QUICK, device="cpu")  # type: ignore[arg-type]

    with pytest.raises(ModelError, match="got retrained model 2 with the weights of retrained model 1: leave it out"):
        judge(*twice, classes=[1])
    with pytest.raises(ModelError, match="got retrained model 1 with the weights of the original: leave it out"):
        judge(copy.deepcopy(toy.model), classes=[1])
    fresh = forget(toy.model, halves[0], classes=[1], method="finetune", device="cpu")
    with pytest.raises(
        RequestError, match=r"expected a model retrained without .*, got retrained model 1, .* 'finetune'"
    ):
        judge(fresh, classes=[1])
    result = judge(retrained, classes=[1])
    assert result.doubts == ()
    subject = result.subject
    assert subject is not None
    assert subject.original == Weights(sha256=tensors_hash(toy.model.state_dict()), of="tensors")
    assert subject.data == {"train": glance(toy.data.train), "test": glance(toy.data.test)}


def test_a_network_that_knows_the_class_is_doubted(toy: Toy, halves: tuple[TensorDataset, TensorDataset]) -> None:
    made = forget(toy.model, halves[0], classes=[1], method="head_mask", device="cpu")
    other: nn.Module = copy.deepcopy(toy.model)
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    result = audit(toy.model, made, *halves, retrained=[other], audits=QUICK, device="cpu")
    assert re.fullmatch(
        r"retrained model 1 is right on \S+% of the rows that it should never have seen, the original on \S+%",
        result.doubts[0],
    )
    assert "That the retrained networks are such: retrained model 1 is right on" in Page(render(result)).text
