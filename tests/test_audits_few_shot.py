"""Few shots: how deep an output was hidden must not matter, and curves are those of a loop written out."""

import copy
from statistics import fmean

import pytest
import torch
from torch import nn
from torch.nn import functional

from cases import CLASSES, FEATURES, by_name, make_case, make_labels, make_logits, row_case, state
from expunge.audits.few_shot import FewShot, opened
from expunge.case import Case

QUICK = FewShot(shots=(1, 3), counted=3, steps=6, batch_size=16, lr=0.05, every=2)
FORGOTTEN = CLASSES - 1


class Network(nn.Module):
    """Features and a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU())
            self.head = nn.Linear(8, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(inputs))
        return logits


def hidden(model: Network, logit: float, weight: float = 0.0) -> Network:
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.head.weight[FORGOTTEN] *= weight
        masked.head.bias[FORGOTTEN] = logit
    return masked


def case_of(*models: nn.Module) -> Case:
    labels = make_labels()
    logits = make_logits(labels, 0)
    return make_case(labels, logits, logits, [logits] * (len(models) - 2), models=models)


@pytest.mark.parametrize("logit", [-5.0, -30.0, -1000.0])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_hidden_output_is_as_the_original_whatever_its_depth(logit: float, weight: float) -> None:
    original = Network(0)
    for found in QUICK(case_of(original, hidden(original, logit, weight), Network(1), Network(2))):
        assert found.unlearned == found.original
        assert found.series is not None
        assert found.series.unlearned == found.series.original


def test_an_opened_output_is_the_mean_of_the_others() -> None:
    model = Network(0)
    inputs = torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = model(inputs), opened(model, [1, 3], CLASSES)(inputs)
    assert after[:, [0, 2]].equal(before[:, [0, 2]])
    for index in (1, 3):
        assert torch.allclose(after[:, index], before[:, [0, 2]].mean(dim=1), atol=1e-6)


def slow_curve(model: nn.Module, case: Case, shots: int) -> list[float]:
    """Six steps on 16 rows each, in all 24 of the forgotten class and 72 others, measured after every second."""
    model = opened(model, [FORGOTTEN], CLASSES)
    runtime = case.runtime
    chosen = torch.randperm(30, generator=runtime.generator("few_shot/shots"))[:shots].sort().values
    kept = torch.randperm(60, generator=runtime.generator("few_shot/retain"))
    kept_rows, shot_rows = (
        case.split["retain"].batch(kept.repeat(2)[:72].numpy()),
        case.split["forget"].batch(chosen.repeat(24)[:24].numpy()),
    )
    inputs, labels = (torch.cat(pair) for pair in zip(kept_rows, shot_rows, strict=True))
    test_inputs, test_labels = case.split["forget_test"].batch(torch.arange(12).numpy())
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    curve = [float((model(test_inputs).argmax(1) == test_labels).double().mean())]
    order = torch.randperm(96, generator=runtime.generator("few_shot/order"))
    for step, batch in enumerate(torch.split(order, 16), start=1):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(inputs[batch]), labels[batch]))
        optimizer.step()
        if step % 2 == 0:
            curve.append(float((model(test_inputs).argmax(1) == test_labels).double().mean()))
    return curve


@pytest.mark.parametrize("shots", [1, 3])
def test_the_curve_is_that_of_a_loop_written_out(shots: int) -> None:
    case = case_of(Network(0), Network(1), Network(2))
    found = by_name(QUICK(case))[f"few_shot/area/{shots}_shots"]
    expected = slow_curve(case.unlearned.model, case, shots)
    assert len(set(expected)) > 1
    assert found.series is not None
    assert list(found.series.unlearned) == pytest.approx(expected)
    assert found.unlearned == pytest.approx(fmean(expected))
    assert found.series.x == ("0", "2", "4", "6")


def test_one_number_of_shots_counts_and_the_others_inform() -> None:
    found = QUICK(case_of(Network(0), Network(1), Network(2), Network(3)))
    assert [(one.name, one.level) for one in found] == [("few_shot/area/1_shots", None), ("few_shot/area/3_shots", 3)]


def test_more_shots_than_rows_are_all_rows() -> None:
    case = case_of(Network(0), Network(1))
    many = FewShot(shots=(30, 31), steps=4, batch_size=16)(case)
    assert many[0].unlearned == many[1].unlearned


def test_rows_have_no_class_to_relearn() -> None:
    for found in FewShot()(row_case()):
        assert (found.unlearned, found.retrained, found.level) == (None, None, None)
        assert found.note == "a request of single rows has no class to relearn"


def test_a_network_without_a_linear_head_has_no_output_to_open() -> None:
    model = nn.Sequential(nn.Unflatten(1, (FEATURES, 1)), nn.Conv1d(FEATURES, CLASSES, 1), nn.Flatten())
    for found in FewShot()(case_of(model, model)):
        assert found.unlearned is None
        assert found.note is not None
        assert found.note.startswith("no output to open: expected a linear layer with 4 outputs")


def test_without_retrained_models_it_says_so() -> None:
    for found in QUICK(case_of(Network(0), Network(1))):
        assert (found.retrained, found.inside, found.note) == (None, None, "no reference")


def test_nothing_is_changed_and_twice_gives_the_same() -> None:
    case = case_of(Network(0), Network(1).eval(), Network(2))
    before = state(case)
    findings = QUICK(case)
    assert state(case) == before
    assert QUICK(case) == findings
