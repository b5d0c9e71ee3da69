"""UNSIR does what its paper says, the notebook what the notebook does, and each part matters."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from conftest import TRAINING, Toy
from expunge.case import Method
from expunge.methods import unsir, unsir_notebook
from expunge.methods.finetune import Finetune
from expunge.methods.head_mask import HeadMask
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir, batch_size, impostors, maximise_error
from expunge.methods.unsir_notebook import UnsirNotebook
from expunge.network import find_head
from expunge.rows import Rows, TensorRows
from expunge.runtime import Runtime
from expunge.training import Training

Calls = list[tuple[str, Rows, Training]]
NOTEBOOK = UnsirNotebook(noise_images=16, noise_steps=5, retain_rows_per_class=50)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the methods train on, stage by stage; the training itself is done as ever."""
    recorded: Calls = []
    for module in (unsir, unsir_notebook):
        real = module.fit

        def fit(
            model: nn.Module, rows: Rows, runtime: Runtime, training: Training, *, stage: str, real: object = real
        ) -> None:
            recorded.append((stage, rows, training))
            real(model, rows, runtime, training, stage=stage)  # type: ignore[operator]

        monkeypatch.setattr(module, "fit", fit)
    return recorded


def run(toy: Toy, method: Unsir | UnsirNotebook, *classes: int) -> nn.Module:
    return method(toy.model, toy.access(toy.split(*classes), method.reads), toy.runtime.fresh())


def learn(toy: Toy, labels: Tensor, **settings: float) -> tuple[Tensor, Tensor]:
    start = torch.randn(len(labels), *toy.data.input_size, generator=torch.Generator().manual_seed(0))
    chosen = {"steps": 40, "lr": 0.1, "penalty": 0.1} | settings
    return start, maximise_error(toy.model, start, labels, toy.runtime, **chosen)  # type: ignore[arg-type]


