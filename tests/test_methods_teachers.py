"""Methods with teachers or masks: whose answers are learned or left, and which weights move, shrink or start anew."""

import copy
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from conftest import Toy
from expunge.data import split
from expunge.errors import ModelError
from expunge.methods import bad_teacher, convolution_transpose, masked_small_gradients, scrub
from expunge.methods._distillation import divergence, teacher_of
from expunge.methods._gradients import mean_gradient
from expunge.methods._paced import paced
from expunge.methods.bad_teacher import BadTeacher
from expunge.methods.convolution_transpose import ConvolutionTranspose, transpose_kernels
from expunge.methods.l1_sparse import L1Sparse
from expunge.methods.masked_small_gradients import MaskedSmallGradients
from expunge.methods.salun import Salun, largest
from expunge.methods.scrub import Scrub
from expunge.request import Request
from expunge.rows import Rows
from expunge.runtime import Runtime
from expunge.training import Training, fit, predict


def shown(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[tuple[str, Rows, Training]]:
    """Return stage, rows and settings of every training of a method, in the order in which they will come."""
    found: list[tuple[str, Rows, Training]] = []

    def told(model: nn.Module, rows: Rows, runtime: Any, training: Training, **named: Any) -> None:
        found.append((named["stage"], rows, training))
        fit(model, rows, runtime, training, **named)

    monkeypatch.setattr(module, "fit", told)
    return found


def kl(teacher: list[float], student: list[float], temperature: float = 1.0) -> float:
    """Return the divergence of one row, class by class."""
    shares = []
    for logits in (teacher, student):
        powers = [math.exp(value / temperature) for value in logits]
        shares.append([power / sum(powers) for power in powers])
    return math.fsum(wanted * math.log(wanted / given) for wanted, given in zip(*shares, strict=True))


def mean_kl(teacher: nn.Module, student: nn.Module, rows: Rows, toy: Toy) -> float:
    """Return the mean divergence over rows at a temperature of 1."""
    wanted, given = (predict(model, rows, toy.runtime)[0] for model in (teacher, student))
    return float(np.mean([kl(one.tolist(), other.tolist()) for one, other in zip(wanted, given, strict=True)]))


def test_divergence_by_hand() -> None:
    # t = (3/4, 1/4), s = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2)
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(student, teacher, temperature=1.0).item() == pytest.approx(wanted, rel=1e-5)
    # twice the logits at twice the temperature are the same outputs
    assert divergence(student, 2 * teacher, temperature=2.0).item() == pytest.approx(wanted, rel=1e-5)
    assert divergence(teacher, teacher, temperature=2.0).item() == 0


def test_a_teacher_stays_as_it_was_while_the_student_is_trained(toy: Toy) -> None:
    head = nn.Linear(64, 4)
    student = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), head).train()
    teacher = teacher_of(student, toy.runtime)
    inputs, _ = toy.data.train.batch(np.arange(5))
    before = teacher(inputs)
    assert not before.requires_grad
    student(inputs)  # moves the student's running statistics
    with torch.no_grad():
        head.weight.zero_()
    assert torch.equal(teacher(inputs), before)
    assert student.training


def test_bad_teacher_imitates_the_incompetent_one_on_forgotten_rows_alone() -> None:
    competent, incompetent = [[2.0, 0.0], [0.0, 1.0], [1.0, -1.0]], [[0.1, 0.0], [0.2, 0.3], [0.0, -0.4]]
    student = [[1.0, 0.5], [0.3, -0.2], [0.7, 0.1]]
    loss = BadTeacher(temperature=3.0).imitation(
        lambda inputs: torch.tensor(competent), lambda inputs: torch.tensor(incompetent)
    )
    wanted = [kl(competent[0], student[0], 3.0), kl(incompetent[1], student[1], 3.0), kl(competent[2], student[2], 3.0)]
    found = loss(torch.tensor(student), torch.tensor([0, 1, 0]), torch.zeros(3, 1))
    assert found.item() == pytest.approx(sum(wanted) / 3, rel=1e-5)


