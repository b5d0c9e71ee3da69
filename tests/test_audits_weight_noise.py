"""Weight noise: its size, its streams, and accuracies of models shaken one by one."""

from statistics import fmean

import pytest
import torch
from torch import nn

from cases import by_name, make_case, make_labels, make_logits, random_case, row_case, state
from expunge.audits.accuracy import accuracy
from expunge.audits.weight_noise import WeightNoise, shaken
from expunge.training import predict


def test_noise_has_that_share_of_the_norm_of_every_tensor() -> None:
    model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 200))
    with torch.no_grad():
        next(model.parameters()).mul_(50)
    for (name, old), new in zip(
        model.named_parameters(), shaken(model, 0.3, torch.Generator().manual_seed(0)).parameters(), strict=True
    ):
        relative = float((new - old).detach().norm() / old.detach().norm())
        assert relative == pytest.approx(0.3, rel=0.01 if "weight" in name else 0.15), name


def test_a_tensor_of_zeros_stays() -> None:
    model = nn.Linear(3, 4)
    nn.init.zeros_(model.bias)
    noisy = dict(shaken(model, 1.0, torch.Generator()).named_parameters())
    assert noisy["bias"].count_nonzero() == 0
    assert not noisy["weight"].equal(model.weight)


def test_the_number_is_the_mean_over_draws() -> None:
    case = random_case()
    found = by_name(WeightNoise(strengths=(0.5,), draws=2)(case))["weight_noise/0.5/retain_test"]
    slow = []
    for draw in range(2):
        generator = case.runtime.generator(f"weight_noise/{draw}")
        model = nn.Linear(3, 4)
        for weight, old in zip(model.parameters(), case.unlearned.model.parameters(), strict=True):
            size = (old.detach() ** 2).sum().sqrt() / old.numel() ** 0.5
            weight.data = old.detach() + 0.5 * size * torch.randn(old.shape, generator=generator)
        slow.append(accuracy(*predict(model, case.split["retain_test"], case.runtime)))
    assert found.unlearned == pytest.approx(fmean(slow))


def test_every_model_meets_the_same_noise() -> None:
    labels, model = make_labels(), nn.Linear(3, 4)
    logits = make_logits(labels, 0)
    for found in WeightNoise()(make_case(labels, logits, logits, [logits], models=[model, model, model])):
        assert found.original == found.unlearned == found.retrained


def test_the_forgotten_part_counts_and_the_kept_one_informs() -> None:
    found = by_name(WeightNoise()(random_case()))
    assert found["weight_noise/0.1/forget_test"].level == 3
    assert found["weight_noise/0.1/retain_test"].level is None
    assert "by 10% of their size" in found["weight_noise/0.1/retain_test"].meaning


def test_rows_are_measured_on_the_rows_themselves() -> None:
    assert by_name(WeightNoise()(row_case()))["weight_noise/0.3/forget"].unlearned is not None


def test_without_retrained_models_it_says_so() -> None:
    for found in WeightNoise()(random_case(references=0)):
        assert (found.retrained, found.inside, found.note) == (None, None, "no reference")


def test_nothing_is_changed_and_twice_gives_the_same() -> None:
    case = random_case()
    before = state(case)
    findings = WeightNoise()(case)
    assert state(case) == before
    assert WeightNoise()(case) == findings
