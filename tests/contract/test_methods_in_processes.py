"""Every method in two processes: each ends with the weights that one process alone makes."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import nn

from expunge.case import Method
from expunge.data import split
from expunge.datasets.shapes import Shapes
from expunge.forgetting import run_method
from expunge.network import rebuild
from expunge.processes import leave
from expunge.request import Request
from expunge.runtime import Runtime
from expunge.settings import build, names

METHODS = names("methods")
FEW: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 16,
    "k": 2,
    "max_steps": 1,
    "plain_epochs": 1,
    "rounds": 2,
    "student_steps": 2,
    "threshold": 0.9,  # an untrained network is sure of nothing
    "training": {"epochs": 2, "batch_size": 16},
}
"""What a method is made small by, if it has it."""
DRAWN_APART = {
    "jit",  # as dropout is: each process shakes its own rows
    "mu_mis",  # and draws its own other class for each
    "prune_lora",  # dropout within the adapters
}
"""Methods whose steps draw at random in each process for its own share: the processes agree, not with one alone."""


def small(name: str) -> Method:
    """Return a method that takes a few steps."""
    known = {field.name for field in dataclasses.fields(build("methods", {"name": name}))}
    method: Method = build("methods", {"name": name} | {key: value for key, value in FEW.items() if key in known})
    return method


def forget(fabric: Fabric, folder: str) -> None:
    """Let a network forget by every method in double precision, and write its weights and reads."""
    torch.set_num_threads(1)
    runtime = Runtime(fabric=fabric, precision="64-true", seed=3)
    # 121 rows stay and 40 go: the last batch of either is not the same in all processes
    parts = split(Shapes(classes=4, size=8, channels=1, train_rows=161).load(), Request(classes=(1,)))
    with runtime.seeded("init"):
        layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 12), nn.ReLU(), nn.Linear(12, 4))
        model = nn.Sequential(*layers).double()
    for name in METHODS:
        made = run_method(small(name), model, parts, runtime.fresh(), rebuild(model))
        reads = torch.tensor([[count.rows, count.reads] for count in made.access.values()])
        weights = {key: value.clone() for key, value in made.model.state_dict().items()}
        save_file(weights | {"reads": reads}, f"{folder}/{name}-{fabric.world_size}-{fabric.global_rank}.safetensors")
    leave()


def test_two_processes_forget_as_one_does(tmp_path: Path) -> None:
    Fabric(accelerator="cpu", devices=1, precision="64-true").launch(forget, str(tmp_path))  # type: ignore[arg-type]
    two = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn", precision="64-true")
    two.launch(forget, str(tmp_path))  # type: ignore[arg-type]
    for name in METHODS:
        alone, first, second = (load_file(tmp_path / f"{name}-{which}.safetensors") for which in ("1-0", "2-0", "2-1"))
        assert torch.equal(first["reads"], alone["reads"]), name
        for key, value in first.items():
            assert torch.equal(value, second[key]), f"{name}: {key}"
            if name not in DRAWN_APART:
                # within single precision, in which features are kept
                assert (value - alone[key]).abs().max() < 1e-6, f"{name}: {key}"
