"""Model folders: what timm loads, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import Toy
from expunge.checkpoint import load_model, save_model
from expunge.errors import ModelError


@pytest.fixture
def folder(toy: Toy, tmp_path: Path) -> Path:
    save_model(toy.model, tmp_path / "model", toy.data, {"training": {"epochs": 15}})
    return tmp_path / "model"


def test_a_model_comes_back_bit_equal(toy: Toy, folder: Path) -> None:
    loaded = load_model(folder)
    assert loaded.label_names == toy.data.label_names
    assert loaded.input_size == toy.data.input_size
    assert loaded.about["training"] == {"epochs": 15}
    for key, value in toy.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key


def test_timm_loads_it_by_itself(toy: Toy, folder: Path) -> None:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    inputs = torch.randn(2, *toy.data.input_size)
    toy.model.eval()
    assert torch.equal(model(inputs), toy.model(inputs))
    toy.model.train()
    assert model.pretrained_cfg["label_names"] == list(toy.data.label_names)


def test_a_child_remembers_its_parent_and_every_request(folder: Path) -> None:
    parent = load_model(folder)
    about = parent.child({"request": {"classes": [1]}})
    assert about["parent"] == parent.hash
    assert about["history"] == [{"request": {"classes": [1]}}]
    assert "history" not in parent.about


def change_config(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors")


def truncate(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (
        shutil.rmtree,
        "expected a model folder with config.json and model.safetensors, got .* without config",
    ),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "got .* without model.safetensors"),
    "truncated": (truncate, "expected a whole model.safetensors in .*, got a damaged one"),
    "no JSON": (
        lambda path: (path / "config.json").write_text("{"),
        "expected a JSON object in .*config.json, got a damaged",
    ),
    "a list": (
        lambda path: (path / "config.json").write_text("[]"),
        "expected a JSON object in .*config.json, got a damaged",
    ),
    "other network": (
        lambda path: change_config(path, lambda config: config.update(architecture="smal_cnn")),
        r"expected a network that timm has, got 'smal_cnn' \(did you mean 'small_cnn'\?\), in ",
    ),
    "other shape": (
        lambda path: change_weights(path, lambda weights: weights.update({"head.bias": torch.zeros(9)})),
        r"expected weights of shape \(4,\) for 'head.bias' in .*, got \(9,\)",
    ),
    "a weight missing": (
        lambda path: change_weights(path, lambda weights: weights.pop("head.bias")),
        r"expected the weights of this network in .*, got none for 'head.bias': are they of another network\?",
    ),
    "a weight too many": (
        lambda path: change_weights(path, lambda weights: weights.update({"body.0.weight": torch.zeros(9)})),
        r"expected the weights of this network in .*, got 'body.0.weight', which it does not have: are they of another",
    ),
    "NaN": (
        lambda path: change_weights(path, lambda weights: weights["head.bias"].fill_(float("nan"))),
        "expected finite weights, got NaN or infinity in 'head.bias' of ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_one_line(folder: Path, name: str) -> None:
    breaks, message = BROKEN[name]
    breaks(folder)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_a_pickle_in_the_place_of_weights_is_not_read(folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("a pickle was read",))

    torch.save(Bomb(), folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"expected a whole model\.safetensors"):
        load_model(folder)


def test_a_network_that_timm_cannot_build_again_is_not_written(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a network whose name and arguments are known, got Linear"):
        save_model(nn.Linear(2, 2), tmp_path / "model", toy.data, {})