def test_bad_teacher_shows_a_share_of_the_retained_rows_and_no_label(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    found, parts = shown(monkeypatch, bad_teacher), toy.split(1)
    method = BadTeacher(batch_size=16, lr=0.005, epochs=5)
    new = method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    ((_, rows, _),) = found
    drawn, forgotten = round(0.3 * len(parts["retain"])), len(parts["forget"])
    assert rows.labels.tolist() == [0] * drawn + [1] * forgotten
    last = np.arange(drawn, len(rows))
    torch.testing.assert_close(rows.batch(last)[0], parts["forget"].batch(np.arange(forgotten))[0])
    # the student has gone from the original's answers to those of a network with random weights
    with toy.runtime.seeded("bad_teacher/incompetent"):
        incompetent = toy.access(parts, method.reads).build()
    assert (
        mean_kl(incompetent, new, parts["forget"], toy) < 0.05 < mean_kl(incompetent, toy.model, parts["forget"], toy)
    )
    assert mean_kl(toy.model, new, parts["retain"], toy) < mean_kl(toy.model, incompetent, parts["retain"], toy) / 5


def test_scrub_losses_by_hand() -> None:
    teacher, student = [[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.5], [0.3, -0.2]]
    method = Scrub(alpha=0.3, gamma=0.7, temperature=2.0)
    far = 4 * (kl(teacher[0], student[0], 2.0) + kl(teacher[1], student[1], 2.0)) / 2

    def answers(inputs: Tensor) -> Tensor:
        return torch.tensor(teacher)

    arguments = torch.tensor(student), torch.tensor([0, 1]), torch.zeros(2, 1)
    assert method.away(answers)(*arguments).item() == pytest.approx(-far, rel=1e-5)
    error = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))) / 2
    assert method.back(answers)(*arguments).item() == pytest.approx(0.7 * error + 0.3 * far, rel=1e-5)


def test_a_max_step_leaves_the_teacher_on_forgotten_rows_and_reads_no_other(toy: Toy) -> None:
    parts = split(toy.data, Request(rows=tuple(range(40))))
    method = Scrub(lr=0.05)
    access = toy.access(parts, method.reads)
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    before = mean_kl(teacher, student, parts["forget"], toy)
    away = method.away(teacher_of(teacher, toy.runtime))
    fit(student, access["forget"], toy.runtime.fresh(), method._training(1, 32), stage="max 1", loss=away)
    assert mean_kl(teacher, student, parts["forget"], toy) > before + 0.1
    counts = access.counts()
    assert (counts["forget"].reads, counts["retain"].reads) == (40, 0)


@pytest.mark.parametrize(("epochs", "max_steps"), [(4, 2), (2, 5)])
def test_scrub_makes_as_many_max_and_min_steps_as_its_settings_say(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, epochs: int, max_steps: int
) -> None:
    found, parts = shown(monkeypatch, scrub), toy.split(1)
    method = Scrub(epochs=epochs, max_steps=max_steps, whole_lr_epochs=1)
    access = toy.access(parts, method.reads)
    method(toy.model, access, toy.runtime.fresh())
    ups = min(epochs, max_steps)
    order = [f"{kind} {number}" for number in range(1, epochs + 1) for kind in ("max", "min")[number > max_steps :]]
    assert [stage for stage, _, _ in found] == order
    for stage, rows, training in found:
        assert rows is access["forget" if stage.startswith("max") else "retain"]
        assert training.lr == pytest.approx(5e-4 if stage.endswith(" 1") else 5e-5)
    counts = access.counts()
    assert counts["forget"].reads == ups * len(parts["forget"])
    assert counts["retain"].reads == epochs * len(parts["retain"])


def by_loop(model: nn.Module, rows: Rows) -> dict[str, Tensor]:
    """Return the mean gradient of the cross-entropy by one backward pass per row."""
    network = copy.deepcopy(model).eval()
    for index in range(len(rows)):
        inputs, labels = rows.batch(np.array([index]))
        torch.autograd.backward(functional.cross_entropy(network(inputs), labels) / len(rows))
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def test_mean_gradient_is_that_of_a_loop_over_rows(toy: Toy) -> None:
    rows = toy.split(1)["forget"]
    found = mean_gradient(toy.model, rows, toy.runtime.fresh(), stage="gradient", batch_size=33)
    wanted = by_loop(toy.model, rows)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_mask_holds_the_share_asked_for_of_all_weights_together() -> None:
    gradient = {"first": torch.tensor([[1.0, -5.0], [0.5, 2.0]]), "second": torch.tensor([-3.0, 0.0])}
    mask = largest(gradient, 0.5)
    assert mask["first"].tolist() == [[0, 1], [0, 1]]
    assert mask["second"].tolist() == [1, 0]
    assert all(value.all() for value in largest(gradient, 1.0).values())


