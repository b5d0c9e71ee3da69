"""Ideas for speed, each against the step as it is, in turn within every repeat: what they bring on a processor.

Steps of training are timed by the processor time of this process. For the start of the noise the number of steps is
counted that UNSIR's noise takes to be good enough by a rule that knows the model and the noise alone: the mean
cross-entropy with its class is three times that of a guess.

    python benchmarks/speed_ideas.py --out benchmarks/results/speed_ideas.json
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.datasets.digits import Digits
from expunge.datasets.shapes import Shapes
from expunge.methods.unsir import Unsir
from expunge.network import Network, copy_of
from expunge.result import environment
from expunge.runtime import open_runtime
from expunge.training import Training, fit

Step = Callable[[], None]
BATCH, STEPS = 64, 12


@contextmanager
def looking_for_a_driver() -> Iterator[None]:
    """Let PyTorch look for a GPU's driver at every step of Adam, as it does where it is not told that there is none."""
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden


def make_step(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    fused: bool = True,
    half: bool = False,
    channels_last: bool = False,
    compiled: bool = False,
) -> Step:
    """Return a step of training of a copy of the network."""
    model = copy_of(network).train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), 0.001, fused=fused)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            logits = forward(inputs)
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(logits.float(), labels))
        optimizer.step()

    return step


def timed(step: Step) -> float:
    begun = time.process_time()
    for _ in range(STEPS):
        step()
    return (time.process_time() - begun) / STEPS


def compare_steps(name: str, repeats: int, *, compiled: bool) -> dict[str, Any]:
    """Return per idea the ratio of its time per step to that of the step as it is."""
    data = Shapes(size=16, train_rows=BATCH, test_rows=10).load()
    inputs, labels = data.train.batch(np.arange(BATCH))
    with open_runtime(device="cpu").seeded("train/init"):
        network = Network(name=name).build(data)
    steps = {
        "as it is": make_step(network, inputs, labels),
        "not fused": make_step(network, inputs, labels, fused=False),
        "looking for a driver": make_step(network, inputs, labels),
        "channels_last": make_step(network, inputs, labels, channels_last=True),
        "bf16 autocast": make_step(network, inputs, labels, half=True),
        "bf16 autocast, channels_last": make_step(network, inputs, labels, half=True, channels_last=True),
    }
    first: dict[str, float] = {}
    if compiled:
        steps["torch.compile"] = make_step(network, inputs, labels, compiled=True)
    seconds: dict[str, list[float]] = {idea: [] for idea in steps}
    for repeat in range(repeats + 1):
        for idea, step in steps.items():
            with looking_for_a_driver() if idea == "looking for a driver" else nullcontext():
                begun = time.process_time()
                took = timed(step)
            if repeat:
                seconds[idea].append(took)
            else:
                first[idea] = time.process_time() - begun
    found: dict[str, Any] = {}
    for idea, values in seconds.items():
        ratios = [value / unit for value, unit in zip(values, seconds["as it is"], strict=True)]
        found[idea] = {
            "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
            "milliseconds": 1e3 * statistics.median(values),
            "seconds_of_first_round": first[idea],
        }
        print(
            f"{name:10} {idea:30} {found[idea]['ratio']['median']:6.2f} "
            f"[{min(ratios):.2f} {max(ratios):.2f}]  {found[idea]['milliseconds']:.2f} ms",
            flush=True,
        )
    return found


def noise_starts() -> dict[str, Any]:
    """Return per deviation of the starting noise, after how many steps its error is three times that of a guess."""
    data, runtime, method = Digits().load(), open_runtime(device="cpu"), Unsir()
    with runtime.seeded("train/init"):
        model = Network().build(data)
    fit(model, data.train, runtime, Training(), stage="train")
    frozen = copy_of(model).eval().requires_grad_(False)
    labels = torch.arange(10).repeat_interleave(6)
    goal = 3 * float(np.log(10))
    found: dict[str, Any] = {}
    for deviation in (1.0, 0.3, 0.1):
        start = deviation * torch.randn(len(labels), *data.input_size, generator=runtime.generator("noise"))
        images = start.requires_grad_()
        optimizer = torch.optim.Adam([images], method.noise_lr)
        errors = []
        for _ in range(method.noise_steps):
            each = functional.cross_entropy(frozen(images), labels, reduction="none")
            errors.append([float(each[labels == index].mean()) for index in range(10)])
            optimizer.zero_grad()
            size = images.flatten(1).square().sum(1).mean()
            torch.autograd.backward(method.noise_penalty * size - each.mean())
            optimizer.step()
        reached = [next((step for step, row in enumerate(errors) if row[index] >= goal), None) for index in range(10)]
        found[str(deviation)] = {"steps_by_class": reached, "error_at_the_end_by_class": errors[-1]}
        print(
            f"noise from deviation {deviation}: steps {reached}, errors at the end {np.round(errors[-1], 1).tolist()}"
        )
    return found


def main() -> None:
    """Measure every idea and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: it needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu"),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "steps": {
            name: compare_steps(name, arguments.repeats, compiled=arguments.compile) for name in ("mlp", "small_cnn")
        },
        "noise": noise_starts(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
