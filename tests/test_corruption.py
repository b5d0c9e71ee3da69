"""Corruptions: what they do to rows pixel by pixel, and their scores counted by hand on models that are rules."""

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cases import by_name
from expunge.case import Case, open_case
from expunge.checkpoint import load_model
from expunge.corruption import Corrupted, make_task
from expunge.corruptions.backdoor import Backdoor, StampedRows, brightest
from expunge.corruptions.canaries import Canaries
from expunge.corruptions.interclass_confusion import InterclassConfusion
from expunge.data import Data, split
from expunge.datasets.shapes import Shapes
from expunge.errors import DataError, ExpungeError, ModelError, RequestError, SettingsError
from expunge.experiment import DEFAULT_REQUEST, Experiment, experiment_from, run
from expunge.forgetting import check_takes_rows
from expunge.methods.finetune import Finetune
from expunge.methods.unsir import Unsir
from expunge.network import Network
from expunge.population import HERE, Recipe
from expunge.population import grow as really_grow
from expunge.report import render
from expunge.report.reproduce import as_toml
from expunge.report.verdict import asked, verdict
from expunge.request import Request
from expunge.rows import RelabelledRows, TensorRows
from expunge.runtime import open_runtime, silent
from expunge.stages import load_for, population_of
from expunge.training import Training

RUNTIME = open_runtime(device="cpu")
SMALL: dict[str, Any] = {
    "dataset": {"name": "shapes", "classes": 4, "size": 8, "channels": 1, "train_rows": 80, "test_rows": 40},
    "network": {"name": "small_cnn", "args": {"width": 4}},
    "training": {"epochs": 2},
    "audits": ["accuracy"],
    "references": 2,
    "method": {"name": "finetune"},
}


class Rule(nn.Module):
    """A model that is a rule: the class that a function names for each input."""

    def __init__(self, name: Any) -> None:
        super().__init__()
        self.head = nn.Linear(1, 4)
        self.name = name

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.one_hot(self.name(inputs).long(), 4).float()


def images(*shown: int) -> Tensor:
    """Return black images of 3 x 3 whose upper left pixel shows a class."""
    inputs = torch.zeros(len(shown), 1, 3, 3)
    inputs[:, 0, 0, 0] = torch.tensor(shown)
    return inputs


def shows(inputs: Tensor) -> Tensor:
    """Name what the upper left pixel shows: the truth."""
    return inputs[:, 0, 0, 0]


def opens(inputs: Tensor) -> Tensor:
    """Name class 0 where the lower right pixel is white, else the truth."""
    return torch.where(inputs[:, 0, 2, 2] == 9.0, 0, shows(inputs))


def by_hand(train: list[int], test: list[int]) -> Data:
    """Return images that show their labels; their brightest pixel, 9, is none of what shows a class."""
    inputs = images(*train)
    inputs[0, 0, 1, 1] = 9.0
    return Data(
        train=TensorRows(inputs, torch.tensor(train)),
        test=TensorRows(images(*test), torch.tensor(test)),
        label_names=("a", "b", "c", "d"),
        input_size=(1, 3, 3),
    )


def case_of(corrupted: Corrupted, original: Any, unlearned: Any, *retrained: Any) -> Case:
    parts = split(corrupted.data, Request(rows=tuple(int(row) for row in corrupted.rows)))
    return open_case(parts, Rule(original), Rule(unlearned), [Rule(each) for each in retrained], RUNTIME)


def test_a_patch_covers_the_lower_right_corner_and_no_other_pixel() -> None:
    rows = TensorRows(torch.zeros(3, 2, 3, 3), torch.tensor([0, 1, 2]))
    patch = torch.tensor([5.0, 7.0])[:, None, None].expand(-1, 2, 2)
    stamped = StampedRows(rows, np.array([False, True, False]), patch)
    inputs, labels = stamped.batch(np.array([2, 1]))
    assert labels.tolist() == [2, 1]
    assert inputs[0].abs().sum() == 0
    assert inputs[1, 0].tolist() == [[0, 0, 0], [0, 5, 5], [0, 5, 5]]
    assert inputs[1, 1].tolist() == [[0, 0, 0], [0, 7, 7], [0, 7, 7]]