def test_salun_moves_the_most_salient_weights_and_no_other_bit(toy: Toy) -> None:
    parts = toy.split(1)
    method = Salun(share=0.3, epochs=2, batch_size=32, lr=0.02, weight_decay=0.1)
    new = method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    gradient = by_loop(toy.model, parts["forget"])
    sizes = torch.cat([gradient[name].abs().flatten() for name, _ in toy.model.named_parameters()])
    pairs = zip(toy.model.parameters(), new.parameters(), strict=True)
    moved = torch.cat([(before != after).flatten() for before, after in pairs])
    count = round(0.3 * len(sizes))
    assert int(moved.sum()) == count
    ranked = sizes.sort(descending=True).values
    assert sizes[moved].min() >= ranked[count - 1] * (1 - 1e-3)
    assert sizes[~moved].max() <= ranked[count] * (1 + 1e-3)
    assert [name for name, _ in new.named_parameters()] == [name for name, _ in toy.model.named_parameters()]
    assert [type(module) for module in new.modules()] == [type(module) for module in toy.model.modules()]


def test_a_pace_scales_the_gradient_and_holds_at_zero(toy: Toy) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    rows, pace = toy.split(1)["forget"], torch.rand(4, 64).round(decimals=1)
    gradient = by_loop(model, rows)
    before = copy.deepcopy(model)
    training = Training(epochs=1, batch_size=512, optimizer="sgd", lr=0.1, weight_decay=0.0, schedule="constant")
    with paced(model, {"1.weight": pace}, toy.runtime) as student:
        fit(student, rows, toy.runtime.fresh(), training, stage="train")
    # the first step with Nesterov momentum of 0.9 goes 1.9 times as far as the rate says
    wanted = before.get_parameter("1.weight") - 0.19 * pace * gradient["1.weight"]
    torch.testing.assert_close(model.get_parameter("1.weight"), wanted)
    assert torch.equal(model.get_parameter("1.weight")[pace == 0], before.get_parameter("1.weight")[pace == 0])
    torch.testing.assert_close(
        model.get_parameter("1.bias"), before.get_parameter("1.bias") - 0.19 * gradient["1.bias"]
    )


def test_held_batch_normalisation_cannot_be_synchronised() -> None:
    several = Mock(spec=Runtime, batch_norm="sync", fabric=SimpleNamespace(world_size=2))
    with (
        pytest.raises(ModelError, match="expected --batch-norm local where weights of batch normalisation are held"),
        paced(nn.Sequential(nn.BatchNorm1d(2)), {"0.weight": torch.ones(2)}, several),
    ):
        pass


def test_the_l1_penalty_falls_by_equal_steps() -> None:
    method = L1Sparse(penalty=0.6, epochs=4, plain_epochs=1)
    assert [method.factor(epoch) for epoch in range(4)] == pytest.approx([0.6, 0.4, 0.2, 0.0])
    assert [L1Sparse(penalty=0.5, epochs=2, plain_epochs=2).factor(epoch) for epoch in range(2)] == [0, 0]


