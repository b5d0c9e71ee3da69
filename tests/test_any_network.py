"""Networks of every kind: trained, kept in a folder, made to forget, with and without the output, and audited."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from expunge.audits.accuracy import Accuracy
from expunge.audits.prediction import Prediction
from expunge.blueprint import blueprint_of
from expunge.case import Method, open_case
from expunge.checkpoint import load_model, save_model
from expunge.data import Data, split
from expunge.datasets.shapes import Shapes
from expunge.errors import ExpungeError, ModelError, SettingsError
from expunge.forgetting import headed, run_method
from expunge.methods.dissolve import Dissolve
from expunge.methods.finetune import Finetune
from expunge.methods.unsir import Unsir
from expunge.network import Network, find_head, rebuild
from expunge.request import Request
from expunge.runtime import Runtime, open_runtime
from expunge.training import Training, fit, predict

TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
TINY_VIT |= {"patch_size": 4}
NETWORKS: dict[str, tuple[Network, type[nn.Module]]] = {
    "timm layer norm, ViT": (
        Network(name="vit_tiny_patch16_224", args={"patch_size": 4, "embed_dim": 24, "num_heads": 3, "depth": 4}),
        nn.LayerNorm,
    ),
    "timm ConvNeXt": (
        Network(name="convnext_atto", args={"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "patch_size": 1}),
        nn.LayerNorm,
    ),
    "timm ResNet with group norm": (
        Network(name="resnet18", args={"norm_layer": "groupnorm1", "channels": [8, 8, 16, 16]}),
        nn.GroupNorm,
    ),
    "torchvision MobileNet": (
        Network(name="torchvision:mobilenet_v3_small", args={"width_mult": 0.25}),
        nn.BatchNorm2d,
    ),
    "transformers ViT": (Network(name="transformers:vit", args=TINY_VIT), nn.LayerNorm),
    "the user's own": (Network(name="own_network:build"), nn.GroupNorm),
    "no normalisation": (Network(name="mlp", args={"width": 32}), nn.Linear),
}
METHODS: tuple[Method, ...] = (
    Unsir(steps=3, noise_steps=3, repair_epochs=1),
    Dissolve(steps=8, fewest_steps=8, margin=0.8, tries=8),
    Finetune(steps=3, repair_epochs=1),
)


def data_for(network: Network) -> Data:
    channels = 3 if network.name.startswith("torchvision") else 1
    return Shapes(classes=4, size=8, channels=channels, train_rows=64, test_rows=20, noise=0.3).load()


def trained(network: Network, data: Data, runtime: Runtime, epochs: int = 1) -> nn.Module:
    with runtime.seeded("train/init"):
        model = network.build(data)
    fit(model, data.train, runtime, Training(epochs=epochs, batch_size=32), stage="train")
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_is_trained_kept_made_to_forget_and_audited(name: str, tmp_path: Path) -> None:
    network, norm = NETWORKS[name]
    data, runtime = data_for(network), open_runtime(device="cpu")
    model = trained(network, data, runtime)
    assert any(isinstance(module, norm) for module in model.modules())
    save_model(model, tmp_path / "original", data, {})
    loaded = load_model(tmp_path / "original", builder=network.name)
    assert loaded.label_names == data.label_names
    assert loaded.input_size == data.input_size
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    assert_same_weights(before, model.state_dict())
    again = rebuild(loaded.model)()
    head, fresh = find_head(loaded.model, 4), find_head(again, 4)
    assert head.weight.shape == fresh.weight.shape
    assert not torch.equal(head.weight, fresh.weight)

    parts = split(data, Request(classes=(1,)))
    for method in METHODS:
        made = run_method(method, loaded.model, parts, runtime, rebuild(loaded.model))
        assert made.access["forget"].reads == 0
        # what a method made has a head like that of any other: one of them shows that it can be dropped
        for choice in ("keep", "drop") if method is METHODS[0] else ("keep",):
            unlearned = headed(made.model, parts, choice)
            dropped = (1,) if choice == "drop" else ()
            folder = tmp_path / type(method).__name__ / choice
            folder.parent.mkdir(exist_ok=True)
            save_model(unlearned, folder, data, {}, dropped=dropped)
            back = load_model(folder, builder=network.name)
            assert back.label_names == tuple(f"shape-{index}" for index in range(4) if index not in dropped)
            logits, _ = predict(back.model, data.test, runtime)
            full, _ = predict(made.model, data.test, runtime)
            kept = [index for index in range(4) if index not in dropped]
            assert torch.allclose(logits, full[:, kept], atol=1e-5)
            case = open_case(parts, loaded.model, back.model, [model, again], runtime)
            findings = [finding for audit in (Accuracy(), Prediction()) for finding in audit(case)]
            assert all(finding.unlearned is not None for finding in findings)
            assert case.unseen() is None
            assert case.depths[-1] == "head"
    assert_same_weights(before, loaded.model.state_dict())


def assert_same_weights(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_a_network_of_transformers_is_loaded_by_its_own_library(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = Network(name="transformers:vit", args=TINY_VIT)
    data = data_for(network)
    model = network.build(data)
    save_model(model, tmp_path / "folder", data, {"training": {"epochs": 1}})
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "folder").eval()
    inputs = torch.randn(2, *data.input_size)
    assert torch.equal(theirs(inputs).logits, model.eval()(inputs))
    assert theirs.config.id2label == dict(enumerate(data.label_names))
    assert theirs.config.label2id["shape-2"] == 2
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    assert ours.label_names == data.label_names
    assert torch.equal(ours.model.eval()(inputs), model(inputs))
    assert load_model(f"transformers:{tmp_path / 'theirs'}").hash == ours.hash
    fresh = Network(name=f"transformers:{tmp_path / 'theirs'}").build(data)
    assert blueprint_of(fresh) == blueprint_of(model)
    assert not torch.equal(find_head(fresh, 4).weight, find_head(model, 4).weight)


def test_what_a_folder_of_another_says_of_its_inputs_is_read(tmp_path: Path) -> None:
    network = Network(name="transformers:vit", args=TINY_VIT)
    save_model(network.build(data_for(network)), tmp_path, data_for(network), {})
    config = json.loads((tmp_path / "config.json").read_text())
    del config["pretrained_cfg"]
    config["id2label"] = {str(index): f"LABEL_{index}" for index in range(4)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).label_names == ()
    assert load_model(tmp_path).input_size == (1, 8, 8)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.4], "image_std": [0.2]}')
    assert load_model(tmp_path).mean == (0.4,)


def test_a_model_of_the_hub_is_a_folder_with_two_files_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    network = Network(name="mlp", args={"width": 8})
    save_model(network.build(data_for(network)), tmp_path, data_for(network), {})
    asked: list[Any] = []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        if name == "user/none":
            raise OSError("no such repository")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_model("hf-hub:user/model@v2").hash == load_model(f"local-dir:{tmp_path}").hash
    assert asked == [("user/model", "v2", ["config.json", "model.safetensors", "preprocessor_config.json"])]
    fresh = Network(name="hf-hub:user/model").build(Shapes(classes=3, size=16, channels=2).load())
    assert fresh(torch.zeros(2, 2, 16, 16)).shape == (2, 3)
    with pytest.raises(ModelError, match="expected a model of the Hugging Face hub, got 'user/none': no such"):
        load_model("hf-hub:user/none")


WRONG: dict[str, tuple[str, str]] = {
    "torchvision:resnet17": ("shapes", r"expected an image classifier of torchvision, got 'resnet17' \(did you mean"),
    "torchvision:fasterrcnn_resnet50_fpn": ("shapes", "expected an image classifier of torchvision"),
    "transformers:vitt": ("shapes", r"expected an image classifier of transformers, got 'vitt' \(did you mean 'vit'"),
    "transformers:timm_wrapper": ("shapes", "expected an image classifier of transformers, got 'timm_wrapper'"),
    "own_network:bild": ("shapes", "expected 'bild' in 'own_network', got none"),
    "nowhere.at_all:build": ("shapes", "expected a module 'nowhere.at_all' that can be imported"),
    "own_network:nn": ("shapes", "expected own_network:nn to be a function that builds a network, got module"),
    "json:dumps": ("shapes", "expected arguments that 'json:dumps' takes"),
    "torchvision:resnet18": ("shapes", r"expected arguments that 'torchvision:resnet18' takes for inputs \(1, 8, 8\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_network_that_cannot_be_had_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(SettingsError, match=WRONG[name][1]):
        Network(name=name).build(Shapes(classes=4, size=8, channels=1).load())


def test_a_head_that_is_a_convolution_is_refused_in_one_line_and_needs_none_to_forget() -> None:
    network = Network(name="torchvision:squeezenet1_1")
    data = Shapes(classes=4, size=32, channels=3, train_rows=16, test_rows=8).load()
    runtime, parts = open_runtime(device="cpu"), split(data, Request(classes=(1,)))
    model = network.build(data)
    attempts: tuple[Callable[[], nn.Module], ...] = (
        lambda: find_head(model, 4),
        lambda: headed(model, parts, "drop"),
    )
    for attempt in attempts:
        with pytest.raises(ModelError, match="expected a linear layer with 4 outputs, got none in SqueezeNet, but a"):
            attempt()
    made = run_method(Unsir(steps=1, noise_steps=1, repair_epochs=0), model, parts, runtime, rebuild(model))
    case = open_case(parts, model, made.model, [], runtime)
    assert "but a convolution" in str(case.unseen())


def test_a_builder_that_takes_no_number_of_classes_keeps_its_head() -> None:
    model = Network(name="own_network:fixed").build(data_for(Network(name="own_network:fixed")))
    parts = split(data_for(Network()), Request(classes=(1,)))
    assert headed(model, parts, "keep") is model
    with pytest.raises(ExpungeError, match="expected a builder that takes num_classes, to build 3 outputs, got own_"):
        headed(model, parts, "drop")
