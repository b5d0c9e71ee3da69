"""Claims about what is looked at beside the findings: answers, maps of features, histograms, profiles."""

from dataclasses import replace

import numpy as np
import pytest

from cases import CLASSES, featured_case, random_case, row_case, state
from examples import example_findings, example_result, example_views
from expunge.audits._histogram import places, shares
from expunge.audits.membership import LOSSES, Membership
from expunge.finding import Finding, finding
from expunge.report import render
from expunge.report.destinations import NONE, destinations
from expunge.report.profiles import profiles
from expunge.result import Answers, Result, from_json
from expunge.views import look, principal


def test_every_forgotten_row_is_counted_once_under_what_each_model_calls_it() -> None:
    case = random_case()
    (told,) = look(case).answers
    called = case.unlearned.logits["forget_test"].numpy().argmax(axis=1).tolist()
    assert told.label == CLASSES - 1
    assert list(told.unlearned) == [called.count(index) for index in range(CLASSES)]
    assert sum(told.original) == sum(told.unlearned) == pytest.approx(sum(told.retrained)) == 12


def test_maps_show_the_same_rows_and_change_nothing() -> None:
    case = featured_case()
    before = state(case)
    views = look(case)
    assert state(case) == before
    assert views == look(case)
    told = views.features
    assert told is not None
    assert told.retrained is not None
    assert (told.forgotten, len(told.labels)) == (12, 12 + 24)
    assert set(told.labels[:12]) == {CLASSES - 1}
    for plane in (told.original, told.unlearned, told.retrained):
        assert len(plane.x) == len(plane.y) == 36
        assert max(map(abs, (*plane.x, *plane.y))) == 1000
        assert plane.spread is not None
        assert 0 < plane.spread <= 1


def test_models_that_are_the_same_up_to_a_turn_lie_over_each_other() -> None:
    case = featured_case()
    mirrored = {
        depth: {part: -rows.flip(1) for part, rows in parts.items()} for depth, parts in case.original.features.items()
    }
    case = replace(case, unlearned=replace(case.original, features=mirrored))
    told = look(case).features
    assert told is not None
    assert np.abs(np.subtract(told.original.x, told.unlearned.x)).max() <= 1
    assert np.abs(np.subtract(told.original.y, told.unlearned.y)).max() <= 1


def test_principal_directions_are_those_of_the_covariance() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4)) * [5, 3, 1, 1]
    points, spread = principal(features)
    values = np.linalg.eigvalsh(np.cov(features.T))[::-1]
    assert points.var(axis=0, ddof=1) == pytest.approx(values[:2])
    assert spread == pytest.approx(values[:2].sum() / values.sum())


def test_without_features_there_is_no_map_and_single_rows_are_training_rows() -> None:
    assert look(random_case()).features is None
    views = look(row_case())
    assert views.part == "forget"
    assert [sum(each.original) for each in views.answers] == [10, 10, 10]


def test_a_histogram_puts_each_number_in_one_place() -> None:
    assert places((0.0, 0.1, 1.0)) == ("0 to 0.1", "0.1 to 1", "over 1")
    assert shares([-1, 0.0, 0.1, 0.5, 7.0], (0.0, 0.1, 1.0)) == [0.4, 0.4, 0.2]


def test_losses_of_forgotten_and_unseen_rows_are_drawn_in_the_same_places() -> None:
    drawn = [each.series for each in Membership()(random_case()) if each.series is not None]
    assert [series.axis.split(" by ")[0] for series in drawn] == [
        "share of training rows to forget",
        "share of unseen rows of the same classes",
    ]
    assert {series.x for series in drawn} == {places(LOSSES)}
    assert [sum(series.unlearned) for series in drawn] == pytest.approx([1, 1])


def test_destinations_are_shares_of_each_true_class() -> None:
    told = destinations(example_result())
    assert told is not None
    (_, rows, lines), *more = told.blocks
    assert (rows, more) == (37, [])
    assert told.columns == ("0", "1", "2", "3", "5", "7", "8", "9")
    assert [cell.text for cell in dict(lines)["unlearned"]] == [
        NONE, "2.7 %", "21.6 %", NONE, "29.7 %", "5.4 %", "21.6 %", "18.9 %",
    ]  # fmt: skip


def test_a_thousand_classes_share_a_column_beyond_a_dozen() -> None:
    counts = tuple(range(1000))
    many = Answers(label=0, original=counts, unlearned=counts, retrained=())
    views = replace(example_views(), answers=(many,) * 30, features=None)
    told = destinations(example_result(views=views, label_names=tuple(map(str, range(1000)))))
    assert told is not None
    assert (len(told.columns), len(told.blocks), told.left_out) == (13, 10, 20)
    assert sum(cell.weight for cell in told.blocks[0][2][0][1]) == pytest.approx(100, abs=3)


def test_depths_are_joined_into_one_profile() -> None:
    def at(depth: str, number: float | None) -> Finding:
        return finding(
            f"similarity/original/{depth}", original=1.0, unlearned=number, retrained=[0.2, 0.4], level=None, meaning=""
        )

    (made,) = profiles([at("trunk", 0.9), at("head", 0.5), *example_findings()])
    assert made.series is not None
    assert (made.series.x, made.series.unlearned) == (("trunk", "head"), (0.9, 0.5))
    assert made.series.retrained[0] == pytest.approx((0.3, 0.3))
    assert profiles([at("trunk", None), at("head", 0.5)]) == []


def test_a_result_of_an_earlier_version_is_read_and_shown() -> None:
    text = example_result(views=None).to_json().replace(' "views": null,\n', "")
    assert "views" not in text
    earlier = from_json(Result, text, "x")
    assert earlier == example_result(views=None)
    assert "Where the forgotten rows go" not in render(earlier)
    assert from_json(Result, example_result().to_json(), "x") == example_result()
