"""Processes: a Fabric over one process or many, and models made ready to be trained by all of them together.

Started as one command, ``--devices 2`` starts the other processes by itself. Under ``torchrun`` or SLURM they are there
already, and Fabric finds each one's place in the environment. Every process runs the same command; the first alone
writes and speaks.
"""

import atexit
import copy
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from expunge.errors import ModelError, SettingsError

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Strategy = Literal["ddp", "fsdp"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
BatchNorm = Literal["local", "sync"]
BATCH_NORMS: tuple[BatchNorm, ...] = get_args(BatchNorm)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def open_fabric(*, device: str, precision: str, devices: int, num_nodes: int, strategy: str) -> Fabric:
    """Return a Fabric whose processes have all joined.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        precision: As Lightning Fabric names it.
        devices: Processes on each machine, one per GPU; ``torchrun``'s count goes before it.
        num_nodes: Machines; ``torchrun``'s count goes before it.
        strategy: ``ddp``, where each process holds the whole model, or ``fsdp``, where its weights are shared out.

    Raises:
        SettingsError: Something is unknown, not there, or does not go together.
    """
    _one_of("a precision", precision, PRECISIONS)
    _one_of("a strategy", strategy, STRATEGIES)
    if "LOCAL_WORLD_SIZE" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    for name, count in (("devices", devices), ("num-nodes", num_nodes)):
        if count < 1:
            raise SettingsError(f"expected 1 or more for --{name}, got {count}")
    kind, number = _device(device, devices)
    alone = devices * num_nodes == 1
    if not torch.cuda.is_available():
        # a PyTorch built for CUDA looks for a driver at every step of Adam unless it is told that there is no GPU
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    how: Any = "auto" if alone else strategy
    if not alone and strategy == "fsdp":
        how = ModelParallelStrategy(share_out, data_parallel_size=devices * num_nodes, tensor_parallel_size=1)
    chosen: Any = devices if number is None else [number]
    try:
        fabric = Fabric(accelerator=kind, devices=chosen, num_nodes=num_nodes, precision=precision, strategy=how)  # type: ignore[arg-type]
    except (ValueError, RuntimeError) as error:
        raise SettingsError(f"expected settings that go together, got: {error}") from error
    if not alone:
        if kind == "cpu":
            # so many processes with a thread for every core each would stand in each other's way
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // devices))
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of every process that joins
        fabric.launch()
        atexit.register(leave)
    return fabric


def leave() -> None:
    """Leave the group of processes, as each of them should before it ends; alone, do nothing.

    Fabric sees to it on GPUs alone. On CPUs the group's threads can outlive the interpreter, and then abort the process
    after all its work is done: https://github.com/pytorch/pytorch/issues/190489
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def other_lost(error: RuntimeError) -> bool:
    """Return whether an error is that of a process whose group has lost another."""
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return joined and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error))


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"expected {what} {', '.join(known)}, got {value!r}")


def _device(device: str, devices: int) -> tuple[str, int | None]:
    """Return ``cpu`` or ``cuda``, and the number of a GPU if one was named."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise SettingsError(f"expected a device auto, cpu, cuda or cuda:N, got {device!r}")
    available = torch.cuda.device_count()
    if number and devices > 1:
        raise SettingsError(f"expected --device cuda for {devices} devices, got {device!r}, which is one")
    if kind == "cuda" and (int(number or 0) >= available or devices > available):
        raise SettingsError(
            f"expected {'a CUDA device' if devices == 1 else f'{devices} CUDA devices'} for {device!r}, "
            f"got {available} on this machine: use --device cpu"
        )
    if kind == "auto":
        kind = "cuda" if available >= devices else "cpu"
    return kind, (int(number or 0) if kind == "cuda" and devices == 1 else None)


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A model made ready to be trained by all processes together."""

    model: nn.Module
    """Whose weights an optimiser is to take: the model itself, or a copy where its weights are shared out."""
    call: Callable[[Tensor], Tensor]
    """From inputs to outputs."""

    def put_into(self, model: nn.Module) -> None:
        """Put what was trained into the model that came, if it is another; every process gets all of it."""
        if self.model is not model:
            full = get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True))
            model.load_state_dict(full)


def share(model: nn.Module, fabric: Fabric, batch_norm: BatchNorm | None) -> tuple[nn.Module, nn.Module]:
    """Return a model whose weights are to be trained by several processes, and what is to be called for it.

    The first is the model itself, or a copy where its layers have to be others or its weights are shared out.

    Args:
        model: On the Fabric's device, in its precision.
        fabric: Of more than one process.
        batch_norm: Whose rows batch normalisation takes its statistics from: of each process's own share of a batch, or
            of the whole batch.

    Raises:
        ModelError: The model has batch normalisation, and nothing says how, or the whole batch is asked for on a CPU.
    """
    if any(isinstance(module, NORMS) for module in model.modules()):
        if batch_norm is None:
            raise ModelError(
                "expected --batch-norm local or sync for a network with batch normalisation in several processes, got "
                "none: local takes statistics from each process's share of a batch, sync from the whole (GPUs only)"
            )
        if batch_norm == "sync" and fabric.device.type != "cuda":
            raise ModelError("expected GPUs for --batch-norm sync, which PyTorch has for them alone: use local")
        if batch_norm == "sync":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))  # type: ignore[no-untyped-call]
    if isinstance(fabric.strategy, ModelParallelStrategy):
        model = copy.deepcopy(model)
    return model, fabric.strategy.setup_module(model)


def share_out(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Share a model's weights out among all processes: those of each block together, and what is left.

    PyTorch's fully_shard (FSDP2): https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
    """
    along = mesh["data_parallel"]
    for block in _blocks(model):
        fully_shard(block, mesh=along)
    fully_shard(model, mesh=along)
    return model


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the members of the outermost lists and sequences of modules."""
    if isinstance(model, nn.ModuleList | nn.Sequential):
        return [block for block in model.children() if any(True for _ in block.parameters())]
    return [block for child in model.children() for block in _blocks(child)]
