"""Weights: distances worked out by hand."""

import copy

import pytest
import torch
from torch import nn

from cases import by_name, make_case, make_labels, make_logits, random_case, state
from expunge.audits.weights import Weights
from expunge.case import Case
from expunge.finding import Finding


class Small(nn.Module):
    """A layer, a layer that starts at zero, and a scalar."""

    def __init__(self, weight: list[float], bias: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.zero = nn.Parameter(torch.tensor(bias))
        self.temperature = nn.Parameter(torch.tensor(5.0))


def case_of(*models: nn.Module) -> Case:
    labels = make_labels()
    logits = make_logits(labels, 0)
    return make_case(labels, logits, logits, [logits] * (len(models) - 2), models=models)


def distance(case: Case) -> Finding:
    return by_name(Weights()(case))["weights/distance"]


def test_it_is_the_distance_as_a_share_of_the_originals_size() -> None:
    original = Small([3.0, 4.0], [0.0, 0.0])
    moved = Small([3.0, 1.0], [4.0, 0.0])
    found = distance(case_of(original, moved, original))
    assert found.original == 0
    assert found.unlearned == pytest.approx(5 / 5)
    assert found.retrained == 0
    assert found.series is not None
    assert found.series.x == ("weight",)
    assert found.series.unlearned == pytest.approx((3 / 5,))


def test_every_layer_has_its_own_distance() -> None:
    original = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    moved = copy.deepcopy(original)
    with torch.no_grad():
        dict(moved.named_parameters())["1.weight"].mul_(1.5)
    found = distance(case_of(original, moved))
    assert found.series is not None
    assert found.series.x == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert found.series.unlearned == pytest.approx((0, 0, 0.5, 0), abs=1e-6)
    slow = sum((a - b) ** 2 for a, b in zip(flat(original), flat(moved), strict=True)) / sum(
        a**2 for a in flat(original)
    )
    assert found.unlearned == pytest.approx(slow**0.5, rel=1e-6)


def flat(model: nn.Module) -> list[float]:
    return [value for weight in model.parameters() for value in weight.flatten().tolist()]


def test_another_architecture_has_no_distance() -> None:
    found = distance(case_of(nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(3, 4)))
    assert found.unlearned is None
    assert found.series is None
    assert found.retrained is not None
    assert found.note is not None
    assert found.note.endswith("a model has other layers than the original")


def test_it_counts_for_no_level_and_says_why() -> None:
    found = distance(random_case())
    assert (found.level, found.band, found.inside) == (None, None, None)
    assert found.note is not None
    assert "far apart even when they agree" in found.note


def test_without_retrained_models_it_says_so() -> None:
    found = distance(random_case(references=0))
    assert found.retrained is None
    assert found.note is not None
    assert found.note.endswith("no reference")


def test_nothing_is_changed() -> None:
    case = random_case()
    before = state(case)
    Weights()(case)
    assert state(case) == before
