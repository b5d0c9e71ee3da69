"""Closed-form methods: which directions are gone, and what is left, by hand and against numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Toy
from expunge.data import Request, split
from expunge.errors import RequestError, SettingsError
from expunge.methods.esc import Esc
from expunge.methods.pour import Pour, without
from expunge.rows import Rows
from test_subspaces import seen_by_layers

TETRAHEDRON = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
"""The corners of a regular simplex of four classes."""


def inputs_of(rows: Rows) -> Tensor:
    return rows.batch(np.arange(len(rows)))[0]


def head_of(model: nn.Module) -> nn.Linear:
    (head,) = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 4]
    return head


def with_head(weights: Tensor, bias: bool = True) -> nn.Module:
    """Return a network whose features are three and whose head has these weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Linear(3, len(weights), bias=bias))
    with torch.no_grad():
        model[2].weight.copy_(weights)
    return model


def test_pour_leaves_a_simplex_of_the_others(toy: Toy) -> None:
    parts = toy.split(0)
    model = with_head(TETRAHEDRON)
    new = head_of(Pour()(model, toy.access(parts, Pour.reads), toy.runtime.fresh()))
    # (1, -1, -1) without its part along (1, 1, 1) / 3 is (4, -2, -2) / 3, and so for the others
    wanted = torch.tensor([[0.0, 0, 0], [4, -2, -2], [-2, 4, -2], [-2, -2, 4]]) / 3
    torch.testing.assert_close(new.weight.detach(), wanted)
    corners = new.weight.detach()[1:]
    angles = torch.nn.functional.cosine_similarity(corners[:, None], corners[None], dim=2)
    torch.testing.assert_close(angles, 1.5 * torch.eye(3) - 0.5)  # a triangle: -1 / (3 - 1)
    assert (new.bias[0], *new.bias[1:]) == (0, *head_of(model).bias[1:])


@pytest.mark.parametrize("classes", [(1,), (0, 3)])
def test_pour_makes_the_head_blind_along_the_classes_and_nowhere_else(toy: Toy, classes: tuple[int, ...]) -> None:
    new = head_of(Pour()(toy.model, toy.access(toy.split(*classes), Pour.reads), toy.runtime.fresh()))
    before = head_of(toy.model).weight.detach()
    gone = before[list(classes)]
    kept = [index for index in range(4) if index not in classes]
    assert (new.weight @ gone.T).abs().max() < 1e-5
    across, _ = torch.linalg.qr(torch.cat([gone, torch.randn(5, before.shape[1])]).T)
    across = across[:, len(classes) :]  # at right angles to the classes
    torch.testing.assert_close((new.weight @ across)[kept], (before @ across)[kept], rtol=1e-4, atol=1e-5)
    projection = without(gone)
    torch.testing.assert_close(projection @ projection, projection)
    assert projection.trace().item() == pytest.approx(before.shape[1] - len(classes))


def test_pour_refuses_single_rows(toy: Toy) -> None:
    parts = split(toy.data, Request(rows=(1, 2)))
    with pytest.raises(RequestError, match="expected a request of whole classes"):
        Pour()(toy.model, toy.access(parts, Pour.reads), toy.runtime.fresh())


@pytest.mark.parametrize(("percent", "erased"), [(3.0, 1), (10.0, 3), (50.0, 16)])
def test_esc_takes_the_strongest_singular_vectors_from_the_features(toy: Toy, percent: float, erased: int) -> None:
    parts, method = toy.split(1), Esc(percent=percent)
    new = head_of(method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh()))
    head = head_of(toy.model)
    features = seen_by_layers(toy.model, inputs_of(parts["forget"]))["head"].numpy()
    vectors, sizes, _ = np.linalg.svd(features.T, full_matrices=False)
    gone = torch.from_numpy(vectors[:, :erased])
    assert features.shape[1] == 32
    assert sizes[erased - 1] > sizes[erased] * 1.001  # so that the strongest are well defined
    wanted = head.weight - head.weight @ gone @ gone.T
    torch.testing.assert_close(new.weight, wanted, rtol=1e-3, atol=1e-4)
    assert (new.weight @ gone).abs().max() < 1e-4
    assert torch.equal(new.bias, head.bias)
    # what the head sees of the forgotten rows is at right angles to what was erased
    seen = features - features @ vectors[:, :erased] @ vectors[:, :erased].T
    logits = torch.from_numpy(seen) @ head.weight.T + head.bias
    torch.testing.assert_close(torch.from_numpy(features) @ new.weight.T + new.bias, logits, rtol=1e-3, atol=1e-3)


def test_esc_erases_a_direction_for_every_class_and_leaves_some(toy: Toy) -> None:
    parts = toy.split(0, 3)
    new = Esc()(toy.model, toy.access(parts, Esc.reads), toy.runtime.fresh())
    change = (head_of(new).weight - head_of(toy.model).weight).detach()
    assert torch.linalg.matrix_rank(change, atol=1e-4) == 2
    with pytest.raises(SettingsError, match="expected fewer directions than the 3 features, got 3"):
        Esc(percent=1)(with_head(TETRAHEDRON), toy.access(toy.split(0, 1, 2), Esc.reads), toy.runtime.fresh())
