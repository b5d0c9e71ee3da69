"""Comparisons of results made by hand: what is ranked and what is not, controls, and what cannot be compared."""

import json
import re
from dataclasses import asdict, replace
from typing import Any

import pytest
from rich.console import Console

from expunge.cli.terminal_comparison import comparison_table, remarks
from expunge.comparison.cells import label_methods, world_name
from expunge.comparison.record import Comparison
from expunge.comparison.summary import compare, kept, passed, ratio
from expunge.errors import DataError
from expunge.finding import Finding, finding
from expunge.report.comparison_charts import pareto_front
from expunge.report.comparison_page import render
from expunge.result import Bill, Level, Result, from_json
from test_report import HOSTILE, Page

SETTING = {"dataset": {"name": "digits"}, "network": {"name": "mlp"}, "training": {"epochs": 3}, "references": 3}


def one(name: str, inside: bool | None, *, level: int | None = 1, informative: bool | None = True) -> Finding:
    made = finding(name, original=1.0, unlearned=0.4, retrained=[0.3, 0.2, 0.1], level=level, meaning="")
    return replace(made, inside=inside, informative=informative)


def result(
    method: str | dict[str, Any] | None,
    share: float,
    *,
    seed: int = 0,
    classes: tuple[int, ...] = (3,),
    level: Level = "L0",
    seconds: float = 1.0,
    **changes: Any,
) -> Result:
    """Return a result of ten telling findings, of which a share is inside."""
    told = {"name": method} if isinstance(method, str) else method
    findings = tuple(one(f"audit/{place}", place < round(10 * share)) for place in range(10))
    made = Result(
        experiment=SETTING | {"request": {"classes": list(classes)}, "seed": seed, "method": told},
        label_names=tuple("0123456789"),
        rows={},
        findings=findings,
        cost=Bill(seconds={"total": seconds, "retrain": 10.0}, flops=100, epoch_equivalents=0.5, peak_memory_bytes=1),
        access=None,
        level=level,
        images=(),
        environment={},
    )
    return replace(made, **changes)


def many(shares: dict[str, list[float]], classes: tuple[int, ...] = (3, 8), **changes: Any) -> dict[str, Result]:
    """Return results of methods with a share for each seed, and controls that do as they should."""
    shares = shares | {"head_mask": [0.2] * len(next(iter(shares.values()))), "retrain": [1.0] * 9}
    seeds = len(shares["head_mask"])
    return {
        f"{method}/{seed}/{index}": result(method, shares[method][seed], seed=seed, classes=(index,), **changes)
        for method in shares
        for seed in range(seeds)
        for index in classes
    }


def test_doing_nothing_passes_nothing_and_harm_counts_against() -> None:
    telling = [one("a", True), one("b", False)]
    harmless = [one("c", True, informative=False)] * 5
    base = result("unsir", 1.0)
    assert passed(replace(base, findings=tuple(telling + harmless))) == 0.5
    harm = [one("d", False, informative=False)] * 2
    assert passed(replace(base, findings=tuple(telling + harmless + harm))) == 0.25
    nothing = [one("a", False), *harmless]
    assert passed(replace(base, findings=tuple(nothing))) == 0.0
    unjudged = [one("a", None), one("b", True, level=None)]
    assert passed(replace(base, findings=tuple(unjudged))) is None


def test_gap_and_time_are_those_of_retraining() -> None:
    made = finding("accuracy/retain_test", original=1.0, unlearned=0.9, retrained=[0.95, 0.93], level=0, meaning="")
    base = result("unsir", 1.0, seconds=2.0)
    assert kept(replace(base, findings=(made,))) == pytest.approx(-0.04)
    assert ratio(base) == 0.2
    assert (kept(base), ratio(replace(base, cost=None))) == (None, None)


@pytest.mark.parametrize("seeds", [1, 2])
def test_nothing_is_ranked_from_fewer_than_three_seeds(seeds: int) -> None:
    made = compare(many({"unsir": [0.9] * seeds, "finetune": [0.1] * seeds}, classes=(1, 3, 5, 7, 8)))
    assert not made.ranked
    assert made.ranking.startswith(f"not ranked: {seeds} seed")
    assert all(standing.rank is None for standing in made.standings)
    assert [standing.label for standing in made.standings if not standing.control] == ["finetune", "unsir"]  # by name
    assert "Not ranked" in " ".join(remarks(made))
    assert "Not ranked" in render(made)


def test_all_that_is_missing_for_a_ranking_is_said() -> None:
    made = compare(many({"unsir": [0.9]}))
    assert made.ranking == "not ranked: 1 method, 2 are needed; 1 seed, 3 are needed"


