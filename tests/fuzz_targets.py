"""Fuzz targets: how inputs of each kind are made from the product's own files, and the entry that takes them."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch.utils.data import TensorDataset

import expunge
from expunge import cli
from expunge.checkpoint import load_model
from expunge.convert import convert_file
from expunge.datasets.shapes import Shapes
from expunge.errors import SettingsError
from expunge.experiment import experiment_from
from expunge.network import Network
from expunge.report.page import render
from expunge.report.reproduce import as_toml
from expunge.result import Record, Result, read
from expunge.settings import from_toml
from fuzz_data import (
    arrays,
    csv_table,
    hub,
    image_folder,
    mnist,
    parquet_table,
    take_arrays,
    take_folder,
    take_hub,
    take_mnist,
    take_table,
)
from mutations import NUMBERS, in_bytes, in_json, in_words, json_text, nested, word

SHAPES = {"classes": 4, "size": 8, "channels": 1, "train_rows": 160, "test_rows": 80}
DATA = "--data shapes " + " ".join(f"--set dataset.{key}={value}" for key, value in SHAPES.items())
EXPERIMENT = {
    "references": 2,
    "audits": ["accuracy", "prediction", {"name": "probe"}],
    "dataset": {"name": "shapes", **SHAPES},
    "network": {"name": "mlp", "args": {"width": 8}},
    "training": {"epochs": 2, "batch_size": 32},
    "request": {"classes": [1]},
    "method": {"name": "unsir", "repair_epochs": 1},
}
TRY = "train --network mlp --out out --dry-run --set epochs=1"
COMMANDS = (
    f"{TRY} {DATA} --set lr=0.01",
    f"{TRY} {DATA} --set network.args.width=8 --seed 1",
    f"forget original {DATA} --classes 1 --method finetune --out out --dry-run",
    f"forget original {DATA} --classes shape-1,2 --method unsir --set impair_lr=0.1 --out out --dry-run",
    f"forget original {DATA} --rows 3,17 --method retrain --out out --dry-run",
    f"forget original {DATA} --classes #1 --method head_mask --head drop --out out",
    f"audit original unlearned --retrained original {DATA} --classes 9 --out found.json",
    "run experiment.toml --set references=0 --set audits=[] --out out --stacked 2 --seed 3",
    "report result.json --out page.html",
    "compare result.json --out compared",
    f"convert original/model.safetensors {DATA} --network mlp --set network.args.width=8 --out out",
    "list methods unsir",
    "list datasets",
    "population list",
    f"{TRY} --data arrays --set dataset.path=. --set dataset.mean=[0.5]",
    f"{TRY} --data table --set dataset.path=t.csv --set dataset.label=kind",
    f"{TRY} --data folder --set dataset.path=. --set dataset.size=8",
    f"{TRY} --data huggingface --set dataset.path=a/b --set dataset.label=x",
    f"{TRY} --data torchvision --set dataset.which=MNIST --set dataset.root=.",
)
MACHINES = (["--device", "cpu"], ["--device", "cpu", "--precision", "32-true"], ["--device", "cpu", "--workers", "0"])


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of input."""

    inputs: int
    """How many a whole run takes."""
    make: Callable[[Random, Path, Path], None]
    """Fills an empty folder with an input, from the generator and the folder of seeds."""
    take: Callable[[Path], object]
    """Gives it to the product, in whose working folder it lies."""


def make_ground(folder: Path) -> None:
    """Fill a folder with what the product writes: models, a result, a record."""
    folder.mkdir()
    (folder / "experiment.toml").write_text(as_toml(EXPERIMENT))
    code, _, said = call(["run", str(folder / "experiment.toml"), "--device", "cpu", "--out", str(folder / "story")])
    assert code == 0, said
    for name in ("original", "unlearned", "result.json"):
        (folder / "story" / name).rename(folder / name)
    shutil.rmtree(folder / "story")
    forget = ["forget", str(folder / "original"), *DATA.split(), "--classes", "1", "--method", "head_mask"]
    code, _, said = call([*forget, "--device", "cpu", "--out", str(folder / "masked")])
    assert code == 0, said


