"""Every command of docs/data.md and docs/cifar10.md runs, in one epoch, on data made for it."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from expunge.cli import main
from expunge.experiment import experiment_from
from expunge.settings import from_toml
from images import make_arrays, make_folder, make_hub, make_mnist, make_table

ROOT = Path(__file__).parents[1]


def commands(page: str) -> list[list[str]]:
    """Return the words of all commands of a page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def run_all(words: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for command in words:
        short = ["--set", "epochs=1", "--set", "network.args.width=2"] if command[1] == "train" else []
        monkeypatch.setattr("sys.argv", [command[0], "-q", *command[1:], *short, "--device", "cpu"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0, command


def test_the_recipes_of_data_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "photos", classes=("cat", "dog", "ship"), per_class=10)
    (tmp_path / "pictures").mkdir()
    make_hub(per_class=10).to_parquet(tmp_path / "pictures" / "train.parquet")
    make_mnist(tmp_path / "downloads", name="FashionMNIST")
    images, labels = make_arrays(rows=30, shape=(8, 8, 3))
    np.savez(tmp_path / "arrays.npz", x_train=images, y_train=labels)
    make_table(tmp_path / "rows.csv")
    words = commands("data.md")
    assert {word[3] for word in words if word[1] == "train"} == {
        "folder", "huggingface", "torchvision", "arrays", "table"
    }  # fmt: skip
    run_all(words, monkeypatch)


def test_the_commands_of_cifar10_train_and_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path/to/cifar10").mkdir(parents=True)
    for half in ("train", "test"):
        made = make_hub(per_class=6, seed=half == "test")
        made.to_parquet(tmp_path / "path/to/cifar10" / f"{half}-00000-of-00001.parquet")
    words = commands("cifar10.md")
    assert [word[1] for word in words] == ["train", "forget", "audit", "run"]
    run_all(words[:2], monkeypatch)


def test_the_experiment_of_cifar10_is_the_page_s() -> None:
    experiment = experiment_from(from_toml((ROOT / "experiments" / "cifar10-unsir.toml").read_text()))
    train = " ".join(commands("cifar10.md")[0])
    assert f"epochs={experiment.training.epochs} " in train
    assert f"batch_size={experiment.training.batch_size} " in train
    assert experiment.network.name in train