def test_three_seeds_rank_what_they_tell_apart() -> None:
    made = compare(many({"unsir": [0.9, 0.8, 0.9], "finetune": [0.3, 0.1, 0.2], "other": [0.8, 0.9, 0.9]}))
    assert made.ranked
    ranks = {standing.label: standing.rank for standing in made.standings}
    assert ranks == {"unsir": 1, "other": 1, "finetune": 3, "head_mask": None, "retrain": None}
    between = {(pair.first, pair.second): pair for pair in made.pairs if pair.quantity == "passed"}
    assert between["finetune", "unsir"].difference.mean == pytest.approx(-2 / 3)
    assert between["finetune", "unsir"].apart
    assert not between["other", "unsir"].apart
    assert between["finetune", "unsir"].p is None  # three seeds are too few


def test_six_seeds_have_p_values_corrected_for_all_pairs() -> None:
    made = compare(many({"a": [0.9, 0.8, 0.7, 0.9, 0.8, 0.6], "b": [0.1, 0.2, 0.3, 0.0, 0.5, 0.2]}))
    p = {pair.quantity: pair.p for pair in made.pairs}
    # differences .8 .6 .4 .9 .3 .4 of six seeds: ties, so by the normal approximation; times are all the same
    assert p["passed"] is not None
    assert 0.03 < p["passed"] < 0.1
    assert p["time"] == 1.0
    assert p["kept"] is None


def test_methods_are_paired_only_where_both_are() -> None:
    results = many({"a": [0.9, 0.8, 0.7], "b": [0.1, 0.2, 0.4]})
    del results["b/2/3"], results["b/2/8"]
    made = compare(results)
    assert not made.ranked
    assert made.ranking == "not ranked: 2 seeds, 3 are needed"
    assert next(pair for pair in made.pairs if pair.quantity == "passed").difference.seeds == 2
    assert made.worlds[-1].levels == {"a": "L0", "head_mask": "L0", "retrain": "L0"}


def test_controls_are_marked_and_stand_outside_the_ranking() -> None:
    made = compare(many({"a": [0.9, 0.8, 0.7], "b": [0.1, 0.2, 0.4]}))
    assert [standing.label for standing in made.standings if standing.control] == ["retrain", "head_mask"]
    assert {name for pair in made.pairs for name in (pair.first, pair.second)} == {"a", "b"}
    assert not [place for place in made.worlds if place.faults or place.missing]


def test_a_control_that_goes_wrong_is_said_loudly() -> None:
    results = many({"a": [0.9, 0.8, 0.7], "b": [0.1, 0.2, 0.4]})
    results["head_mask/1/3"] = replace(results["head_mask/1/3"], level="L2")
    results["retrain/2/8"] = result("retrain", 0.8, seed=2, classes=(8,))
    made = compare(results)
    faults = {place.name: place.faults for place in made.worlds if place.faults}
    assert faults == {
        "class-3-seed-1": ("head_mask, which forgets nothing, reaches L2, so a level up to L2 says nothing",),
        "class-8-seed-2": (
            "a held-out retrained network is outside the bands of audit/8, audit/9, so no verdict from L1 up holds",
        ),
    }
    assert remarks(made)[0].startswith("NOT TO BE TRUSTED: class-3-seed-1")
    assert "Not to be trusted: a control went wrong in 2 of 6 worlds" in render(made)


def test_worlds_without_controls_are_said_to_have_none() -> None:
    made = compare({key: each for key, each in many({"a": [0.9], "b": [0.1]}).items() if key[0] in "ab"})
    assert all(place.missing == ("head_mask", "retrain") for place in made.worlds)
    assert "No control head_mask and retrain in 2 of 2 worlds." in remarks(made)
    assert "2 of 2 worlds lack a control" in Page(render(made)).text


def test_each_finding_has_its_gap_its_share_inside_and_its_worst_world() -> None:
    results = many({"a": [1.0, 0.95, 0.9], "b": [0.1, 0.2, 0.4]}, classes=(3,))
    last = results["a/1/3"].findings
    results["a/1/3"] = replace(results["a/1/3"], findings=(*last[:-1], replace(last[-1], unlearned=-2.0)))
    tally = next(one for one in compare(results).standings if one.label == "a").findings[-1]
    assert (tally.name, tally.level, tally.inside, tally.judged) == ("audit/9", 1, 2, 3)
    assert tally.worst == "class-3-seed-1"
    assert tally.gap.values == pytest.approx({"class-3-seed-0": 0.2, "class-3-seed-1": -2.2, "class-3-seed-2": 0.2})


def test_costs_have_their_median_and_spread() -> None:
    results = {str(seed): result("a", 1.0, seed=seed, seconds=time) for seed, time in enumerate((1.0, 2.0, 9.0))}
    cost = compare(results).standings[0].cost
    assert (cost["seconds"].low, cost["seconds"].median, cost["seconds"].high) == (1.0, 2.0, 9.0)
    assert cost["time"].median == 0.2
    without = {key: replace(each, cost=None) for key, each in results.items()}
    assert compare(without).standings[0].cost["flops"].median is None