def call(words: list[str]) -> tuple[int, str, str]:
    """Run a command line in this process; return its exit code, and what it wrote to stdout and stderr."""
    was = sys.argv, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    sys.argv = ["expunge", *words]
    sys.stdout = io.TextIOWrapper(out, "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(err, "utf-8", "backslashreplace", write_through=True)
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 99
    finally:
        streams = sys.stdout, sys.stderr
        sys.argv, sys.stdout, sys.stderr = was
        for stream in streams:
            stream.flush()
    return code, out.getvalue().decode(), err.getvalue().decode()


def make_weights(chance: Random, seeds: Path, folder: Path) -> None:
    """A model folder with a damaged weights file."""
    shutil.copytree(seeds / "original", folder / "model")
    file = folder / "model" / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if chance.random() < 0.5:
        header = json_text(chance, json.loads(data[8 : 8 + length]))
        size = len(header) if chance.random() < 0.8 else chance.choice([0, 1, 2**31, 2**63, 2**64 - 1])
        file.write_bytes(size.to_bytes(8, "little") + header + data[8 + length :])
    else:
        file.write_bytes(in_bytes(chance, data))
    if chance.random() < 0.7:
        (folder / "model" / "SHA256SUMS").unlink()


def make_config(chance: Random, seeds: Path, folder: Path) -> None:
    """A model folder with a hostile configuration."""
    shutil.copytree(seeds / "original", folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    name = chance.choice([*["mlp"] * 4, "small_cnn", "resnet18", "torchvision:resnet18", "vit_tiny_patch16_224", "a:b"])
    if chance.random() < 0.3:
        config |= {"architecture": name, "model_args": chance.choice([config["model_args"], {}])}
    if chance.random() < 0.15:
        config = {
            "model_type": chance.choice(["vit", "resnet", "timm_wrapper"]),
            "num_channels": 1,
            "image_size": 8,
        } | {chance.choice(["id2label", "hidden_size", "num_labels", "architectures"]): chance.choice(NUMBERS)}
    (folder / "model" / "config.json").write_bytes(json_text(chance, config))


def make_result(chance: Random, seeds: Path, folder: Path) -> None:
    """A hostile result, or record of a forgetting."""
    name = chance.choice(["result.json", "result.json", "masked/forget.json"])
    values = json.loads((seeds / name).read_text())
    if "label_names" in values and chance.random() < 0.3:
        values["label_names"] = [word(chance) for _ in values["label_names"]]
    if "findings" in values and chance.random() < 0.6:  # most of the file is findings: let the rest be hit too
        values["findings"] = values["findings"][: chance.randrange(4)]
    (folder / Path(name).name).write_bytes(json_text(chance, values))


def take_result(folder: Path) -> None:
    """Read it, and write its report."""
    if (folder / "forget.json").exists():
        read(Record, folder / "forget.json").to_json()
        return
    result = read(Result, folder / "result.json")
    result.to_json()
    render(result).encode()


def make_toml(chance: Random, seeds: Path, folder: Path) -> None:
    """A hostile experiment."""
    kinds = {
        "corruption": {"name": chance.choice(["backdoor", "canaries", "interclass_confusion"])},
        "method": {"name": chance.choice(["unsir", "retrain", "dissolve", "finetune", "head_mask"])},
        "dataset": {"name": chance.choice(["arrays", "folder", "table", "huggingface", "torchvision", "digits"])},
    }
    values = in_json(chance, EXPERIMENT | {key: kinds[key] for key in chance.sample(list(kinds), chance.randrange(3))})
    text = as_toml(values) if isinstance(values, dict) else "x = 1"
    data = text.replace("NaN", "nan").replace("Infinity", "inf").encode("utf-8", "surrogatepass")
    (folder / "experiment.toml").write_bytes(in_bytes(chance, data, 2) if chance.random() < 0.3 else data)


def take_toml(folder: Path) -> None:
    """Read it as the command `run` does, but run nothing."""
    from expunge.settings import read_text

    experiment_from(from_toml(read_text(folder / "experiment.toml")))


def make_pickle(chance: Random, seeds: Path, folder: Path) -> None:
    """A damaged or malicious pickle, or safetensors, of weights."""
    weights = load_model(seeds / "original").model.state_dict()
    hostile = [weights, {"state_dict": weights}, {"w": Bomb(folder)}, list(weights), nested(50, 1), {1: torch.zeros(2)}]
    old = chance.random() < 0.5
    file = folder / ("weights" + chance.choice([".pth", ".pt", ".bin", ".safetensors"]))
    torch.save(chance.choice(hostile), file, _use_new_zipfile_serialization=not old)
    if chance.random() < 0.7:
        file.write_bytes(in_bytes(chance, file.read_bytes()))
    if chance.random() < 0.5:
        (folder / "allowed").touch()


class Bomb:
    """A pickle of it makes a file when it is read by the usual loader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder / "bang"),)


def take_pickle(folder: Path) -> None:
    """Make a model folder of it."""
    file = next(folder.glob("weights.*"))
    network, data = Network(name="mlp", args={"width": 8}), Shapes(**SHAPES)
    allowed = (folder / "allowed").exists()
    convert_file(file, network, data, folder / "out", allow_pickle=allowed, overwrite=False)


def make_words(chance: Random, seeds: Path, folder: Path) -> None:
    """A hostile command line, with the files that it may name."""
    for name in ("original", "unlearned"):
        shutil.copytree(seeds / name, folder / name)
    for name in ("result.json", "experiment.toml"):
        shutil.copy(seeds / name, folder / name)
    words = chance.choice(COMMANDS).split()
    if words[0] in ("train", "forget", "audit", "run"):
        words += chance.choice(MACHINES)
    if chance.random() < 0.2:
        words.append("--overwrite")
    words = [*chance.choice([[], [], ["-q"], ["--json"]]), *in_words(chance, words)]
    # the system passes neither NUL nor a surrogate that stands for no byte
    passed = [word.replace("\0", "").replace("\ud800", "\udcff") for word in words]
    (folder / "words.json").write_text(json.dumps(passed))


def take_words(folder: Path) -> None:
    """Run it.

    Raises:
        ExpungeError: It was refused as it should be.
        AssertionError: It was not.
    """
    words = json.loads((folder / "words.json").read_text())
    code, out, err = call(words)
    assert code in (0, 1, 2), f"exit code {code}: {err}"
    for text in (out, err):
        strange = [letter for letter in text if letter != "\n" and not letter.isprintable()]
        assert not strange, f"characters {strange[:3]!r} in {text[:300]!r}"
    if code and not (err == "" and "Usage:" in out):  # a command without any word tells how it is used
        assert len(err.splitlines()) == 1, f"not one line: {err[:500]!r}"
    if code:
        raise SettingsError(err)


def make_call(chance: Random, seeds: Path, folder: Path) -> None:
    """Hostile arguments of the Python interface."""
    given: dict[str, object] = {"classes": [1], "method": "head_mask", "labels": [0, 1, 2, 3] * 10, "seed": 0}
    given |= {"device": "cpu", "head": "keep", "label_names": ["a", "b", "c", "d"], "precision": "32-true", "rows": []}
    whole = [number for number in NUMBERS if isinstance(number, int)]
    for _ in range(chance.randint(1, 2)):
        match key := chance.choice(list(given)):
            case "classes":
                given[key] = [chance.choice([word(chance), chance.choice(whole)]) for _ in range(chance.randrange(3))]
            case "labels" | "rows":
                given[key] = [chance.choice(whole) for _ in range(chance.choice([0, 1, 40]))]
            case "label_names":
                given[key] = [word(chance) for _ in range(chance.choice([0, 3, 4, 5]))]
            case "seed":
                given[key] = chance.choice(whole)
            case _:
                given[key] = chance.choice([word(chance), "drop", "finetune"])
    (folder / "call.json").write_text(json.dumps(given))


def take_call(folder: Path) -> None:
    """Forget, on a network of one layer."""
    given = json.loads((folder / "call.json").read_text())
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    torch.manual_seed(0)
    expunge.forget(torch.nn.Linear(6, 4), TensorDataset(inputs, torch.zeros(40)), **given)


TARGETS = {
    "command": Target(inputs=500, make=make_words, take=take_words),
    "api": Target(inputs=200, make=make_call, take=take_call),
    "config": Target(inputs=2300, make=make_config, take=lambda folder: load_model(folder / "model")),
    "result": Target(inputs=800, make=make_result, take=take_result),
    "toml": Target(inputs=800, make=make_toml, take=take_toml),
    "csv": Target(inputs=250, make=csv_table, take=take_table),
    "parquet": Target(inputs=250, make=parquet_table, take=take_table),
    "huggingface": Target(inputs=50, make=hub, take=take_hub),
    "folder": Target(inputs=120, make=image_folder, take=take_folder),
    "torchvision": Target(inputs=100, make=mnist, take=take_mnist),
    "pickle": Target(inputs=250, make=make_pickle, take=take_pickle),
    "arrays": Target(inputs=2200, make=arrays, take=take_arrays),
    "weights": Target(inputs=2700, make=make_weights, take=lambda folder: load_model(folder / "model")),
}
