"""Taps and features: the same rows of the same passes, at places that depend on the architecture alone."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from conftest import Toy
from expunge import case as case_module
from expunge.case import open_case
from expunge.data import PARTS
from expunge.rows import TensorRows
from expunge.runtime import open_runtime
from expunge.taps import HEAD, find_taps, pool, tapped
from expunge.training import observe


@pytest.mark.parametrize(
    ("name", "args", "shape", "expected"),
    [
        ("small_cnn", {}, (3, 8, 8), {"trunk.0": 16, "trunk.1": 32, HEAD: 64}),
        ("allcnn", {"width": 8}, (3, 8, 8), {"trunk.1": 8, "trunk.3": 16, "trunk.5": 16, HEAD: 16}),
        ("resnet20", {}, (3, 8, 8), {"trunk.2": 16, "trunk.4": 32, "trunk.7": 64, HEAD: 64}),
        ("mlp", {"img_size": 8}, (3, 8, 8), {"trunk.1": 128, HEAD: 128}),
        ("resnet18", {}, (3, 32, 32), {"layer1": 64, "layer2": 128, "layer3": 256, HEAD: 512}),
        (
            "vit_tiny_patch16_224",
            {"img_size": 32},
            (3, 32, 32),
            {"blocks.2": 192, "blocks.5": 192, "blocks.8": 192, HEAD: 192},
        ),
        ("convnext_atto", {}, (3, 32, 32), {"stages.0": 40, "stages.1": 80, "stages.2": 160, HEAD: 320}),
    ],
)
def test_taps_are_spread_over_the_depth(
    name: str, args: dict[str, int], shape: tuple[int, ...], expected: dict[str, int]
) -> None:
    model = timm.create_model(name, num_classes=7, **args).eval()
    taps = find_taps(model, 7)
    with torch.no_grad(), tapped(taps) as caught:
        logits = model(torch.randn(2, *shape))
    assert {tap: values.shape[1] for tap, values in caught.items()} == expected
    assert list(expected) == [tap.name for tap in taps]
    head = taps[-1].module
    assert torch.allclose(head(caught[HEAD]), logits, atol=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_feature_is_the_mean_over_positions() -> None:
    values = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    assert torch.equal(pool(values, 3, channels_first=True), values.mean(dim=(2, 3)))
    assert torch.equal(pool(values, 5, channels_first=False), values.mean(dim=(1, 2)))
    assert torch.equal(pool(values, 3, channels_first=False), values.mean(dim=(2, 3)))
    assert torch.equal(pool(values[:, 0], 5, channels_first=False), values[:, 0].mean(dim=1))
    assert torch.equal(pool(values[:, 0, 0], 5, channels_first=False), values[:, 0, 0])


class Counting(nn.Module):
    """Counts the rows that pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.rows = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows += len(inputs)
        logits: Tensor = self.model(inputs)
        return logits


def test_features_come_from_the_same_passes_as_the_logits(toy: Toy) -> None:
    counting = Counting(toy.model)
    case = open_case(toy.split(1), counting, toy.model, [], toy.runtime)
    assert counting.rows == len(toy.data.train) + len(toy.data.test)
    head = find_taps(toy.model, 4)[-1].module
    for part in PARTS:
        assert torch.allclose(head(case.unlearned.features[HEAD][part]), case.unlearned.logits[part], atol=1e-5)
        assert torch.equal(case.unlearned.feature_labels[part], case.unlearned.labels[part])
    assert case.depths == (HEAD,)
    assert case.unseen() is None


def test_of_many_rows_the_same_few_are_kept_for_every_model(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_module, "FEATURE_ROWS", 30)
    case = open_case(toy.split(1), toy.model, toy.model, [], toy.runtime)
    assert case.depths == ("trunk.0", "trunk.1", HEAD)
    assert torch.equal(case.original.features[HEAD]["retain"], case.unlearned.features[HEAD]["retain"])
    assert case.original.feature_labels["retain"].bincount().tolist() == [10, 0, 10, 10]
    head = find_taps(toy.model, 4)[-1].module
    again = head(case.original.features[HEAD]["retain"])
    rows = [int((again[index] - case.original.logits["retain"]).abs().sum(dim=1).argmin()) for index in range(30)]
    assert rows == sorted(set(rows))
    assert torch.equal(case.original.labels["retain"][rows], case.original.feature_labels["retain"])


def test_kept_features_are_those_of_their_rows_whatever_the_batches() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    inputs = torch.randn(11, 2)
    rows = TensorRows(inputs, torch.zeros(11, dtype=torch.int64))
    kept = np.array([0, 3, 4, 9])
    observed = observe(model, rows, open_runtime(device="cpu"), find_taps(model, 4), kept, batch_size=4)
    assert torch.allclose(observed.features[HEAD], model[:2](inputs[kept]))
    assert torch.allclose(observed.logits, model(inputs))


def test_a_model_without_a_head_has_no_features_and_says_why(toy: Toy) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 64)), nn.Conv1d(1, 4, 64), nn.Flatten())
    case = open_case(toy.split(1), toy.model, model, [], toy.runtime)
    assert case.depths == ()
    assert case.unseen() == "no features: expected a linear layer with 4 outputs, got none in Sequential"
    assert replace(case, unlearned=case.original).unseen() is None
