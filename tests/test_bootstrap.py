"""Intervals over rows: what they hold, against slow resampling and worked numbers, and which findings have one."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cases import by_name, featured_case, make_case, make_labels, make_logits, permuted
from examples import example_result
from expunge.audits.accuracy import Accuracy
from expunge.audits.membership import Membership
from expunge.audits.prediction import Prediction
from expunge.audits.probe import Probe
from expunge.bootstrap import AFFORDABLE, area, auc_interval, mean_interval
from expunge.result import Result, from_json


def test_no_hit_in_37_rows_leaves_room_for_a_tenth() -> None:
    interval = mean_interval(np.zeros(37), 0)
    assert interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 37)))  # so many misses in a row are that likely
    assert mean_interval(np.ones(37), 0) == pytest.approx((0.025 ** (1 / 37), 1.0))


def test_a_share_has_the_exact_interval() -> None:
    # 5 of 10: the textbook's example of Clopper and Pearson
    assert mean_interval(np.array([1.0] * 5 + [0.0] * 5), 0) == pytest.approx((0.18709, 0.81291), abs=1e-5)


def test_a_mean_has_the_interval_of_slow_resampling() -> None:
    values = np.random.default_rng(1).gamma(0.7, size=40)
    slow = np.random.default_rng(2)
    means = sorted(sum(slow.choice(values) for _ in range(40)) / 40 for _ in range(2000))
    assert mean_interval(values, 0) == pytest.approx((means[50], means[1949]), abs=0.05)


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(3)
    found = [mean_interval(draws.exponential(size=100), seed) for seed in range(200)]
    assert 0.88 <= np.mean([low <= 1.0 <= high for low, high in filter(None, found)]) <= 0.99


def test_the_area_is_that_of_scikit_learn() -> None:
    draws = np.random.default_rng(4)
    first, second = draws.integers(0, 5, 30).astype(float), draws.integers(1, 6, 20).astype(float)
    expected = roc_auc_score([1] * 30 + [0] * 20, [*first, *second])
    assert area(first, second) == pytest.approx(expected)
    assert area(np.stack([first, first + 9]), np.stack([second, second])) == pytest.approx([expected, 1.0])


def test_the_area_has_the_interval_of_slow_resampling() -> None:
    draws = np.random.default_rng(5)
    first, second = draws.normal(1.0, 1, 30), draws.normal(0, 1, 25)
    areas = []
    for _ in range(1500):
        one, other = draws.choice(first, 30), draws.choice(second, 25)
        areas.append(np.mean(one[:, None] > other) + np.mean(one[:, None] == other) / 2)
    low, high = np.quantile(areas, (0.025, 0.975))
    assert low > 0.5
    assert auc_interval(first, second, 0) == pytest.approx((low, high), abs=0.03)
    assert auc_interval(second, first, 0) == pytest.approx((low, high), abs=0.03)


def test_groups_that_are_alike_reach_down_to_a_coin() -> None:
    values = np.arange(40.0)
    low, high = auc_interval(values[::2], values[1::2], 0) or (0.0, 0.0)
    assert low == 0.5
    assert 0.6 < high < 0.75


def test_what_has_no_spread_has_no_interval() -> None:
    few, many = np.zeros(1), np.zeros(AFFORDABLE)
    assert mean_interval(few, 0) is None
    assert mean_interval(np.full(9, 0.3), 0) is None
    assert auc_interval(few, np.arange(9.0), 0) is None
    assert auc_interval(many, np.arange(9.0), 0) is None
    assert auc_interval(np.arange(9.0), np.arange(9.0) + 20, 0) is None


def test_means_and_rankings_over_rows_have_intervals_that_hold_the_number() -> None:
    case = featured_case()
    findings = [one for audit in (Accuracy(), Prediction(), Membership(), Probe()) for one in audit(case)]
    known = {one.name: one for one in findings if one.interval is not None}
    assert {"prediction/entropy/forget_test", "prediction/churn/retain_test", "probe/nearest_centre/head"} <= set(known)
    assert {f"accuracy/{part}" for part in ("retain", "forget", "retain_test", "forget_test")} <= set(known)
    assert {"membership/loss/auc", "membership/entropy/auc", "probe/forget_test/head"} <= set(known)
    assert "accuracy/worst_retained_class" not in known  # the worst of several: it was chosen by its number
    for name, one in known.items():
        assert one.interval is not None
        assert one.unlearned is not None
        assert one.interval[0] <= one.unlearned <= one.interval[1], name


def test_intervals_stay_when_rows_are_permuted() -> None:
    case = featured_case()
    for audit in (Accuracy(), Prediction(), Membership(), Probe()):
        for one, other in zip(audit(case), audit(permuted(case)), strict=True):
            assert one.interval == pytest.approx(other.interval), one.name


def test_intervals_are_the_same_in_every_run() -> None:
    case = featured_case()
    assert [one.interval for one in Prediction()(case)] == [one.interval for one in Prediction()(case)]


def test_intervals_are_narrower_with_more_rows() -> None:
    widths = []
    for rows in (50, 800):
        labels = make_labels({"retain": rows, "forget": rows, "retain_test": rows, "forget_test": rows})
        case = make_case(labels, make_logits(labels, 0), make_logits(labels, 1))
        interval = by_name(Accuracy()(case))["accuracy/retain_test"].interval
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths[1] < widths[0] / 3


def test_a_result_from_before_intervals_still_loads() -> None:
    values = asdict(example_result())
    for one in values["findings"]:
        del one["interval"]
    without = tuple(replace(one, interval=None) for one in example_result().findings)
    assert from_json(Result, json.dumps(values), "old") == example_result(findings=without)
