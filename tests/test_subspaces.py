"""Gram matrices of layers' inputs, against all inputs laid out at once and against what the layers compute."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from conftest import Toy
from expunge.errors import ModelError
from expunge.methods import _subspaces
from expunge.methods._subspaces import basis, check_layers, input_grams, inputs_of, matrix_of, spectrum
from expunge.rows import TakenRows


def seen_by_layers(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Return what each layer is given for all rows in one pass."""
    seen: dict[str, Tensor] = {}
    network = copy.deepcopy(model).eval()
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _, given, __, name=name: seen.__setitem__(name, given[0]))
    with torch.no_grad():
        network(inputs)
    return seen


@pytest.mark.parametrize("bias", [False, True])
def test_grams_are_those_of_all_patches_at_once(toy: Toy, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_subspaces, "NUMBERS", 5000)  # a few rows at a time
    rows = TakenRows(toy.data.train, np.arange(70))
    found = input_grams(toy.model, rows, toy.runtime.fresh(), stage="grams", bias=bias, batch_size=32)
    seen = seen_by_layers(toy.model, rows.batch(np.arange(70))[0])
    layers = dict(toy.model.named_modules())
    assert found.keys() == seen.keys()
    assert len(found) == 4
    for name, given in seen.items():
        layer, inputs = layers[name], given
        if isinstance(layer, nn.Conv2d):
            padding: Any = layer.padding
            patches = functional.unfold(given, layer.kernel_size, padding=padding, stride=layer.stride)
            inputs = patches.mT.flatten(0, 1)
        inputs = inputs.double()
        if bias:
            inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
        wanted = (inputs.T @ inputs)[None]
        torch.testing.assert_close(found[name].values, wanted, rtol=1e-5, atol=1e-6 * float(wanted.max()), msg=name)
        assert found[name].count == len(inputs)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 5),
        nn.Conv2d(6, 4, 3),
        nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.Conv2d(6, 4, 3, padding="same", dilation=2),
        nn.Conv2d(6, 4, (2, 4), padding="same", dilation=(1, 3)),
        nn.Conv2d(6, 4, 3, padding="valid"),
        nn.Conv2d(6, 4, 3, padding=(2, 1), padding_mode="circular"),
        nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect", groups=2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv1d(6, 4, 3),
        nn.Conv1d(6, 4, 4, padding="same", dilation=2, groups=2),
        nn.Conv1d(6, 4, 3, stride=2, padding=2, padding_mode="replicate"),
        nn.Conv3d(6, 4, (2, 3, 1), stride=(1, 2, 3), padding=(1, 0, 2), dilation=(2, 1, 1), groups=2),
        nn.Conv3d(6, 4, 3, padding=1, padding_mode="circular"),
    ],
)
def test_a_layer_computes_its_matrix_of_its_inputs(layer: Any) -> None:
    shape = (5, 7, 9)[-layer.weight.ndim + 2 :]
    given = torch.randn(3, 7, 9, 6) if isinstance(layer, nn.Linear) else torch.randn(3, 6, *shape)
    inputs, matrix = inputs_of(layer, given), matrix_of(layer)
    outputs = torch.cat(list(inputs @ matrix.mT), dim=1) + layer.bias
    wanted = layer(given) if isinstance(layer, nn.Linear) else layer(given).movedim(1, -1)
    torch.testing.assert_close(outputs, wanted.reshape(outputs.shape))


def test_layers_that_share_a_module_or_are_not_called_count_as_often_as_they_are(toy: Toy) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.idle = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, images: Tensor) -> Tensor:
            outputs: Tensor = self.again(self.again(self.first(images.flatten(1))))
            return outputs

    found = input_grams(Twice(), TakenRows(toy.data.train, np.arange(5)), toy.runtime.fresh(), stage="grams")
    assert {name: gram.count for name, gram in found.items()} == {"first": 5, "again": 10}


