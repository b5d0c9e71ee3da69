"""What the library's training loop costs beyond a bare PyTorch loop that takes the same steps.

Both loops take their turn within every repeat, on copies of one network, and end with bit-equal weights, or the
benchmark stops. A step is timed by the processor time of this process and by the wall clock, and a repeat's ratio is
that of the medians over its steps, so that other work on the machine weighs on both loops alike. What `fit` does once,
before and after its steps, is given in milliseconds.

    python benchmarks/overhead.py --out benchmarks/results/overhead.json
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.datasets.shapes import Shapes
from expunge.network import Network, copy_of
from expunge.result import environment
from expunge.rows import TensorRows
from expunge.runtime import count_batches, open_runtime
from expunge.settings import to_mapping
from expunge.training import Training, fit

ROWS, PIXELS = 1024, 16
NETWORKS = {"mlp": 256, "small_cnn": 96, "resnet20": 16}
"""By network, how many steps a repeat has."""
Clocks = list[tuple[float, float]]
CLOCKS = ("processor", "wall")


def now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def bare(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    training: Training,
    after_step: Callable[[], None],
) -> None:
    """Train with AdamW and a one-cycle schedule, as anyone would write it down."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), training.lr, weight_decay=training.weight_decay, fused=True)
    steps = count_batches(len(inputs), training.batch_size, training.epochs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=steps + 1)
    for _ in range(training.epochs):
        order = torch.randperm(len(inputs), generator=generator)
        for indices in torch.split(order, training.batch_size):
            some_inputs, some_labels = inputs[indices], labels[indices]
            loss = functional.cross_entropy(model(some_inputs), some_labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            after_step()
    model.zero_grad(set_to_none=True)


def timed(loop: Callable[[nn.Module, Callable[[], None]], None], model: nn.Module) -> dict[str, dict[str, float]]:
    """Return seconds by clock: the median over steps but the first, and all that was outside of such steps."""
    ticks: Clocks = []
    begun = now()
    loop(model, lambda: ticks.append(now()))
    ended = now()
    times = {}
    for place, clock in enumerate(CLOCKS):
        steps = np.diff([tick[place] for tick in ticks])
        whole = ended[place] - begun[place]
        times[clock] = {"step": float(np.median(steps)), "outside": float(whole - steps.sum() - np.median(steps))}
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    lower, median, upper = statistics.quantiles(values, n=4)
    return {
        "median": median,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "least": min(values),
        "most": max(values),
    }


def measure(name: str, steps: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """Run both loops in turn; return the ratios of their times per step."""
    data = Shapes(size=PIXELS, train_rows=ROWS, test_rows=10).load()
    inputs, labels = data.train.batch(np.arange(ROWS))
    rows = TensorRows(inputs, labels)
    runtime = open_runtime(device="cpu")
    with runtime.seeded("train/init"):
        network = Network(name=name).build(data)
    training = Training(epochs=max(1, steps * batch_size // ROWS), batch_size=batch_size)

    def library(model: nn.Module, after_step: Callable[[], None]) -> None:
        fit(model, rows, runtime.fresh(), training, stage="train", after_step=after_step)

    def plain(model: nn.Module, after_step: Callable[[], None]) -> None:
        bare(model, inputs, labels, runtime.generator("train/order"), training, after_step)

    loops = {"library": library, "bare": plain}
    found: dict[str, list[dict[str, dict[str, float]]]] = {loop: [] for loop in loops}
    for repeat in range(repeats + 1):
        models = {loop: copy_of(network) for loop in loops}
        for loop in sorted(loops, reverse=repeat % 2 == 0):
            times = timed(loops[loop], models[loop])
            if repeat:  # the first is to warm up
                found[loop].append(times)
        both = zip(models["library"].state_dict().values(), models["bare"].state_dict().values(), strict=True)
        if not all(torch.equal(ours, theirs) for ours, theirs in both):
            raise AssertionError(f"expected bit-equal weights of both loops, got others with {name}")
    pairs = list(zip(found["library"], found["bare"], strict=True))
    return {
        "batch_size": batch_size,
        "steps": count_batches(ROWS, batch_size, training.epochs),
        "training": to_mapping(training),
        "ratio_per_step": {
            clock: spread([ours[clock]["step"] / theirs[clock]["step"] for ours, theirs in pairs]) for clock in CLOCKS
        },
        "ratio_of_least": min(ours["processor"]["step"] for ours, _ in pairs)
        / min(theirs["processor"]["step"] for _, theirs in pairs),
        "milliseconds_per_bare_step": spread([1e3 * theirs["processor"]["step"] for _, theirs in pairs]),
        "milliseconds_once": spread(
            [1e3 * (ours["processor"]["outside"] - theirs["processor"]["outside"]) for ours, theirs in pairs]
        ),
    }


def main() -> None:
    """Measure every network and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    busy = os.getloadavg()[0]
    networks = {}
    print(f"{'network':10} {'per step':>9} {'quartiles':>15} {'wall':>7} {'bare step':>10} {'once':>8}")
    for name, steps in NETWORKS.items():
        found = networks[name] = measure(name, steps, arguments.batch_size, arguments.repeats)
        ratio, wall = found["ratio_per_step"]["processor"], found["ratio_per_step"]["wall"]
        print(
            f"{name:10} {ratio['median']:9.3f} {ratio['lower_quartile']:7.3f} {ratio['upper_quartile']:7.3f} "
            f"{wall['median']:7.3f} {found['milliseconds_per_bare_step']['median']:7.2f} ms "
            f"{found['milliseconds_once']['median']:5.1f} ms",
            flush=True,
        )
    record = {
        "command": "python " + " ".join(sys.argv),
        "environment": environment("cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": {"before": busy, "after": os.getloadavg()[0]},
        "repeats": arguments.repeats,
        "networks": networks,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
