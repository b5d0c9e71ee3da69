"""Methods with teachers or masks: whose answers are learned or left, and which weights move, shrink or start anew."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Toy
from expunge.data import Request, split
from expunge.distillation import divergence, teacher_of
from expunge.methods import bad_teacher, scrub
from expunge.methods.bad_teacher import BadTeacher
from expunge.methods.scrub import Scrub
from expunge.rows import Rows
from expunge.training import Training, predict


def shown(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[tuple[str, Rows, Training]]:
    """Return stage, rows and settings of every training of a method, in the order in which they will come."""
    found: list[tuple[str, Rows, Training]] = []
    real = module.fit

    def fit(model: nn.Module, rows: Rows, runtime: Any, training: Training, **named: Any) -> None:
        found.append((named["stage"], rows, training))
        real(model, rows, runtime, training, **named)

    monkeypatch.setattr(module, "fit", fit)
    return found


def kl(teacher: list[float], student: list[float], temperature: float = 1.0) -> float:
    """Return the divergence of one row, class by class."""
    shares = []
    for logits in (teacher, student):
        powers = [math.exp(value / temperature) for value in logits]
        shares.append([power / sum(powers) for power in powers])
    return sum(wanted * math.log(wanted / given) for wanted, given in zip(*shares, strict=True))


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
    student = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4)).train()
    teacher = teacher_of(student, toy.runtime)
    inputs, _ = toy.data.train.batch(np.arange(5))
    before = teacher(inputs)
    assert not before.requires_grad
    student(inputs)  # moves the student's running statistics
    with torch.no_grad():
        student[2].weight.zero_()
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
    scrub.fit(student, access["forget"], toy.runtime.fresh(), method._training(1, 32), stage="max 1", loss=away)
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