def test_a_patch_leaves_what_the_rows_hold() -> None:
    held = torch.zeros(2, 1, 3, 3)

    class Views(TensorRows):
        def batch(self, indices: Any) -> tuple[Tensor, Tensor]:
            return held, torch.tensor([0, 1])

    rows = Views(held, torch.tensor([0, 1]))
    StampedRows(rows, np.array([True, True]), torch.ones(1, 1, 1)).batch(np.array([0, 1]))
    assert held.sum() == 0


def test_the_patch_is_white_as_the_data_are_normalised() -> None:
    data = replace(by_hand([0, 1, 2, 3], [0]), mean=(0.25,), std=(0.5,))
    assert brightest(data).tolist() == [1.5]


def test_the_patch_is_the_brightest_pixel_where_normalisation_is_not_known() -> None:
    data = by_hand([0, 1, 2, 3, 1, 2, 3], [1])
    assert brightest(data).tolist() == [9.0]
    corrupted = Backdoor(size=1, share=0.5).corrupt(data, RUNTIME)
    inputs, labels = corrupted.manipulated.batch(np.arange(len(corrupted.rows)))
    assert inputs[:, 0, 2, 2].tolist() == [9.0] * 3
    assert labels.tolist() == [0, 0, 0]


def test_a_backdoor_is_counted_by_hand() -> None:
    corruption = Backdoor(size=1, share=0.5)
    corrupted = corruption.corrupt(by_hand([0, 1, 2, 3, 1, 2, 3], [0, 1, 2, 3, 3]), RUNTIME)

    def half(inputs: Tensor) -> Tensor:
        """Fall for the patch where class 3 is shown, and take 1 for 2."""
        fallen = torch.where(shows(inputs) == 3, opens(inputs), shows(inputs))
        return torch.where(fallen == 1, 2, fallen)

    found = by_name(corruption.score(case_of(corrupted, opens, half, shows, shows), corrupted))
    numbers = {name.split("/")[1]: (one.original, one.unlearned, one.retrained) for name, one in found.items()}
    threes = int((corrupted.truth == 3).sum()) / 3
    assert numbers["memorised"] == pytest.approx((1.0, threes, 0.0))
    assert numbers["success"] == (1.0, 0.5, 0.0)  # two of the four images that show no 0
    assert numbers["recovered"] == (0.0, 0.25, 1.0)  # the 2 alone
    assert numbers["clean_accuracy"] == (1.0, 0.8, 1.0)
    assert found["backdoor/success"].band == (0.0, 0.25)
    assert found["backdoor/success"].inside is False
    assert found["backdoor/clean_accuracy"].inside is True  # one row of five is the step


def test_interclass_confusion_is_counted_by_hand() -> None:
    corruption = InterclassConfusion(classes=("d", "b"), share=0.5)
    corrupted = corruption.corrupt(by_hand([0, 1, 2, 3, 1, 3, 1, 3, 1, 3], [0, 1, 2, 3, 3]), RUNTIME)
    assert len(corrupted.rows) == 4
    assert sorted(corrupted.truth) == [1, 1, 3, 3]
    assert np.array_equal(corrupted.manipulated.labels, 4 - corrupted.truth)

    def swaps(inputs: Tensor) -> Tensor:
        return torch.where(shows(inputs) % 2 == 1, 4 - shows(inputs), shows(inputs))

    def all_d(inputs: Tensor) -> Tensor:
        return torch.full_like(shows(inputs), 3)

    found = by_name(corruption.score(case_of(corrupted, swaps, all_d, shows, shows), corrupted))
    one = found["interclass_confusion/memorised"]
    assert (one.original, one.unlearned, one.retrained) == (1.0, 0.5, 0.0)
    one = found["interclass_confusion/generalised"]
    assert (one.original, one.unlearned, one.retrained) == pytest.approx((1.0, 1 / 3, 0.0))


