"""Probe: against scikit-learn's ridge regression and nearest centroid."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from cases import CLASSES, SIZES, WIDTHS, assert_same_numbers, by_name, featured_case, permuted, random_case, state
from expunge.audits.probe import Probe, nearest_centre, ridge
from expunge.case import Evidence


def training(evidence: Evidence, depth: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [evidence.features[depth][part].double().numpy() for part in ("retain", "forget")]
    return np.concatenate(parts), np.concatenate([evidence.labels[part].numpy() for part in ("retain", "forget")])


@pytest.mark.parametrize("depth", WIDTHS)
def test_the_linear_probe_is_scikit_learns_ridge(depth: str) -> None:
    case = featured_case()
    found = by_name(Probe(ridge=0.5)(case))
    features, labels = training(case.unlearned, depth)
    scaler = StandardScaler().fit(features)
    # the Gram matrix of standardised features has the number of rows on its diagonal
    slow = Ridge(alpha=0.5 * len(labels)).fit(scaler.transform(features), np.eye(CLASSES)[labels])
    for name, part in (("forget_test", "forget_test"), ("retain_test", "retain_test")):
        test = case.unlearned.features[depth][part].double().numpy()  # type: ignore[index]
        scores = slow.predict(scaler.transform(test))
        right = np.mean(scores.argmax(1) == case.unlearned.labels[part].numpy())  # type: ignore[index]
        assert found[f"probe/{name}/{depth}"].unlearned == pytest.approx(right)
    fast = ridge(torch.from_numpy(features), torch.eye(CLASSES, dtype=torch.int64)[labels], 0.5)
    assert np.allclose(fast(torch.from_numpy(test)).numpy(), scores)


@pytest.mark.parametrize("depth", WIDTHS)
def test_the_nearest_centre_is_scikit_learns(depth: str) -> None:
    case = featured_case()
    features, labels = training(case.original, depth)
    test = case.original.features[depth]["forget_test"].double().numpy()
    expected = np.mean(NearestCentroid().fit(features, labels).predict(test) == CLASSES - 1)
    found = by_name(Probe()(case))[f"probe/nearest_centre/{depth}"]
    assert found.original == pytest.approx(expected)
    assert 0 < expected < 1


def test_a_class_without_rows_is_nearest_to_nothing_and_constant_features_tell_nothing() -> None:
    scores = nearest_centre(torch.zeros(2, 3), torch.tensor([0, 2]), 3)(torch.ones(1, 3))
    assert int(scores.argmin()) == 1
    constant = ridge(torch.ones(4, 2), torch.eye(2, dtype=torch.int64)[[0, 0, 0, 1]], 1e-3)
    assert constant(torch.full((1, 2), 9.0)).tolist() == [[0.75, 0.25]]


def test_only_what_the_head_reads_counts() -> None:
    levels = {name: finding.level for name, finding in by_name(Probe()(featured_case())).items()}
    assert {name for name, level in levels.items() if level == 2} == {
        "probe/forget_test/head",
        "probe/nearest_centre/head",
    }


def test_where_the_original_is_in_the_band_it_says_that_it_tells_nothing() -> None:
    found = by_name(Probe()(featured_case(same=True)))["probe/forget_test/head"]
    assert found.informative is False
    assert found.note is not None
    assert "not informative here" in found.note


def test_without_features_test_rows_or_references_it_says_so() -> None:
    assert {found.note for found in Probe()(random_case())} == {"no features: a model gave none"}
    assert {found.level for found in Probe()(random_case())} == {None}
    empty = by_name(Probe()(featured_case(sizes=SIZES | {"forget_test": 0})))
    assert empty["probe/forget_test/head"].note == "no rows in forget_test"
    assert empty["probe/retain_test/head"].unlearned is not None
    alone = Probe()(featured_case(references=0))
    assert {(found.retrained, found.inside, found.note) for found in alone} == {(None, None, "no reference")}


def test_order_of_rows_is_of_no_matter_and_nothing_is_changed() -> None:
    case = featured_case()
    before = state(case)
    findings = Probe()(case)
    assert state(case) == before
    assert_same_numbers(findings, Probe()(permuted(case)))
