"""Head: numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from cases import CLASSES, by_name, make_case, make_labels, make_logits, random_case, row_case, state
from expunge.audits.head import Head, exposed, score, traits
from expunge.case import Case


def head(rows: list[list[float]], biases: list[float] | None) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=biases is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if biases is not None:
            layer.bias.copy_(torch.tensor(biases))
    return layer


PLAIN = head([[3.0, 4.0], [4.0, 3.0], [0.0, 5.0], [5.0, 0.0]], [0.0, 0.5, 1.0, 0.5])
HIDDEN = head([[3.0, 4.0], [4.0, 3.0], [0.0, 5.0], [0.0, 0.0]], [0.0, 0.5, 1.0, -5.0])


def case_of(*models: nn.Module) -> Case:
    labels = make_labels()
    logits = make_logits(labels, 0)
    return make_case(labels, logits, logits, [logits] * (len(models) - 2), models=models)


def test_a_hidden_row_is_short_low_and_points_nowhere() -> None:
    found = by_name(Head()(case_of(PLAIN, HIDDEN)))
    assert found["head/norm"].original == pytest.approx(1)
    assert found["head/norm"].unlearned == 0
    assert found["head/bias"].original == pytest.approx(0)
    assert found["head/bias"].unlearned == pytest.approx(-5.5)
    pairs = {(0, 1): 0.96, (0, 2): 0.8, (0, 3): 0.6, (1, 2): 0.6, (1, 3): 0.8, (2, 3): 0.0}
    means = [sum(value for pair, value in pairs.items() if index in pair) / 3 for index in range(4)]
    assert found["head/cosine"].original == pytest.approx(means[3] - sum(means[:3]) / 3)
    assert found["head/cosine"].unlearned == pytest.approx(-(0.96 + 0.8 + 0.6) * 2 / 9)
    assert found["head/exposed"].unlearned == 1
    assert found["head/norm"].series is not None
    assert found["head/norm"].series.unlearned == pytest.approx((5, 5, 5, 0))


def test_several_classes_are_taken_together() -> None:
    assert score("bias", torch.tensor([1.0, 2.0, 4.0, 6.0]), [0, 3]) == pytest.approx(3.5 - 3)
    assert score("norm", torch.tensor([1.0, 2.0, 4.0, 6.0]), [0, 3]) == pytest.approx(3.5 / 3)
    values = {"norm": torch.tensor([1.0, 2.0, 4.0, 6.0])}
    # the kept mean is 3: distances 2 and 3 of the forgotten, 1 and 1 of the kept
    assert exposed(values, [0, 3]) == 1  # type: ignore[arg-type]
    assert exposed({"norm": torch.tensor([0.0, 6.0, 3.5, 3.0])}, [2]) == pytest.approx(1 / 3)


def test_retrained_models_give_the_band() -> None:
    generator = torch.Generator().manual_seed(0)
    like = [head((torch.eye(4) + 0.1 * torch.randn(4, 4, generator=generator)).tolist(), [0.0] * 4) for _ in range(6)]
    found = by_name(Head()(case_of(like[0], HIDDEN, *like[1:])))["head/norm"]
    assert (found.level, found.inside) == (2, False)
    ratios = [traits(layer)["norm"] for layer in like[1:]]
    assert found.retrained == pytest.approx(sum(float(n[3] / n[:3].mean()) for n in ratios) / 5)


def test_without_bias_head_class_or_reference_it_says_so() -> None:
    found = by_name(Head()(case_of(head([[1.0], [2.0], [3.0], [4.0]], None), PLAIN, PLAIN)))
    assert (found["head/bias"].note, found["head/bias"].level) == ("a head has no bias", None)
    assert found["head/norm"].unlearned == pytest.approx(1)
    headless = by_name(Head()(case_of(PLAIN, nn.Linear(2, CLASSES + 1), PLAIN, PLAIN)))
    assert {finding.note for finding in headless.values()} == {
        "no features: expected a linear layer with 4 outputs, got none in Linear"
    }
    assert {finding.level for finding in Head()(row_case())} == {None}
    for finding in Head()(random_case(references=0)):
        assert (finding.retrained, finding.inside, finding.note) == (None, None, "no reference")


def test_all_numbers_are_finite_when_every_row_is_nothing() -> None:
    nothing = head([[0.0, 0.0]] * 4, [0.0] * 4)
    for finding in Head()(case_of(nothing, nothing, nothing, nothing)):
        assert finding.unlearned is not None
        assert math.isfinite(finding.unlearned)


def test_nothing_is_changed() -> None:
    case = random_case()
    before = state(case)
    Head()(case)
    assert state(case) == before