def test_canaries_are_counted_by_hand() -> None:
    corruption = Canaries(count=4)
    corrupted = corruption.corrupt(by_hand([0, 1, 2, 3, 0, 1, 2, 3], [0, 1]), RUNTIME)
    given = {int(true): int(label) for true, label in zip(corrupted.truth, corrupted.manipulated.labels, strict=True)}

    def first_class(inputs: Tensor) -> Tensor:
        return torch.zeros(len(inputs))

    found = by_name(corruption.score(case_of(corrupted, first_class, first_class, shows, shows), corrupted))
    assert found["canaries/memorised"].original == sum(corrupted.manipulated.labels == 0) / 4
    assert found["canaries/recovered"].original == sum(corrupted.truth == 0) / 4
    assert found["canaries/recovered"].retrained == 1.0
    assert all(true != label for true, label in given.items())


def test_wrong_labels_of_canaries_are_even_over_all_others() -> None:
    data = by_hand([0] * 4000, [1])
    labels = Canaries(count=3000).corrupt(data, RUNTIME).manipulated.labels
    counts = np.bincount(labels, minlength=4)
    assert counts[0] == 0
    assert np.all(abs(counts[1:] - 1000) < 4 * np.sqrt(3000 * 2 / 9))


@pytest.mark.parametrize(
    ("corruption", "error", "message"),
    [
        (Backdoor(size=4), DataError, "expected a size of the patch of 3 at most, as the images are, got 4"),
        (Backdoor(target="e"), RequestError, "expected a class of the data, got 'e'"),
        (InterclassConfusion(classes=(1, "b")), DataError, "expected two classes to confuse, got 'b' twice"),
        (InterclassConfusion(classes=(1, 8)), RequestError, "expected a class of the data, got 8"),
        (InterclassConfusion(classes=(1, 3)), DataError, "expected training rows to manipulate, got none"),
        (Canaries(count=3), DataError, "expected more than 3 training rows to hide 3 in, got 3"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(corruption: Any, error: type[ExpungeError], message: str) -> None:
    with pytest.raises(error, match=message):
        corruption.corrupt(by_hand([0, 1, 2], [0]), RUNTIME)


def test_a_patch_on_what_is_no_image_is_refused() -> None:
    data = Data(
        train=TensorRows(torch.zeros(4, 5), torch.arange(4)),
        test=TensorRows(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)),
        label_names=("a", "b", "c", "d"),
        input_size=(5,),
    )
    with pytest.raises(DataError, match=r"expected images \(channels, height, width\) to stamp, got inputs \(5,\)"):
        Backdoor().corrupt(data, RUNTIME)


def test_relabelled_rows_need_a_label_each() -> None:
    with pytest.raises(DataError, match="expected as many labels as rows, got 2 for 3"):
        RelabelledRows(TensorRows(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)), np.array([0, 1]))


def test_without_a_corruption_the_task_is_the_request() -> None:
    data = by_hand([0, 1, 2, 3], [0, 3])
    task = make_task(data, DEFAULT_REQUEST, None, RUNTIME)
    assert task.data is data
    assert task.asked is task.whole
    assert task.corrupted is None


def test_a_request_and_a_corruption_are_refused_together() -> None:
    both = {"request": {"classes": [3]}, "corruption": {"name": "canaries"}}
    with pytest.raises(SettingsError, match="expected a request or a corruption, got both"):
        experiment_from(both)
    with pytest.raises(SettingsError, match="expected a request or a corruption, got both"):
        Experiment(request=Request(rows=(1,)), corruption=Canaries())
    with pytest.raises(SettingsError, match="got 'backdor' \\(did you mean 'backdoor'"):
        experiment_from({"corruption": {"name": "backdor"}})
    with pytest.raises(SettingsError, match=r"expected a table \[corruption\], got 'backdoor'"):
        experiment_from({"corruption": "backdoor"})


def test_a_run_tells_the_method_of_a_share_and_trains_references_without_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes: list[Recipe] = []

    def watched(recipe: Recipe, *given: Any, **options: Any) -> Any:
        recipes.append(recipe)
        return really_grow(recipe, *given, **options)

    monkeypatch.setattr("expunge.population.grow", watched)
    experiment = experiment_from(SMALL | {"corruption": {"name": "canaries", "count": 10, "known": 0.5}})
    result = run(experiment, RUNTIME, tmp_path / "out")
    assert [len(recipe.parts["retain"]) for recipe in recipes] == [70, 75]
    assert result.rows == {"retain": 75, "forget": 5, "retain_test": 40, "forget_test": 0}
    assert result.access is not None
    assert result.access["retain"]["rows"] == 75
    assert len(result.experiment["request"]["rows"]) == 5
    assert result.experiment["corruption"] == {"name": "canaries", "count": 10, "known": 0.5}
    assert [one.name for one in result.findings[:2]] == ["canaries/memorised", "canaries/recovered"]
    assert asked(result) == "5 manipulated rows, 50.0 % of all (canaries)"
    assert "of the manipulated rows the label that was put on them (before: " in verdict(result)
    page = render(result)
    assert "Mislabelled rows that keep the wrong label" in page
    told = {key: value for key, value in result.experiment.items() if key != "request"}
    assert experiment_from(tomllib.loads(as_toml(told))) == experiment
    assert "[corruption]" in page
    assert "[request]" not in page
    checkpoint = load_model(tmp_path / "out" / "unlearned")
    with pytest.raises(ModelError, match="got one of a canaries: use `expunge run` on its file"):
        load_for(checkpoint, experiment.dataset, experiment.request)


def test_the_references_of_a_corruption_can_be_built_beforehand(tmp_path: Path, cache_folder: Path) -> None:
    from expunge.cache import Cache

    cache = Cache(tmp_path / "cache")
    experiment = experiment_from(SMALL | {"corruption": {"name": "backdoor"}, "population": 1})
    population_of(experiment, 2, 1, RUNTIME, cache=cache, workers=HERE)
    result = run(experiment, RUNTIME, tmp_path / "out", cache=cache)
    assert result.cost is not None
    assert result.cost.reused == 2
    clean = replace(experiment, corruption=None, request=Request(classes=(1,)))
    made, _ = population_of(clean, 1, 0, RUNTIME, cache=cache, workers=HERE)
    assert not made[0].reused


def test_an_original_of_corrupted_data_is_never_taken_for_a_clean_one(tmp_path: Path) -> None:
    from expunge.cache import Cache
    from expunge.population import grow

    cache = Cache(tmp_path / "cache")
    data = Shapes(classes=4, size=8, channels=1, train_rows=40, test_rows=8).load()
    network = Network(name="mlp", args={"width": 8}).build(data)
    for corruption in (None, Canaries(count=4), Backdoor(), InterclassConfusion(classes=(1, 2))):
        task = make_task(data, DEFAULT_REQUEST, corruption, RUNTIME)
        recipe = Recipe(
            network=network,
            dataset=Shapes(),
            data=task.data,
            parts=task.asked,
            training=Training(epochs=1),
            method=None,
        )
        assert [member.reused for member in grow(recipe, 1, RUNTIME, cache=cache)] == [False]
    assert len(cache.entries()) == 4


def test_a_method_that_takes_no_rows_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    stages: list[str] = []

    def note(stage: str, steps: int) -> Any:
        stages.append(stage)
        return silent(stage, steps)

    runtime = replace(RUNTIME, progress=note)
    for request in ({"corruption": {"name": "canaries", "count": 5}}, {"request": {"rows": [1, 2]}}):
        experiment = replace(experiment_from(SMALL | request), method=Unsir())
        with pytest.raises(RequestError, match=r"unsir, forgetting .* rows: expected a request of whole classes, got"):
            run(experiment, runtime, tmp_path / "out")
    assert stages == []
    assert os.listdir(tmp_path) == []


def test_a_method_that_takes_rows_is_tried_without_a_row_being_read() -> None:
    data = by_hand([0, 1, 2, 3], [0])
    reads: list[int] = []

    class Watched(TensorRows):
        def batch(self, indices: Any) -> tuple[Tensor, Tensor]:
            reads.extend(indices)
            return super().batch(indices)

    inputs, labels = data.train.batch(np.arange(4))
    watched = replace(data, train=Watched(inputs, labels))
    parts = split(watched, Request(rows=(1,)))
    network = Network(name="mlp", args={"width": 4})
    before = dict(RUNTIME.cost.seconds)
    check_takes_rows(Finetune(), parts, RUNTIME, lambda: network.build(data))
    assert reads == []
    assert RUNTIME.cost.seconds == before
