"""Runtime, cost and training: streams, batches, counting, and the two loops."""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from conftest import TRAINING, Toy
from expunge.errors import DivergedError, SettingsError
from expunge.rows import TensorRows
from expunge.runtime import batch_starts, count_batches, open_runtime
from expunge.training import Training, adam, fit, optimizer_of, predict


def test_a_stream_is_a_function_of_seed_and_name() -> None:
    runtime = open_runtime(device="cpu", seed=3)

    def draw(seed: int, stream: str) -> float:
        return torch.rand((), generator=runtime.fresh(seed=seed).generator(stream)).item()

    assert draw(3, "a") == draw(3, "a")
    assert len({draw(3, "a"), draw(3, "b"), draw(4, "a")}) == 3


def test_seeded_code_leaves_the_global_stream_alone() -> None:
    runtime = open_runtime(device="cpu")
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with runtime.seeded("x"):
        first = torch.rand(3)
    with runtime.seeded("x"):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.rand(2), expected)


def numbers(count: int) -> TensorRows:
    return TensorRows(torch.arange(count, dtype=torch.float32)[:, None], torch.zeros(count, dtype=torch.int64))


def test_where_there_is_no_gpu_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, given, expected in ((0, None, ""), (0, "3", "3"), (1, None, None)):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if given is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        monkeypatch.setattr(torch.cuda, "device_count", lambda found=found: found)
        open_runtime(device="cpu")
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_logits_come_in_the_precision_of_the_weights(precision: str, dtype: torch.dtype) -> None:
    runtime = open_runtime(device="cpu", precision=precision)
    inputs, seen = torch.rand(8, 4), []
    model = nn.Linear(4, 2)
    model.register_forward_hook(lambda module, arguments, output: seen.append(output.dtype))
    network = runtime.trainee(model).call
    assert network(inputs).dtype == model.weight.dtype == dtype
    assert seen == [torch.bfloat16 if precision == "bf16-mixed" else dtype]


def test_every_epoch_goes_through_every_row_once_in_a_new_order() -> None:
    runtime = open_runtime(device="cpu")
    batches = [inputs.ravel().tolist() for inputs, _, _ in runtime.batches(numbers(10), 4, epochs=2, stream="order")]
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    first, second = ([row for batch in half for row in batch] for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != list(range(10))


def test_a_last_single_row_joins_the_batch_before() -> None:
    assert batch_starts(9, 4) == [0, 4]
    assert batch_starts(1, 4) == [0]
    assert count_batches(9, 4, epochs=3) == 6


@dataclass
class FakeFabric:
    """The part of Fabric that sharing out batches asks for: one process of several."""

    global_rank: int
    world_size: int
    device = torch.device("cpu")


def test_processes_share_each_batch_and_weigh_their_share() -> None:
    alone = open_runtime(device="cpu")
    whole = [inputs.ravel() for inputs, _, _ in alone.batches(numbers(10), 4, stream="order")]
    shares = []
    for rank in range(3):
        runtime = copy.copy(alone)
        object.__setattr__(runtime, "fabric", FakeFabric(rank, 3))
        shares.append(list(runtime.batches(numbers(10), 4, stream="order")))
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        together = torch.cat([inputs.ravel() for inputs, _, _ in parts])
        assert sorted(together.tolist()) == sorted(batch.tolist())
        weighted = sum(inputs.mean() * weight for inputs, _, weight in parts if len(inputs)) / 3
        assert torch.allclose(torch.as_tensor(weighted), batch.mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "expected a device auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:x"}, "expected a device auto, cpu, cuda or cuda:N, got 'cuda:x'"),
        ({"device": "cuda:99"}, "expected a CUDA device for 'cuda:99', got [0-9]+ on this machine: use --device cpu"),
        ({"precision": "8"}, "expected a precision 32-true, .*, got '8'"),
    ],
)
def test_a_machine_that_is_not_there_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        open_runtime(**arguments)  # type: ignore[arg-type]