def test_l1_sparse_takes_the_steps_of_a_loop(toy: Toy) -> None:
    model, parts = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), toy.split(1)
    model.get_parameter("1.bias").requires_grad_(False)
    method = L1Sparse(penalty=0.3, epochs=3, batch_size=512, lr=0.05, weight_decay=0.01)
    access = Toy(toy.data, model, toy.runtime).access(parts, method.reads)
    new = method(model, access, toy.runtime.fresh())
    slow = copy.deepcopy(model)
    weight = slow.get_parameter("1.weight")
    optimizer = torch.optim.SGD([weight], 0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    for factor in (0.3, 0.2, 0.1):
        weight.grad = by_loop(slow, parts["retain"])["1.weight"] + factor * weight.detach().sign()
        optimizer.step()
    torch.testing.assert_close(new.get_parameter("1.weight"), weight, rtol=1e-4, atol=1e-5)
    assert torch.equal(new.get_parameter("1.bias"), model.get_parameter("1.bias"))


def test_the_l1_penalty_brings_more_weights_near_zero_than_as_many_steps_without(toy: Toy) -> None:
    near = []
    for penalty in (0.0, 1e-3):
        method = L1Sparse(penalty=penalty, batch_size=16, lr=0.05)
        new = method(toy.model, toy.access(toy.split(1), method.reads), toy.runtime.fresh())
        near.append(sum(int((weight.abs() < 0.01).sum()) for weight in new.parameters()))
    assert near[1] > 2 * near[0] > 0


def started(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[nn.Module]:
    """Return copies of the models that a method's trainings start from; they are not trained."""
    found: list[nn.Module] = []
    monkeypatch.setattr(module, "fit", lambda model, *_, **__: found.append(copy.deepcopy(model)))
    return found


def test_kernel_weights_of_the_smallest_contrast_are_drawn_anew(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    found = started(monkeypatch, masked_small_gradients)
    paces: list[Mapping[str, Tensor]] = []

    def told(model: nn.Module, given: Mapping[str, Tensor], runtime: Runtime) -> AbstractContextManager[nn.Module]:
        paces.append(given)
        return paced(model, given, runtime)

    monkeypatch.setattr(masked_small_gradients, "paced", told)
    parts = split(toy.data, Request(rows=tuple(range(200))))  # fewer are left: the draw takes all of them
    method = MaskedSmallGradients(share=0.25, pace=0.2)
    new = method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    assert len(found) == 1
    kept, own = by_loop(toy.model, parts["retain"]), by_loop(toy.model, parts["forget"])
    for name, before in toy.model.named_parameters():
        drawn = new.get_parameter(name) != before
        if before.ndim < 4:  # not a kernel
            assert not drawn.any(), name
            assert name not in paces[0], name
            continue
        contrast, count = (kept[name] - own[name]).abs(), round(0.25 * before.numel())
        assert int(drawn.sum()) == count, name
        ranked = contrast.flatten().sort().values
        assert contrast[drawn].max() <= ranked[count - 1] * (1 + 1e-3) + 1e-7, name
        assert contrast[~drawn].min() >= ranked[count] * (1 - 1e-3) - 1e-7, name
        torch.testing.assert_close(paces[0][name], torch.where(drawn, 1.0, 0.2))
        deviation = math.sqrt(2 / (before.shape[0] * before.shape[2] * before.shape[3]))
        if count > 100:
            assert new.get_parameter(name)[drawn].std().item() == pytest.approx(deviation, rel=0.2), name


def test_square_kernels_are_transposed_and_nothing_else_is(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    found, method = started(monkeypatch, convolution_transpose), ConvolutionTranspose()
    method(toy.model, toy.access(toy.split(1), method.reads), toy.runtime.fresh())
    (model,) = found
    turned = []
    for name, before in toy.model.state_dict().items():
        after = model.state_dict()[name]
        if before.ndim == 4:
            turned.append(name)
            for row in range(3):
                for column in range(3):
                    assert torch.equal(after[:, :, row, column], before[:, :, column, row]), name
        else:
            assert torch.equal(after, before), name
    assert len(turned) == 3


def test_kernels_that_have_no_transpose_of_their_shape_stay() -> None:
    layers = [nn.Conv2d(1, 2, (1, 3)), nn.Conv2d(2, 2, 2), nn.Conv2d(2, 2, 2), nn.Conv2d(2, 2, 1)]
    model = nn.Sequential(*layers)
    layers[2].weight.requires_grad_(False)
    before = copy.deepcopy(model)
    transpose_kernels(model)
    same = [torch.equal(one, other) for one, other in zip(before.parameters(), model.parameters(), strict=True)]
    assert same == [True, True, False, True, True, True, True, True]


@pytest.mark.parametrize("method", [MaskedSmallGradients(), ConvolutionTranspose()])
def test_a_network_without_convolutions_is_refused(toy: Toy, method: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    access = Toy(toy.data, model, toy.runtime).access(toy.split(1), method.reads)
    with pytest.raises(ModelError, match=r"expected a network with .*convolutions to train, .*got none in Sequential"):
        method(model, access, toy.runtime.fresh())
    assert not any(count.reads for count in access.counts().values())