def test_methods_of_one_name_are_told_apart_by_their_settings() -> None:
    unsir = {"name": "unsir", "noise": "learned", "lr": 0.1}
    assert label_methods([unsir, unsir | {"noise": "zeros"}, {"name": "b", "lr": 1}, None]) == [
        "unsir noise=learned",
        "unsir noise=zeros",
        "b",
        "made elsewhere",
    ]


def test_worlds_have_short_names_that_differ() -> None:
    assert world_name({"classes": [3]}, 0) == "class-3-seed-0"
    assert world_name({"classes": [3, 8]}, 1) == "classes-3-8-seed-1"
    long = [world_name({"rows": list(range(count))}, 0) for count in (100, 101)]
    assert len(set(long)) == 2
    assert max(map(len, long)) < 60


def test_what_cannot_be_compared_is_refused() -> None:
    base = result("a", 1.0)
    other = replace(base, experiment=base.experiment | {"dataset": {"name": "shapes"}})
    with pytest.raises(DataError, match=r'one dataset, got {"name": "digits"} in x and {"name": "shapes"} in y'):
        compare({"x": base, "y": other})
    with pytest.raises(DataError, match="results to compare, got none"):
        compare({})
    with pytest.raises(DataError, match="one result of a in class-3-seed-0, got a second in y"):
        compare({"x": base, "y": base})
    with pytest.raises(DataError, match="same class names"):
        compare({"x": base, "y": replace(result("b", 1.0), label_names=("a",))})
    with pytest.raises(DataError, match="what was forgotten and the seed, got x without"):
        compare({"x": replace(base, experiment={})})


def test_a_comparison_comes_back_from_json() -> None:
    made = compare(many({"a": [0.9, 0.8, 0.7], "b": [0.1, 0.2, 0.4]}))
    assert from_json(Comparison, made.to_json(), "x") == made
    assert json.loads(made.to_json())["standings"][-1]["control"] == "hides the output and forgets nothing"
    assert asdict(made)["schema"] == 1


def test_the_table_fits_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    long = {"name": "unsir", "noise": "learned", "x": 1}, {"name": "unsir", "noise": "gaussian", "x": 2}
    results = {
        f"{place}/{seed}": result(method, 0.5 + 0.1 * seed * place, seed=seed)
        for place, method in enumerate(long)
        for seed in range(3)
    }
    Console(width=80).print(comparison_table(compare(results)))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "0.60 (0.35 to 0.85)" in "\n".join(lines)


def test_a_hostile_name_is_only_text() -> None:
    def page(name: str) -> Page:
        results = {str(seed): result({"name": name}, 0.5, seed=seed) for seed in range(3)}
        return Page(render(compare(results | many({"a": [0.9, 0.8, 0.7]}, classes=(3,)))))

    hostile, plain = page(HOSTILE), page("zz")
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert len(hostile.scripts) == len(plain.scripts)


def test_a_comparison_tells_the_versions_that_its_results_are_of() -> None:
    results = many({"a": [0.9], "b": [0.1]})
    assert "Made by expunge from comparison.json" in " ".join(render(compare(results)).split())
    versions = ("0.2.0", "0.1.0")
    dated = {
        name: replace(one, environment={"expunge": versions[number % 2]})
        for number, (name, one) in enumerate(results.items())
    }
    made = compare(dated)
    assert made.expunge == "0.1.0, 0.2.0"
    assert "Made by expunge 0.1.0, 0.2.0 from comparison.json" in render(made)


def test_the_page_needs_no_network_and_holds_all_parts() -> None:
    html = render(compare(many({"a": [0.9, 0.8, 0.7], "b": [0.1, 0.2, 0.4]})))
    page = Page(html)
    assert not [tag for tag, attributes in page.elements if {"src", "href"} & set(attributes) and tag != "a"]
    assert "default-src 'none'" in html
    for title in ("Methods", "Quality, spread and cost", "Differences in the same worlds", "Findings", "Worlds"):
        assert title in page.text
    assert html.count('class="plot"') == 2
    for name in set(re.findall(r"var\((--[a-z]+)\)", html.split('id="plotly"')[0])):
        assert f"{name}:" in html.split("@media")[0]


def test_the_front_holds_what_nothing_beats_in_both_and_no_control() -> None:
    # share passed and seconds by hand: b is slower than a and passes less; d passes as much as c in more time
    told = {"a": (0.5, 1.0), "b": (0.4, 2.0), "c": (0.9, 3.0), "d": (0.9, 4.0)}
    results = many({"a": [0.5]}, classes=(3,)) | {
        name: result(name, share, seconds=seconds) for name, (share, seconds) in told.items()
    }
    del results["a/0/3"]
    front = pareto_front(list(compare(results).standings))
    assert [one.label for one in front] == ["a", "c"]