def test_operations_are_counted_as_pytorch_counts_them(toy: Toy) -> None:
    runtime = toy.runtime.fresh()
    fit(copy.deepcopy(toy.model), toy.data.train, runtime, adam(epochs=2, batch_size=50, lr=0.001), stage="train")
    slow = 0
    for inputs, labels, _ in toy.runtime.batches(toy.data.train, 50, epochs=2):
        with FlopCounterMode(display=False) as counter:
            functional.cross_entropy(toy.model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        slow += counter.get_total_flops()
    toy.model.zero_grad()
    assert runtime.cost.flops == slow > 0
    assert runtime.cost.seconds.keys() == {"train"}
    assert runtime.cost.total == runtime.cost.seconds["train"] > 0


def test_fit_takes_the_steps_that_a_plain_loop_takes(toy: Toy) -> None:
    ours, theirs = copy.deepcopy(toy.model), copy.deepcopy(toy.model).train()
    fit(ours, toy.data.train, toy.runtime, adam(epochs=1, batch_size=64, lr=0.01), stage="x")
    optimizer = torch.optim.Adam(theirs.parameters(), 0.01, fused=True)
    order = torch.randperm(len(toy.data.train), generator=toy.runtime.generator("x/order")).numpy()
    for start in range(0, len(order), 64):
        inputs, labels = toy.data.train.batch(order[start : start + 64])
        optimizer.zero_grad()
        functional.cross_entropy(theirs(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("optimizer", "plain"),
    [
        ("sgd", lambda weights: torch.optim.SGD(weights, 0.01, momentum=0.9, nesterov=True, weight_decay=0.1)),
        ("adam", lambda weights: torch.optim.Adam(weights, 0.01, weight_decay=0.1, foreach=False)),
        ("adamw", lambda weights: torch.optim.AdamW(weights, 0.01, weight_decay=0.1, foreach=False)),
    ],
)
def test_fused_steps_are_those_of_a_loop_over_weights(
    optimizer: str, plain: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    start = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    training = Training(optimizer=optimizer, lr=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    steppers = {ours: optimizer_of([ours], training), theirs: plain([theirs])}
    for _ in range(20):
        for weight, stepper in steppers.items():
            stepper.zero_grad()
            torch.autograd.backward((weight**4).sum())
            stepper.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert (ours - start).abs().max() > 0.1


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_leaves_frozen_weights_and_no_gradients(toy: Toy, optimizer: str) -> None:
    model = copy.deepcopy(toy.model).eval()
    weights = dict(model.named_parameters())
    weights["head.weight"].requires_grad_(False)
    training = Training(epochs=1, optimizer=optimizer, lr=0.1, weight_decay=0.1)  # type: ignore[arg-type]
    fit(model, toy.data.train, toy.runtime, training, stage="x")
    before = dict(toy.model.named_parameters())
    assert torch.equal(weights["head.weight"], before["head.weight"])
    assert not torch.equal(weights["trunk.0.0.weight"], before["trunk.0.0.weight"])
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.training


def test_the_rate_follows_the_schedule() -> None:
    runtime = open_runtime(device="cpu")
    rows = TensorRows(torch.ones(4, 1), torch.tensor([0, 0, 0, 0]))
    for schedule, moved in (("constant", 4.0), ("linear", 1 + 0.75 + 0.5 + 0.25)):
        model = nn.Linear(1, 1, bias=False)  # one class: the loss is 0, and weight decay alone moves the weight
        nn.init.constant_(model.weight, 1.0)
        training = Training(epochs=4, batch_size=4, optimizer="sgd", lr=1e-3, weight_decay=1.0, schedule=schedule)  # type: ignore[arg-type]
        fit(model, rows, runtime, training, stage="x")
        without_momentum = 1 - 1e-3 * moved
        assert model.weight.item() < without_momentum < 1


def test_a_loss_that_is_not_finite_is_said(toy: Toy) -> None:
    model = copy.deepcopy(toy.model)
    training = Training(epochs=2, optimizer="sgd", lr=1e30, schedule="constant")
    with pytest.raises(DivergedError, match="expected a mean loss between -10000 and 10000 in x, got nan: lower the"):
        fit(model, toy.data.train, toy.runtime, training, stage="x")


def test_predict_returns_every_row_once_in_order_and_leaves_the_model(toy: Toy) -> None:
    toy.model.train()
    logits, labels = predict(toy.model, toy.data.test, toy.runtime, batch_size=7)
    assert toy.model.training
    assert np.array_equal(labels.numpy(), toy.data.test.labels)
    inputs, _ = toy.data.test.batch(np.arange(len(toy.data.test)))
    toy.model.eval()
    with torch.no_grad():
        assert torch.allclose(logits, toy.model(inputs), atol=1e-5)
    toy.model.train()


def test_two_trainings_with_one_seed_are_bit_equal(toy: Toy) -> None:
    def train() -> nn.Module:
        model = copy.deepcopy(toy.model)
        fit(model, toy.data.train, toy.runtime, TRAINING, stage="x")
        return model

    first, second = train().state_dict(), train().state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
