"""What every network must do; each file of ``expunge.networks`` is taken in by its name."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from conftest import Toy, make_toy
from expunge.checkpoint import load_model, save_model
from expunge.datasets.shapes import Shapes
from expunge.network import Network, find_head, rebuild
from expunge.settings import names

NETWORKS = names("networks")


def make(name: str, **data: int) -> Any:
    return Network(name=name).build(Shapes(**({"classes": 5, "size": 8, "channels": 2} | data)).load())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (33, 2)])
def test_gives_a_logit_per_class_and_gradients_for_all_weights(name: str, size: int, channels: int) -> None:
    model = make(name, size=size, channels=channels)
    logits = model(torch.randn(3, channels, size, size))
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_has_timms_interface(name: str) -> None:
    model = make(name)
    inputs = torch.randn(3, 2, 8, 8)
    model.eval()
    features = model.forward_head(model.forward_features(inputs), pre_logits=True)
    assert features.shape == (3, model.num_features)
    assert torch.equal(model.get_classifier()(features), model(inputs))
    assert find_head(model, 5) is model.get_classifier()
    model.reset_classifier(7)
    assert model(inputs).shape == (3, 7)


@pytest.mark.parametrize("name", NETWORKS)
def test_is_listed_by_timm_and_rebuilt_with_fresh_weights(name: str) -> None:
    assert timm.is_model(name)
    model = make(name, size=16)
    new = rebuild(model)()
    assert {key: value.shape for key, value in new.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert not torch.equal(find_head(new, 5).weight, find_head(model, 5).weight)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_of_it_gives_the_same_network_again(name: str, tmp_path: Path) -> None:
    data = Shapes(classes=5, size=8, channels=2).load()
    model = Network(name=name).build(data).eval()
    save_model(model, tmp_path / "folder", data, {})
    inputs = torch.randn(3, 2, 8, 8)
    assert torch.equal(load_model(tmp_path / "folder").model.eval()(inputs), model(inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_learns(name: str) -> None:
    width = {"allcnn": 8, "resnet20": 8, "small_cnn": 8, "mlp": 64}[name]
    toy: Toy = make_toy(Network(name=name, args={"width": width}))
    assert toy.accuracy(toy.model, toy.split(0), "retain_test") > 0.6
