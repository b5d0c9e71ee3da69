"""Settings: checked when made, and the same through TOML, JSON and the command line."""

from typing import Any

import pytest

from expunge.data import split
from expunge.errors import SettingsError
from expunge.experiment import Experiment, experiment_from, to_values
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.settings import build, find, from_assignments, from_toml, merge, names, sort_out
from expunge.training import Training


def unsir(**values: Any) -> Unsir:
    """Make settings from values whose types nobody has checked."""
    return Unsir(**values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unsir(noise_lr=-1), r"^expected noise_lr > 0, got -1$"),
        (lambda: Unsir(noise_share=1.0), r"^expected noise_share < 1, got 1.0$"),
        (
            lambda: unsir(noise="learnt"),
            r"^expected noise to be 'learned', 'gaussian', 'zeros', 'retained' or 'none', got 'learnt'$",
        ),
        (lambda: unsir(steps=2.5), r"^expected steps to be a valid integer, got 2.5$"),
        (lambda: unsir(steps="2"), r"^expected steps to be a valid integer, got '2'$"),
        (
            lambda: build("methods", {"name": "unsir", "noise_lrr": 1}),
            r"got 'noise_lrr' \(did you mean 'noise_lr'\?\)$",
        ),
        (
            lambda: build("methods", {"name": "unsri"}),
            r"expected one of the methods, got 'unsri' \(did you mean 'unsir'\?\)",
        ),
        (lambda: build("methods", {"lr": 1}), r"expected a name for one of the methods, got \{'lr': 1\}"),
        (lambda: build("methods", {"name": "retrain", "training": {"lr": 0}}), r"^expected training.lr > 0, got 0$"),
        (
            lambda: build("methods", {"name": "retrain", "training": {"epoch": 0}}),
            r"^expected a setting of Training, got 'training.epoch' \(did you mean 'epochs'\?\)$",
        ),
        (lambda: find("methods", "json.decoders"), r"named 'json.decoders' \(did you mean 'json.decoder'\?\)$"),
        (lambda: find("methods", "no.such.module"), "expected a module 'no.such.module' that can be imported"),
        (lambda: find("methods", "json.decoder"), "expected a class Decoder in 'json.decoder', got none"),
        (lambda: from_toml("a = "), "expected TOML, got: "),
        (lambda: from_assignments(["lr"]), "expected key=value, got 'lr'"),
        (lambda: from_assignments(["a=1", "a.b=2"]), "expected a to be a table or a value, got both in 'a.b=2'"),
        (lambda: experiment_from({"metod": {}}), "expected a key of an experiment, got 'metod'"),
        (lambda: experiment_from({"method": "unsir"}), r"expected a table \[method\], got 'unsir'"),
        (lambda: build("audits", {"name": "."}), "expected a module '.' that can be imported, got: "),
        (lambda: from_toml("a = " + "9" * 5000), "expected TOML, got: Exceeds the limit"),
        (lambda: from_toml("a = " + "[" * 5000), "expected TOML, got: maximum recursion depth"),
        (lambda: from_assignments(["a=" + "{b=" * 5000]), r"expected a value that is not nested so deep, got 'a={b="),
        (lambda: experiment_from({"audits": 5}), "expected audits as a list of names or of tables with a name, got 5"),
        (lambda: experiment_from({"audits": [[]]}), r"expected audits as a list of names .*, got \[\[\]\]"),
        (lambda: experiment_from({"references": -1}), "expected references >= 0, got -1"),
        (lambda: experiment_from({"seed": "x"}), "expected seed to be a valid integer.*, got 'x'"),
        (lambda: sort_out({"lr": 1}, home=None, tables=["dataset"]), "expected dataset.KEY=VALUE, got 'lr'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(make: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_settings_are_frozen_values() -> None:
    assert Unsir(noise_lr=0.2) == Unsir(noise_lr=0.2)
    with pytest.raises(AttributeError, match="cannot assign"):
        Unsir().noise_lr = 1.0  # type: ignore[misc]


def test_assignments_nest_and_are_spelt_as_in_toml() -> None:
    words = ["impair_lr=0.5", "dataset.classes=20", "noise=zeros", "training.schedule=constant", "x=[1, 2]"]
    assert from_assignments(words) == {
        "impair_lr": 0.5,
        "dataset": {"classes": 20},
        "noise": "zeros",
        "training": {"schedule": "constant"},
        "x": [1, 2],
    }


def test_bare_keys_go_home_and_tables_to_their_own() -> None:
    values = from_assignments(["epochs=2", "dataset.size=9", "training.lr=0.1"])
    assert sort_out(values, home="training", tables=("dataset",)) == {
        "dataset": {"size": 9},
        "training": {"epochs": 2, "lr": 0.1},
    }


def test_merging_lays_changes_over_values_table_by_table() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}}) == {"a": {"b": 1, "c": 4}, "d": 3}


def test_an_experiment_survives_the_way_through_plain_values() -> None:
    values = {
        "dataset": {"name": "shapes", "classes": 4},
        "network": {"name": "mlp", "args": {"width": 8}},
        "training": {"epochs": 2},
        "request": {"classes": [1, 2]},
        "method": {"name": "unsir", "impair_lr": 0.5},
        "audits": ["accuracy"],
        "references": 2,
        "seed": 7,
    }
    experiment = experiment_from(values)
    told = to_values(experiment, split(experiment.dataset.load(), experiment.request))
    assert experiment_from(told) == experiment
    assert told["method"]["impair_lr"] == 0.5
    assert told["audits"] == [{"name": "accuracy"}]


def test_retraining_as_the_method_trains_as_the_original_was_trained() -> None:
    experiment = experiment_from({"training": {"epochs": 3}, "method": {"name": "retrain"}})
    assert experiment.method == Retrain(training=Training(epochs=3))


def test_an_empty_file_is_the_demo() -> None:
    assert experiment_from({}) == Experiment()


def test_the_folder_is_the_registry() -> None:
    assert {"unsir", "unsir_notebook", "retrain", "finetune", "head_mask"} <= set(names("methods"))
    assert {"accuracy", "prediction", "membership", "relearning", "weights"} <= set(names("audits"))
    assert {"digits", "shapes"} <= set(names("datasets"))
    assert {"small_cnn", "allcnn", "resnet20", "mlp"} <= set(names("networks"))
    assert find("methods", "expunge.methods.unsir") is Unsir
