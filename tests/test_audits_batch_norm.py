"""Batch norm: against PyTorch's own re-estimation."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from cases import CLASSES, FEATURES, by_name, make_case, make_labels, make_logits, random_case, row_case, state
from expunge.audits.batch_norm import BatchNorm, layers, reestimated
from expunge.case import Case
from expunge.rows import TensorRows
from expunge.runtime import open_runtime


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, CLASSES)
        )


def case_of(*models: nn.Module) -> Case:
    labels = make_labels()
    logits = make_logits(labels, 0)
    return make_case(labels, logits, logits, [logits] * (len(models) - 2), models=models)


def test_statistics_are_those_that_torch_estimates() -> None:
    runtime = open_runtime(device="cpu")
    inputs = 5 + torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(0))
    model, expected = network(0).train(), network(0)
    model(-inputs)  # statistics of its own, which must be forgotten
    order = torch.randperm(40, generator=runtime.generator("batch_norm/order"))
    update_bn([inputs[chosen] for chosen in torch.split(order, 10)], expected)
    found = reestimated(model, TensorRows(inputs, torch.zeros(40, dtype=torch.int64)), runtime, 10)
    for ours, theirs, old in zip(layers(found), layers(expected), layers(model), strict=True):
        for name in ("running_mean", "running_var"):
            assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-6)
            assert not torch.allclose(getattr(ours, name), getattr(old, name), atol=1e-2)
    assert not any(module.training for module in found.modules())


def test_weights_stay_as_they_are() -> None:
    case = case_of(network(0), network(1))
    found = reestimated(case.unlearned.model, case.split["retain"], case.runtime, 16)
    for name, weight in case.unlearned.model.named_parameters():
        assert dict(found.named_parameters())[name].equal(weight)


def test_statistics_that_hide_a_class_do_so_no_longer() -> None:
    original = network(0)
    spoilt = copy.deepcopy(original)
    layers(spoilt)[0].running_mean = torch.full((8,), 100.0)
    found = by_name(BatchNorm()(case_of(original, spoilt)))
    for part in ("forget_test", "retain_test"):
        assert found[f"batch_norm/{part}"].unlearned == found[f"batch_norm/{part}"].original


def test_the_forgotten_part_counts_and_the_kept_one_informs() -> None:
    found = by_name(BatchNorm()(case_of(network(0), network(1), network(2), network(3))))
    assert (found["batch_norm/forget_test"].level, found["batch_norm/retain_test"].level) == (3, None)


@pytest.mark.parametrize("case", [random_case(), row_case()])
def test_a_network_without_batch_norm_has_no_number_and_counts_for_nothing(case: Case) -> None:
    for found in BatchNorm()(case):
        assert (found.original, found.unlearned, found.retrained, found.level) == (None, None, None, None)
        assert found.note == "no batch normalisation in a model"


def test_without_retrained_models_it_says_so() -> None:
    for found in BatchNorm()(case_of(network(0), network(1))):
        assert (found.retrained, found.inside) == (None, None)
        assert found.note == "no reference"


def test_nothing_is_changed_and_twice_gives_the_same() -> None:
    case = case_of(network(0), network(1).eval(), network(2))
    before = state(case)
    findings = BatchNorm()(case)
    assert state(case) == before
    assert BatchNorm()(case) == findings
