"""Quantization: against PyTorch's own rounding, and a weight rounded by hand."""

import copy

import pytest
import torch
from torch import nn

from cases import by_name, random_case, row_case, state
from expunge.audits.accuracy import accuracy
from expunge.audits.quantization import Quantization, quantize, quantized
from expunge.training import predict


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3)])
def test_rounding_is_that_of_torch(bits: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits))
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().flatten(1).amax(dim=1) / largest
    zeros = torch.zeros(len(weight), dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -largest, largest)
    assert torch.allclose(quantize(weight, bits), expected, atol=1e-6)
    assert not torch.allclose(weight, expected, atol=1e-3) or bits == 8


def test_a_weight_rounded_by_hand() -> None:
    weight = torch.tensor([[7.0, 3.4, -2.6, 0.4], [0.7, 0.0, 0.04, -0.7], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[7.0, 3.0, -3.0, 0.0], [0.7, 0.0, 0.0, -0.7], [0.0, 0.0, 0.0, 0.0]])
    assert torch.allclose(quantize(weight, 4), expected)


def test_weights_of_linear_and_convolution_layers_are_rounded_and_nothing_else() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    rounded = dict(quantized(model, 3).named_parameters())
    for name, weight in model.named_parameters():
        assert rounded[name].equal(weight) == (name not in ("0.weight", "3.weight")), name
    assert len(set(rounded["3.weight"][0].tolist())) <= 7


def test_the_numbers_are_accuracies_of_rounded_models() -> None:
    case = random_case()
    found = by_name(Quantization(bits=(3,))(case))
    for part in ("forget_test", "retain_test"):
        for evidence, number in (
            (case.original, found[f"quantization/int3/{part}"].original),
            (case.unlearned, found[f"quantization/int3/{part}"].unlearned),
        ):
            model = copy.deepcopy(evidence.model)
            assert isinstance(model, nn.Linear)
            model.weight.data = quantize(model.weight.data, 3)
            assert number == accuracy(*predict(model, case.split.parts[part], case.runtime))
    assert found["quantization/int3/forget_test"].level == 3
    assert found["quantization/int3/retain_test"].level is None


def test_a_class_that_is_hidden_by_less_than_a_step_comes_back() -> None:
    weight = torch.tensor([[7.0, 0.3], [7.0, -0.3]])
    assert quantize(weight, 4)[:, 1].tolist() == [0, 0]
    assert quantize(weight, 8)[:, 1].tolist() != [0, 0]


def test_rows_are_measured_on_the_rows_themselves() -> None:
    found = by_name(Quantization()(row_case()))["quantization/int4/forget"]
    assert found.note is not None
    assert found.note.startswith("measured on forget")
    assert found.level == 3


def test_a_band_with_the_original_in_it_is_said_to_tell_nothing() -> None:
    case = random_case()
    for found in Quantization()(case):
        if found.band is not None and found.original is not None and found.band[0] <= found.original <= found.band[1]:
            assert found.note is not None
            assert "not informative here" in found.note


def test_without_retrained_models_it_says_so() -> None:
    for found in Quantization()(random_case(references=0)):
        assert (found.retrained, found.inside) == (None, None)
        assert found.note == "no reference"


def test_nothing_is_changed_and_twice_gives_the_same() -> None:
    case = random_case()
    before = state(case)
    findings = Quantization()(case)
    assert state(case) == before
    assert Quantization()(case) == findings
