"""Folders and files of strangers: nothing in them runs, and nothing is built that is larger than its weights."""

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from expunge.checkpoint import load_model, save_model
from expunge.convert import convert_file
from expunge.datasets.shapes import Shapes
from expunge.errors import ModelError
from expunge.network import Network
from test_cli import call

SHAPES = Shapes(classes=4, size=8, channels=1, train_rows=40, test_rows=8)
WORDS = ["--data", "shapes", "--set", "dataset.classes=4", "--set", "dataset.size=8", "--set", "dataset.channels=1"]
WORDS += ["--set", "dataset.train_rows=40", "--set", "dataset.test_rows=8"]


class Bomb:
    """A pickle of it makes a file when it is read by the usual loader."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_the_bomb_of_these_tests_goes_off(tmp_path: Path) -> None:
    torch.save({"weight": Bomb(tmp_path / "mark")}, tmp_path / "evil.pth")
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.bin", "evil.ckpt", "evil.pkl"])
def test_a_pickle_is_refused_and_not_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / name, tmp_path / "out"
    torch.save({"weight": Bomb(tmp_path / "mark")}, file)
    convert = ["convert", str(file), "--network", "mlp", *WORDS, "--out", str(out)]
    for words, told in (
        (["forget", str(file), "--classes", "1", *WORDS, "--out", str(out)], f"`expunge convert {file} --allow-pickle"),
        (convert, f"got {file}, a pickle, which can run code"),
        ([*convert, "--allow-pickle"], "a pickle of something else, of which nothing was run"),
    ):
        code, _, err = call(capsys, *words)
        assert code == 2
        assert told in err
        assert len(err.splitlines()) == 1
        assert not out.exists()
        assert not (tmp_path / "mark").exists()


def test_a_folder_with_a_pickle_alone_says_how_to_convert_it(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb(folder / "mark")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"without model.safetensors, but a pickle, .*`expunge convert .*pytorch_"):
        load_model(folder)
    assert not (folder / "mark").exists()


def test_weights_of_a_stranger_become_a_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Network(name="own_network:build", args={"width": 8}).build(SHAPES.load())
    weights = model.state_dict()
    save_file(weights, tmp_path / "plain.safetensors")
    torch.save(weights, tmp_path / "plain.pth")
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "a.pt"
    )
    for file in ("plain.safetensors", "plain.pth", "old.pth", "a.pt"):
        words = ["convert", str(tmp_path / file), "--network", "own_network:build", "--set", "network.args.width=8"]
        words += [] if file.endswith("safetensors") else ["--allow-pickle"]
        code, _, err = call(capsys, *words, *WORDS, "--out", str(tmp_path / f"{file}-folder"))
        assert (code, err) == (0, "")
        loaded = load_model(tmp_path / f"{file}-folder", builder="own_network:build")
        assert loaded.label_names == tuple(f"shape-{index}" for index in range(4))
        for key, value in weights.items():
            assert torch.equal(loaded.model.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            {"other": torch.zeros(2)},
            "weights of this network in .*got .* more that do not fit: are they of another network",
        ),
        ([torch.zeros(2)], r"expected named tensors \(a state_dict\) in .*, got list"),
        ({}, "expected named tensors"),
        (torch.zeros(2), "expected named tensors .*, got Tensor"),
        (nn.Linear(2, 2), "expected weights alone .* got a pickle of something else"),
    ],
)
def test_a_pickle_of_something_else_is_refused(held: Any, message: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "held.pth")
    network = Network(name="mlp", args={"width": 8})
    with pytest.raises(ModelError, match=message):
        convert_file(tmp_path / "held.pth", network, SHAPES, tmp_path / "out", allow_pickle=True, overwrite=False)
    (tmp_path / "text.pth").write_text("no weights")
    for allowed in (True, False):
        with pytest.raises(ModelError, match=r"^expected weights, .* got \S+text.pth, a file of another kind$"):
            convert_file(
                tmp_path / "text.pth", network, SHAPES, tmp_path / "out", allow_pickle=allowed, overwrite=False
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["mlp", "test_convnext.r160_in1k", "resnet20"])
def test_what_a_file_has_in_half_precision_stays_so_in_the_folder(name: str, tmp_path: Path) -> None:
    network = Network(name=name)
    weights = network.build(SHAPES.load()).state_dict()
    halves = sorted(key for key, value in weights.items() if value.is_floating_point())[1:]
    weights |= {key: weights[key].to(torch.bfloat16) for key in halves}
    save_file(weights, tmp_path / "half.safetensors")
    convert_file(tmp_path / "half.safetensors", network, SHAPES, tmp_path / "out", allow_pickle=False, overwrite=False)
    kept = load_file(tmp_path / "out" / "model.safetensors")
    assert kept.keys() == weights.keys()
    for key, value in kept.items():
        assert value.dtype == weights[key].dtype, key
        assert torch.equal(value, weights[key]), key
    assert load_model(tmp_path / "out").halves.keys() == set(halves)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = SHAPES.load()
    save_model(Network(name="mlp", args={"width": 8}).build(data), tmp_path / "folder", data, {})
    return tmp_path / "folder"


def configure(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    config["model_args"] |= changes.pop("model_args", {})
    (path / "config.json").write_text(json.dumps(config | changes))


def huge_header(path: Path) -> None:
    header = json.dumps({"head.weight": {"dtype": "F32", "shape": [25 * 10**9], "data_offsets": [0, 10**11]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def huge_config(path: Path) -> None:
    with (path / "config.json").open("ab") as file:
        file.truncate(10**9)  # zeros that take no room on the disk


def many_layers(path: Path) -> None:
    small = {"patch_size": 4, "embed_dim": 4, "num_heads": 1, "img_size": 8, "depth": 60_000}
    configure(path, architecture="vit_tiny_patch16_224", model_args={"width": 8})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_args": small}))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a header of 100 GB": (huge_header, "expected a whole model.safetensors in .*, got a damaged one"),
    "a configuration of 1 GB": (huge_config, "expected at most 16777216 bytes in .*config.json, got 1000000000"),
    "nested without end": (
        lambda path: (path / "config.json").write_text("[" * 10**6),
        "expected a JSON object in .*, got a damaged one: RecursionError",
    ),
    "a width of a thousand million": (
        lambda path: configure(path, model_args={"width": 10**9}),
        "expected width of at most 65536, for the weights in .*, got 1000000000",
    ),
    "a width that no memory holds": (
        lambda path: configure(path, model_args={"width": 65_536, "depth": 60_000}),
        "expected a network of the size of its weights in|expected arguments|expected weights of shape",
    ),
    "a wide network": (
        lambda path: configure(path, model_args={"width": 65_536}),
        r"expected weights of shape \(4, 65536\) for 'head.weight' in .*, got \(4, 8\)",
    ),
    "many layers": (many_layers, "expected a network of the size of its weights in .*, got one of more layers"),
    "inputs without end": (
        lambda path: configure(path, input_size=[1, float("inf"), 8]),
        r"expected a model's config\.json in .*, got a damaged one: OverflowError",
    ),
    "a division by zero": (
        lambda path: configure(
            path, architecture="vit_tiny_patch16_224", model_args={"width": 8, "patch_size": 0, "img_size": 8}
        ),
        "expected arguments that 'vit_tiny_patch16_224' takes in .*, got: ",
    ),
    "a file outside": (
        lambda path: configure(path, model_args={"checkpoint_path": "/etc/passwd"}),
        "expected arguments of a network in .*, got 'checkpoint_path', which loads something else",
    ),
    "a download": (
        lambda path: configure(path, model_args={"pretrained": True}),
        "expected arguments of a network in .*, got 'pretrained', which loads something else",
    ),
    "a configuration of other weights": (
        lambda path: configure(path, model_args={"pretrained_cfg": {"file": "../../weights.bin"}}),
        "got 'pretrained_cfg', which loads something else",
    ),
    "weights of torchvision": (
        lambda path: configure(path, architecture="torchvision:resnet18", model_args={"weights": "DEFAULT"}),
        "got 'weights', which loads something else",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_before_memory_is_taken(name: str, folder: Path) -> None:
    breaks, message = HOSTILE[name]
    breaks(folder)
    begun = time.perf_counter()
    with pytest.raises(ModelError, match=message):
        load_model(folder)
    assert time.perf_counter() - begun < 5


def test_a_configuration_of_transformers_brings_no_code_and_no_other_librarys_models(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    for config, message in (
        (
            {"model_type": "vit", "auto_map": {"AutoConfig": "evil.Config"}},
            "got 'auto_map', which loads something else",
        ),
        ({"model_type": "timm_wrapper", "architecture_": "x"}, "expected an image classifier of transformers"),
        (
            {"model_type": "vit", "hidden_size": "wide"},
            "expected arguments that transformers:vit takes, got: Validation",
        ),
        ({"model_type": "vit", "hidden_size": 10**9}, "expected hidden_size of at most 65536"),
        ({"model_type": "vit", "hidden_size": 65_532, "num_hidden_layers": 1}, "expected .* numbers in the weights"),
    ):
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=message):
            load_model(folder)
    assert load_file(folder / "model.safetensors").keys() == weights.keys()


def test_code_that_a_folder_names_runs_only_if_the_user_names_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "evil_network.py").write_text("open('mark', 'w').close()\nbuild = None\n")
    (tmp_path / "good_network.py").write_text(
        "from timm import create_model\n\ndef build(num_classes, width=8):\n"
        "    return create_model('mlp', num_classes=num_classes, in_chans=1, img_size=8, width=width)\n"
    )
    forget = ["forget", str(folder), "--classes", "1", *WORDS, "--out", str(tmp_path / "out"), "--device", "cpu"]
    forget += ["--method", "finetune"]
    for network in ([], ["--network", "good_network:build"]):
        configure(folder, architecture="evil_network:build")
        code, _, err = call(capsys, *forget, *network)
        assert code == 2
        assert "wants code for, 'evil_network:build'" in err
        assert "if that is your own code, name it with --network" in err
        assert not (tmp_path / "mark").exists()
        assert "evil_network" not in sys.modules
    config = json.loads((folder / "config.json").read_text())
    config |= {"architecture": "good_network:build", "model_args": {"num_classes": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    assert call(capsys, *forget)[0] == 2
    code, _, err = call(capsys, *forget, "--network", "good_network:build", "--head", "drop")
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_args"]["num_classes"] == 3