def test_a_layer_with_a_way_of_its_own_is_refused_where_it_is_called(toy: Toy) -> None:
    class Padding(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(functional.pad(images, (1, 1, 1, 1)))

    rows = TakenRows(toy.data.train, np.arange(1))
    model = nn.Sequential(Padding(1, 2, 3), nn.Flatten(), nn.Linear(128, 4))
    with pytest.raises(ModelError, match=r"expected plain linear layers and convolutions, got a Padding \(0\)"):
        input_grams(model, rows, toy.runtime.fresh(), stage="grams")
    found = input_grams(model, rows, toy.runtime.fresh(), stage="grams", only="2")
    assert found["2"].count == 1


class Tied(nn.Module):
    """Two layers that have one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        self.again.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.again(self.first(images.flatten(1)).relu()).relu())
        return logits


def test_a_network_that_is_more_than_its_linear_layers_and_convolutions_is_refused() -> None:
    for other, name in (
        (nn.ConvTranspose2d(2, 3, 2), "ConvTranspose2d"),
        (nn.LSTM(3, 4), "LSTM"),
        (nn.GRUCell(3, 4), "GRUCell"),
        (nn.Bilinear(2, 3, 4), "Bilinear"),
    ):
        network = nn.Sequential(nn.Conv2d(1, 2, 3), other, nn.Linear(4, 4))
        with pytest.raises(ModelError, match=rf"expected linear layers and convolutions, got a {name} \(1\)"):
            check_layers(network)
        other.requires_grad_(False)  # as it would stay anyway
        check_layers(network)
    check_layers(nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm((3, 4)), nn.PReLU(4), nn.Conv3d(1, 2, 3)))


def test_layers_that_cannot_be_edited_one_by_one_are_refused() -> None:
    with pytest.raises(ModelError, match=r"got one shared by first\.weight and again\.weight: choose"):
        check_layers(Tied())
    normed = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    with pytest.raises(ModelError, match="got 1 whose weight is computed from others"):
        check_layers(normed)
    twice = nn.Linear(3, 3)
    check_layers(nn.Sequential(twice, twice))  # one layer that is called twice has one space
    with pytest.raises(ModelError, match="layers or convolutions that can change, got none in Sequential"):
        check_layers(nn.Sequential(nn.BatchNorm1d(3)))
    frozen = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(ModelError, match="got frozen ones alone in Sequential"):
        check_layers(frozen)


def test_a_basis_holds_the_share_asked_for_and_no_direction_more() -> None:
    turn, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    energies = torch.tensor([6.0, 3.0, 0.9, 0.1, 0.0], dtype=torch.float64)
    gram = turn * energies @ turn.T
    for share, kept in [(0.0, 0), (0.5, 1), (0.6001, 2), (0.899, 2), (0.901, 3), (0.995, 4), (0.9999, 4)]:
        found = basis(gram, share)
        assert found.shape == (5, kept), share
        torch.testing.assert_close(found @ found.T, turn[:, :kept] @ turn[:, :kept].T)
    torch.testing.assert_close(spectrum(gram)[0], energies)
    assert basis(torch.zeros(5, 5), 0.9).shape == (5, 0)


def test_a_basis_is_extended_by_the_fewest_directions_that_it_lacks() -> None:
    first = torch.diag(torch.tensor([90.0, 9.5, 0.5, 0, 0], dtype=torch.float64))
    held = basis(first, 0.99)
    torch.testing.assert_close(held @ held.T, torch.diag(torch.tensor([1.0, 1, 0, 0, 0], dtype=torch.float64)))
    # the second class lies half in what is there already, and needs one direction more of its two others
    second = torch.diag(torch.tensor([0.0, 0.5, 0, 0.45, 0.05], dtype=torch.float64))
    held = basis(second, 0.949, held)
    torch.testing.assert_close(held @ held.T, torch.diag(torch.tensor([1.0, 1, 0, 1, 0], dtype=torch.float64)))
    assert torch.equal(basis(second, 0.9, held).abs().round(), held.abs().round())  # it has enough
    assert basis(second, 0.9999, held).shape == (5, 4)


def test_a_spectrum_that_pytorch_gives_up_on_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randn(2, 9, 5, dtype=torch.float64)
    inputs[:, :, 3] = 0
    gram = inputs.mT @ inputs
    energies, directions = spectrum(gram)

    def gives_up(_: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("failed to converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    again = spectrum(gram)
    torch.testing.assert_close(again[0], energies)
    torch.testing.assert_close((again[1] * again[0][:, None]) @ again[1].mT, gram)
    assert directions.shape == again[1].shape