def error(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return functional.cross_entropy(copy.deepcopy(model).eval()(images), labels).item()


def test_noise_maximises_the_error_of_its_own_class(toy: Toy) -> None:
    labels = torch.tensor([1, 3] * 8)
    start, noise = learn(toy, labels)
    assert error(toy.model, noise, labels) > error(toy.model, start, labels) + 1
    for index in (1, 3):
        own = labels == index
        assert error(toy.model, noise[own], labels[own]) > 3 * np.log(4)


def test_noise_is_that_of_a_plain_loop(toy: Toy) -> None:
    labels = torch.tensor([1, 3])
    start, noise = learn(toy, labels, steps=5)
    model = copy.deepcopy(toy.model).eval()
    image = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.1)
    for _ in range(5):
        loss = -functional.cross_entropy(model(image), labels) + 0.1 * torch.mean(torch.sum(image**2, [1, 2, 3]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.allclose(noise, image.detach(), atol=1e-5)


def test_the_penalty_keeps_noise_small(toy: Toy) -> None:
    labels = torch.tensor([1] * 8)
    sizes = [learn(toy, labels, penalty=penalty)[1].square().sum().item() for penalty in (0.0, 0.1, 10.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_learning_noise_leaves_statistics_weights_and_gradients(toy: Toy) -> None:
    before = copy.deepcopy(toy.model.train())
    learn(toy, torch.tensor([1] * 8))
    assert toy.model.training
    assert all(weight.grad is None and weight.requires_grad for weight in toy.model.parameters())
    for key, value in before.state_dict().items():
        assert torch.equal(toy.model.state_dict()[key], value), key


def test_impair_mixes_all_noise_with_its_own_labels_and_repair_has_none(toy: Toy, calls: Calls) -> None:
    method = Unsir(noise_images=10, noise_share=0.25)
    run(toy, method, 0, 3)
    (impair, mixed, how), (repair, retain, _) = calls
    assert (impair, repair) == ("impair", "repair")
    assert set(retain.labels) == {1, 2}
    assert list(mixed.labels[: len(retain)]) == list(retain.labels)
    noise = mixed.labels[len(retain) :]
    assert len(noise) == len(retain) // 3  # a quarter of the whole
    assert set(noise) == {0, 3}
    images, labels = mixed.batch(np.arange(len(retain), len(mixed)))
    assert len({(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}) == 10
    assert (how.lr, how.optimizer, how.epochs) == (method.impair_lr, "adam", 1)


def test_the_cost_of_impair_and_repair_does_not_grow_with_the_classes(toy: Toy) -> None:
    flops = []
    for classes in ((0,), (0, 1), (0, 1, 2)):
        method = Unsir(noise="zeros")
        runtime = toy.runtime.fresh()
        method(toy.model, toy.access(toy.split(*classes), method.reads), runtime)
        flops.append(runtime.cost.flops)
    assert flops[0] >= flops[1] >= flops[2]


@pytest.mark.parametrize(
    "method",
    [Unsir(), Finetune(), Retrain(training=TRAINING), HeadMask(), UnsirNotebook(noise_images=16)],
    ids=lambda method: type(method).__name__,
)
def test_the_bill_of_a_whole_request_is_what_pytorchs_counter_says(toy: Toy, method: Method) -> None:
    runtime = toy.runtime.fresh()
    with FlopCounterMode(display=False) as counter:
        method(toy.model, toy.access(toy.split(1, 2), method.reads), runtime)
    assert runtime.cost.flops == counter.get_total_flops()
    assert (runtime.cost.flops > 0) is not isinstance(method, HeadMask)


def test_a_pass_has_as_many_steps_whatever_the_number_of_rows() -> None:
    def rows(count: int) -> Rows:
        return TensorRows(torch.zeros(count, 1), torch.zeros(count, dtype=torch.int64))

    assert [batch_size(rows(count), 32) for count in (10, 640, 9000)] == [8, 20, 256]


def test_without_its_impair_step_it_does_not_forget(toy: Toy) -> None:
    parts = toy.split(1)
    gentle = Unsir(impair_lr=1e-9, repair_lr=1e-9)
    assert toy.accuracy(run(toy, gentle, 1), parts, "forget_test") > 0.5
    assert toy.accuracy(run(toy, Unsir(), 1), parts, "forget_test") <= 0.05


@pytest.mark.parametrize("noise", ["gaussian", "zeros"])
def test_the_controls_learn_nothing_from_the_model(toy: Toy, calls: Calls, noise: str) -> None:
    runtime = toy.runtime.fresh()
    method = replace(Unsir(), noise=noise)  # type: ignore[arg-type]
    method(toy.model, toy.access(toy.split(1), method.reads), runtime)
    assert "noise" not in runtime.cost.seconds
    images, _ = calls[0][1].batch(np.arange(len(calls[1][1]), len(calls[0][1])))
    assert images.std().item() == (0.0 if noise == "zeros" else pytest.approx(1.0, abs=0.1))


def test_the_notebook_keeps_its_quirks(toy: Toy, calls: Calls) -> None:
    method = UnsirNotebook(noise_images=16, retain_rows_per_class=50)
    run(toy, method, 3)
    (_, mixed, how), (_, retain, _) = calls
    noise, labels = mixed.batch(np.arange(20))
    assert set(labels.tolist()) == {0}  # class 3's noise carries label 0
    assert len({image.numpy().tobytes() for image in noise}) == 1  # as many images as channels: one
    assert len(mixed) == 20 + len(retain)
    assert how.batch_size == 256
    first = [np.flatnonzero(toy.split(3)["retain"].labels == index)[:50] for index in (0, 1, 2)]
    expected, _ = toy.split(3)["retain"].batch(np.concatenate(first))
    assert torch.equal(retain.batch(np.arange(len(retain)))[0], expected)


def test_the_notebook_learns_noise_in_training_mode(toy: Toy) -> None:
    model = copy.deepcopy(toy.model).train()
    method = UnsirNotebook(noise_images=16)
    method._learn_noise(model, toy.access(toy.split(3), method.reads), toy.runtime.fresh(), 3)
    means = [network.state_dict()["trunk.0.1.running_mean"] for network in (model, toy.model)]
    assert not torch.equal(*means)
    assert any(weight.grad is not None for weight in model.parameters())


def test_images_of_a_retained_class_pass_for_the_forgotten_ones(toy: Toy, calls: Calls) -> None:
    runtime, method = toy.runtime.fresh(), Unsir(noise="retained", noise_images=10, noise_share=0.25)
    access = toy.access(toy.split(0, 3), method.reads)
    method(toy.model, access, runtime)
    (_, mixed, _), (_, retain, _) = calls
    images, labels = mixed.batch(np.arange(len(retain), len(mixed)))
    own, truth = retain.batch(np.arange(len(retain)))
    known = {image.numpy().tobytes(): int(label) for image, label in zip(own, truth, strict=True)}
    for forgotten in (0, 3):
        posing = [known[image.numpy().tobytes()] for image in images[labels == forgotten]]
        assert len(set(posing)) == 1  # all of one class, and each a row that is retained under its own label
        assert len({image.numpy().tobytes() for image in images[labels == forgotten]}) == 5
    assert access.counts()["retain"].rows == len(retain)
    assert "noise" not in runtime.cost.seconds


def test_a_retained_class_of_few_rows_gives_each_more_than_once_and_is_drawn_at_random() -> None:
    rows = TensorRows(torch.arange(12.0)[:, None], torch.arange(12) % 4)
    drawn = [impostors(rows, torch.full((7,), 9), torch.Generator().manual_seed(seed)) for seed in range(20)]
    for values in drawn:
        images, counts = np.unique(values.numpy(), return_counts=True)
        assert sorted(counts.tolist()) == [2, 2, 3]
        assert len(set(images % 4)) == 1
    assert {int(values[0]) % 4 for values in drawn} == {0, 1, 2, 3}


def test_every_class_has_noise_however_few_rows_are_retained(toy: Toy, calls: Calls) -> None:
    run(toy, Unsir(retain_rows_per_class=2, noise_steps=1), 1, 3)
    labels = calls[0][1].labels.tolist()
    assert (sorted(labels[:4]), labels[4:]) == ([0, 0, 2, 2], [1, 3])


def test_without_a_repair_step_it_stops_after_impair(toy: Toy, calls: Calls) -> None:
    for method in (Unsir(noise="zeros", repair_epochs=0), replace(NOTEBOOK, repair=False)):
        run(toy, method, 1)
        assert [stage for stage, _, _ in calls] == ["impair"]
        calls.clear()


def test_all_noise_of_the_notebook_is_used_if_the_first_images_are_not_all(toy: Toy, calls: Calls) -> None:
    run(toy, replace(NOTEBOOK, first_images_only=False), 3)
    noise, _ = calls[0][1].batch(np.arange(16 * 20))
    assert len({image.numpy().tobytes() for image in noise}) == 16
    assert len(calls[0][1]) == 16 * 20 + len(calls[1][1])


def test_noise_of_the_notebook_can_carry_the_label_that_it_was_made_for(toy: Toy, calls: Calls) -> None:
    run(toy, replace(NOTEBOOK, label_zero=False), 1, 3)
    assert calls[0][1].labels[:40].tolist() == [1] * 20 + [3] * 20


@pytest.mark.parametrize(("training_mode", "kept"), [(True, False), (False, True)])
def test_noise_of_the_notebook_moves_statistics_in_training_mode_alone(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, training_mode: bool, kept: bool
) -> None:
    before = toy.model.state_dict()["trunk.0.1.running_mean"].clone()
    entered = at_impair(toy, replace(NOTEBOOK, training_mode=training_mode), monkeypatch)
    assert torch.equal(entered.state_dict()["trunk.0.1.running_mean"], before) == kept


def test_gradients_that_pile_up_change_nothing(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for pile_up in (True, False):
        method = replace(NOTEBOOK, gradients_pile_up=pile_up)
        weights.append(run(toy, method, 3).state_dict())
        left = [weight.grad for weight in at_impair(toy, method, monkeypatch).parameters()]
        assert all((gradient is not None) == pile_up for gradient in left)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def at_impair(toy: Toy, method: UnsirNotebook, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return the model as the impair step finds it."""
    found: list[nn.Module] = []

    def fit(model: nn.Module, *_: object, **__: object) -> None:
        found.append(model)

    with monkeypatch.context() as patch:
        patch.setattr(unsir_notebook, "fit", fit)
        run(toy, method, 3)
    return found[0]


def test_the_norm_of_the_notebook_is_a_sum_and_can_be_a_mean(toy: Toy) -> None:
    def noise(**settings: float) -> Tensor:
        method = replace(NOTEBOOK, **settings)  # type: ignore[arg-type]
        access = toy.access(toy.split(3), method.reads)
        return method._learn_noise(copy.deepcopy(toy.model).eval(), access, toy.runtime.fresh(), 3)

    elements = 64
    summed, mean = noise(), noise(norm_summed=False)
    assert mean.square().sum() > 1.2 * summed.square().sum()
    assert torch.allclose(noise(norm_summed=False, noise_penalty=0.1 * elements), summed, atol=1e-4)


def test_rows_of_the_notebook_can_be_drawn_at_random(toy: Toy, calls: Calls) -> None:
    run(toy, NOTEBOOK, 3)
    run(toy, replace(NOTEBOOK, first_rows=False), 3)
    first, drawn = calls[1][1], calls[3][1]
    assert np.unique(drawn.labels, return_counts=True)[1].tolist() == [50, 50, 50]
    assert not torch.equal(first.batch(np.arange(150))[0].sort(0)[0], drawn.batch(np.arange(150))[0].sort(0)[0])


def test_a_fresh_head_starts_repair_with_rows_of_a_new_network_and_changes_nothing_else(toy: Toy) -> None:
    method = Unsir(repair_epochs=0)
    kept, fresh = (run(toy, replace(method, fresh_head=flag), 1, 3) for flag in (False, True))
    runtime = toy.runtime.fresh()
    with runtime.seeded("unsir/head"):
        new = find_head(toy.access(toy.split(1, 3), method.reads).build(), 4)
    heads = find_head(kept, 4), find_head(fresh, 4)
    for name, value in heads[1].named_parameters():
        assert torch.equal(value[[1, 3]], dict(new.named_parameters())[name][[1, 3]])
        assert torch.equal(value[[0, 2]], dict(heads[0].named_parameters())[name][[0, 2]])
    others = fresh.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in kept.state_dict().items() if "head" not in name)


def test_a_fresh_head_ends_shorter(toy: Toy) -> None:
    heads = [find_head(run(toy, Unsir(fresh_head=flag), 1), 4) for flag in (False, True)]
    kept, fresh = (float(head.weight[1].detach().norm()) for head in heads)
    assert fresh < kept
