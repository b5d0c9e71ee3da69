"""Inversion: against a linear model whose optimum is known, and statistics worked out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cases import CLASSES, FEATURES, by_name, make_case, make_labels, make_logits, row_case, state
from expunge.audits.inversion import Inversion, Prior, invert, nearest, statistics, total_variation
from expunge.case import Case
from expunge.rows import Rows, TensorRows
from expunge.runtime import open_runtime

QUICK = Inversion(images=8, steps=30)


def knows(*rows: Rows) -> nn.Linear:
    """Return a linear model whose rows point at the class means of these rows."""
    inputs, labels = (
        torch.cat(values) for values in zip(*[r.batch(torch.arange(len(r)).numpy()) for r in rows], strict=True)
    )
    model = nn.Linear(FEATURES, CLASSES)
    with torch.no_grad():
        for index in range(CLASSES):
            mean = inputs[labels == index].mean(dim=0)
            model.weight[index], model.bias[index] = mean, -mean.square().sum() / 2
    return model


def never_knew(model: nn.Linear, other: int) -> nn.Linear:
    """Return a model whose forgotten row is another class's, a little lower: it has no idea of its own."""
    blind = nn.Linear(FEATURES, CLASSES)
    with torch.no_grad():
        blind.weight.copy_(model.weight)
        blind.bias.copy_(model.bias)
        blind.weight[CLASSES - 1], blind.bias[CLASSES - 1] = model.weight[other], model.bias[other] - 1
    return blind


def case_of(*models: nn.Module) -> Case:
    labels = make_labels()
    logits = make_logits(labels, 0)
    return make_case(labels, logits, logits, [logits] * (len(models) - 2), models=models)


def test_a_model_that_knows_the_class_gives_it_away_and_one_that_does_not_does_not() -> None:
    parts = case_of(nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)).split
    original = knows(parts["retain"], parts["forget"])
    found = by_name(QUICK(case_of(original, never_knew(original, 0), original, original)))
    for name in ("plain/original", "prior/original"):
        assert found[f"inversion/{name}"].original == 1
        assert found[f"inversion/{name}"].unlearned == 0
        assert found[f"inversion/{name}"].level == 3
    assert found["inversion/prior/nearest_mean"].original == 1
    assert found["inversion/prior/nearest_mean"].unlearned == 0
    assert found["inversion/prior/nearest_mean"].level is None


def test_inputs_are_those_of_a_loop_written_out() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)).eval()
        start = torch.randn(6, FEATURES)
    labels = torch.tensor([0, 1, 2, 3, 3, 3])
    prior = Prior(mean_square=0.3, statistics=0.7)
    found = invert(model, start, labels, open_runtime(device="cpu"), prior=prior, steps=5, lr=0.1)
    images = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], 0.1)
    for _ in range(5):
        hidden = model[0](images)
        mismatch = (hidden.mean(0) ** 2 / (1 + 1e-5)).mean()
        mismatch = mismatch + ((hidden.var(0, correction=0) - 1) ** 2 / (1 + 1e-5) ** 2).mean()
        loss = functional.cross_entropy(model(images), labels) + 0.3 * (images**2).mean() + 0.7 * mismatch
        (images.grad,) = torch.autograd.grad(loss, [images])
        optimizer.step()
    assert torch.allclose(found, images, atol=1e-5)
    assert not torch.allclose(found, start, atol=0.1)


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])
    assert total_variation(image) == pytest.approx((3 + 2) / 2 + (1 + 0) / 2)
    assert total_variation(torch.randn(3, 5)) == 0


def test_statistics_are_class_means_and_those_of_all_elements() -> None:
    inputs = torch.randn(50, 1, 2, 3, generator=torch.Generator().manual_seed(0)) + 4
    labels = torch.arange(50) % 3
    means, mean, std = statistics(TensorRows(inputs, labels), 5, open_runtime(device="cpu"))
    for index in range(3):
        assert torch.allclose(means[index].float(), inputs[labels == index].mean(0).flatten(), atol=1e-5)
    assert means[3:].isinf().all()
    assert mean == pytest.approx(float(inputs.mean()), rel=1e-5)
    assert std == pytest.approx(float(inputs.std(correction=0)), rel=1e-4)


def test_the_nearest_mean_is_never_that_of_a_class_without_rows() -> None:
    means = torch.tensor([[0.0, 0.0], [torch.inf, torch.inf], [4.0, 0.0]], dtype=torch.float64)
    assert nearest(torch.tensor([[1.0, 5.0], [3.0, -5.0]]), means).tolist() == [0, 2]


def test_every_model_starts_from_the_same_inputs() -> None:
    model = nn.Linear(FEATURES, CLASSES)
    for found in QUICK(case_of(model, model, model)):
        assert found.original == found.unlearned == found.retrained


def test_rows_have_no_class_to_read_out() -> None:
    for found in Inversion()(row_case()):
        assert (found.original, found.unlearned, found.level) == (None, None, None)
        assert found.note == "a request of single rows has no class to read out"


def test_without_retrained_models_it_says_so() -> None:
    for found in QUICK(case_of(nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES))):
        assert (found.retrained, found.inside, found.note) == (None, None, "no reference")


def test_nothing_is_changed_and_twice_gives_the_same() -> None:
    case = case_of(*[nn.Linear(FEATURES, CLASSES) for _ in range(3)])
    before = state(case)
    findings = QUICK(case)
    assert state(case) == before
    assert QUICK(case) == findings
