"""Similarity: against explicit kernel matrices and the sum over four distinct rows that defines the estimator."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor

from cases import SIZES, assert_same_numbers, by_name, featured_case, permuted, random_case, state
from expunge.audits.similarity import Similarity, cka, independence


def textbook(first: Tensor, second: Tensor) -> float:
    """Equation 5 of Song et al. with the matrices written out."""
    rows = len(first)
    kernels = [features.double() @ features.double().T for features in (first, second)]
    for kernel in kernels:
        kernel.fill_diagonal_(0)
    k, m = kernels
    one = torch.ones(rows, dtype=torch.float64)
    total = (one @ k @ one) * (one @ m @ one) / ((rows - 1) * (rows - 2))
    value = (k @ m).trace() + total - 2 * (one @ k @ m @ one) / (rows - 2)
    return float(value / (rows * (rows - 3)))


def textbook_cka(first: Tensor, second: Tensor) -> float:
    return textbook(first, second) / math.sqrt(textbook(first, first) * textbook(second, second))


def test_the_estimator_is_the_textbooks_and_the_mean_over_four_distinct_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(6, 3, generator=generator) + 2, torch.randn(6, 4, generator=generator)
    fast = independence(first.double(), second.double())
    assert fast == pytest.approx(textbook(first, second))
    k, m = (first @ first.T).tolist(), (second @ second.T).tolist()
    terms = [k[a][b] * (m[a][b] + m[c][d] - 2 * m[a][c]) for a, b, c, d in permutations(range(6), 4)]
    assert fast == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_it_is_one_up_to_rotation_and_scale_and_zero_for_features_that_do_not_vary() -> None:
    features = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
    assert cka(features, 7 * features @ rotation + 3) == pytest.approx(1, abs=1e-5)
    assert cka(features, torch.ones(20, 2)) == 0


def test_wide_unrelated_features_are_not_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(12, 100, generator=generator), torch.randn(12, 100, generator=generator)) for _ in range(40)]
    assert abs(sum(cka(*pair) for pair in pairs) / 40) < 0.1


@pytest.mark.parametrize("depth", ["early", "head"])
def test_models_are_compared_with_the_original_and_with_retrained_ones(depth: str) -> None:
    case = featured_case()
    found = by_name(Similarity()(case))

    def features(index: int) -> Tensor:
        return case.models[index].features[depth]["forget_test"]

    to_original = found[f"similarity/original/{depth}"]
    assert to_original.original == pytest.approx(1)
    assert to_original.unlearned == pytest.approx(textbook_cka(features(0), features(1)), rel=1e-5)
    expected = sum(textbook_cka(features(index), features(0)) for index in range(2, 6)) / 4
    assert to_original.retrained == pytest.approx(expected, rel=1e-5)
    to_retrained = found[f"similarity/retrained/{depth}"]
    expected = sum(textbook_cka(features(1), features(index)) for index in range(2, 6)) / 4
    assert to_retrained.unlearned == pytest.approx(expected, rel=1e-5)
    among = [textbook_cka(features(a), features(b)) for a in range(2, 6) for b in range(2, 6) if a != b]
    assert to_retrained.retrained == pytest.approx(sum(among) / 12, rel=1e-5)


def test_features_left_as_they_were_are_outside() -> None:
    case = featured_case(references=8)
    case = replace(case, unlearned=case.original)
    found = by_name(Similarity()(case))["similarity/original/head"]
    assert found.unlearned == pytest.approx(1)
    assert (found.level, found.inside, found.informative) == (2, False, True)


def test_without_features_rows_or_references_it_says_so() -> None:
    assert {found.note for found in Similarity()(random_case())} == {"no features: a model gave none"}
    few = by_name(Similarity()(featured_case(sizes=SIZES | {"forget_test": 3})))
    assert few["similarity/original/head"].note == "3 rows in forget_test, where 4 are needed"
    empty = by_name(Similarity()(featured_case(sizes=SIZES | {"forget_test": 0})))
    assert empty["similarity/retrained/head"].note == "no rows in forget_test"
    assert empty["similarity/retrained/head"].level is None
    for found in Similarity()(featured_case(references=0)):
        assert (found.retrained, found.inside, found.note) == (None, None, "no reference")


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = featured_case()
    before = state(case)
    findings = Similarity()(case)
    assert state(case) == before
    assert_same_numbers(findings, Similarity()(permuted(case)))
