"""Claims about the verdict: it says what the findings say, and never more."""

from dataclasses import replace

import pytest

from examples import DIGITS, EXPERIMENT, changed, example_findings, example_result
from expunge.finding import AT_THE_EDGE, UNINFORMATIVE, Finding
from expunge.report import verdict
from expunge.report.verdict import asked, sentences, way
from expunge.result import Level, Result


def without_reference() -> tuple[Finding, ...]:
    return tuple(
        replace(each, retrained=None, band=None, inside=None, note="no reference") for each in example_findings()
    )


def at(level: Level, *, original: float = 1.0) -> Result:
    """Return a result with one finding inside at each level up to one, and nothing audited above."""
    judged = [
        replace(each, level=number, original=original, unlearned=0.0, band=(0.0, 0.1), inside=True, note=None)
        for number in range(5)
        for each in example_findings()[1:2]
        if f"L{number}" <= level
    ]
    return example_result(findings=tuple(judged), level=level)


def requesting(*classes: int | str) -> Result:
    return example_result(experiment=EXPERIMENT | {"request": {"classes": list(classes)}})


def test_the_verdict_of_a_good_run_gives_its_numbers_its_level_and_its_limit() -> None:
    assert verdict(example_result()) == (
        "The network no longer outputs class '3', and its outputs look like those of networks retrained without it "
        "(level L1). This says nothing of its inner features. It is right on 0.0 % of the test rows of class '3' "
        "(before: 98.6 %) and on 97.2 % of the retained test rows (before: 98.1 %)."
    )


@pytest.mark.parametrize(
    ("level", "limit"),
    [
        ("L0", "This says nothing of its confidence or its inner features."),
        ("L1", "This says nothing of its inner features."),
        ("L2", "This says nothing of how fast it could be relearned."),
        ("L3", "This says nothing of what tests over many networks would find."),
        ("L4", "This is evidence, not proof."),
    ],
)
def test_every_level_has_its_limit(level: Level, limit: str) -> None:
    claim, *rest = sentences(at(level))
    assert claim.endswith(f"(level {level}).")
    assert rest[0] == limit


def test_a_class_that_is_still_recognised_is_named_so() -> None:
    text = verdict(example_result(findings=changed("accuracy/forget_test", unlearned=0.124, inside=False)))
    assert "still right on 12.4 % of the test rows of class '3', but it differs from networks retrained" in text
    assert "It differs in: accuracy on forgotten test rows, still recognised (12.4 % against 0.0 % to 0.0 %)" in text
    assert "right on 12.4 % of the test rows of class '3' (before: 98.6 %)" in text
    assert "level" not in text


def test_less_accuracy_than_retrained_networks_have_is_over_forgotten() -> None:
    findings = changed("accuracy/forget_test", unlearned=0.1, band=(0.4, 0.6), inside=False, miss="over-forgotten")
    text = verdict(example_result(findings=findings))
    assert "over-forgotten" in text
    assert "It did too much: lower impair_lr of unsir and forget again." in text


@pytest.mark.parametrize("method", [None, {"name": "retrain", "training": {"lr": 0.1}}, {"name": "head_mask"}])
def test_no_setting_is_named_where_none_would_help(method: object) -> None:
    findings = changed("accuracy/retain_test", unlearned=0.5, inside=False, miss="damaged")
    text = verdict(example_result(findings=findings, experiment=EXPERIMENT | {"method": method}))
    assert "what was to stay is damaged" in text
    assert "lower " not in text.replace("lower than", "")


def test_a_damaged_rest_is_named_so() -> None:
    findings = changed("accuracy/retain_test", unlearned=0.4, inside=False, miss="damaged")
    text = verdict(example_result(findings=findings))
    assert "no longer outputs class '3', but it differs from networks retrained without it. It differs in:" in text
    assert "what was to stay is damaged (40.0 % against" in text
    assert text.endswith("and on 40.0 % of the retained test rows (before: 98.1 %).")


@pytest.mark.parametrize(
    ("unlearned", "original", "expected"),
    [
        (0.9, 1.0, "higher than in retrained networks, on the side of the original"),
        (0.9, 0.1, "higher than in retrained networks, further off than needed"),
        (0.1, 0.2, "lower than in retrained networks, on the side of the original"),
        (0.1, None, "lower than in retrained networks"),
        (0.9, 0.5, "higher than in retrained networks"),
    ],
)
def test_the_way_of_an_unknown_finding_tells_sides_alone(
    unlearned: float, original: float | None, expected: str
) -> None:
    finding = replace(
        example_findings()[4], name="new/one", unlearned=unlearned, original=original, band=(0.4, 0.6), inside=False
    )
    assert way(finding) == expected


def test_without_a_reference_nothing_is_judged() -> None:
    text = verdict(example_result(findings=without_reference()))
    assert "there is no retrained network to compare with" in text
    assert "whether this is forgetting could not be judged." in text


def test_one_reference_is_too_few_to_judge_by() -> None:
    findings = tuple(replace(each, band=None, inside=None) for each in example_findings())
    assert "two or more retrained networks are needed" in verdict(example_result(findings=findings))


def test_a_level_that_could_not_be_judged_is_said_with_its_reason() -> None:
    findings = changed("accuracy/worst_retained_class", inside=None, band=None, note="no rows in retain_test")
    assert "level L0 could not be judged (no rows in retain_test), so no level is reached" in verdict(
        example_result(findings=findings)
    )


def test_a_miss_above_the_level_takes_the_place_of_the_limit() -> None:
    findings = changed("relearning/area", unlearned=0.95, inside=False)
    text = verdict(example_result(findings=findings))
    assert "(level L1). Beyond that it differs from them in: accuracy while relearning, " in text
    assert "(95.0 % against" in text
    assert "says nothing of its inner features" not in text


def test_a_miss_at_the_edge_of_its_band_says_so() -> None:
    findings = changed("relearning/area", unlearned=0.95, inside=False, note=f"a note; {AT_THE_EDGE}")
    far = verdict(example_result(findings=changed("relearning/area", unlearned=0.95, inside=False)))
    near = verdict(example_result(findings=findings))
    assert "), at the edge of the band: another seed or other rounding may judge otherwise." in near
    assert "edge" not in far


def test_a_level_that_rests_on_a_number_at_the_edge_says_so() -> None:
    text = verdict(example_result(findings=changed("prediction/entropy/forget_test", note=AT_THE_EDGE)))
    assert "(level L1). The level rests on one finding at the edge of the band: another seed" in text


def test_rows_that_retrained_networks_know_too_are_no_failure() -> None:
    known = replace(
        example_findings()[1], name="accuracy/forget", original=1.0, unlearned=1.0, retrained=1.0, band=(0.8, 1.0),
        inside=True, informative=False, note=UNINFORMATIVE,
    )  # fmt: skip
    rows = EXPERIMENT | {"request": {"rows": [5, 17]}}
    claim, why, *_ = sentences(example_result(experiment=rows, findings=(known,)))
    assert (
        claim == "The network is right on 100.0 % of the forgotten training rows, as retrained networks are (100.0 %)."
    )
    assert why.startswith("No level is reached: the original network would pass too")
    apart = replace(known, unlearned=0.9)
    assert "90.0 % of the forgotten training rows, much as retrained networks are (100.0 %)" in verdict(
        example_result(experiment=rows, findings=(apart,))
    )
    outside = replace(known, unlearned=0.7, inside=False)
    assert "still right on 70.0 %" in verdict(example_result(experiment=rows, findings=(outside,)))


def test_numbers_that_the_original_would_pass_prove_nothing() -> None:
    assert "cannot tell forgetting from doing nothing" in verdict(at("L1", original=0.05))
    assert "cannot tell" not in verdict(at("L1", original=0.5))


def test_head_mask_is_called_a_control_whatever_its_numbers() -> None:
    result = example_result(experiment=EXPERIMENT | {"method": {"name": "head_mask"}})
    assert verdict(result).startswith("This is a control, not unlearning")


def test_a_level_that_the_findings_do_not_bear_out_is_not_repeated() -> None:
    text = verdict(example_result(level="L3"))
    assert "(level L1)" in text
    assert "states level L3, which its findings do not bear out" in text


def test_almost_nothing_is_not_called_nothing() -> None:
    findings = changed("accuracy/forget_test", unlearned=0.0001)
    assert "right on under 0.1 % of" in verdict(example_result(findings=findings))


def test_a_missing_accuracy_is_not_known() -> None:
    findings = tuple(each for each in example_findings() if each.name != "accuracy/forget_test")
    assert verdict(example_result(findings=findings)).startswith(
        "What the network now answers on class '3' is not known"
    )
    no_original = changed("accuracy/forget_test", original=None)
    assert "right on 0.0 % of the test rows of class '3' (before: not known)" in verdict(
        example_result(findings=no_original)
    )


def test_training_rows_stand_in_where_there_are_no_test_rows() -> None:
    findings = (
        *changed("accuracy/forget_test", unlearned=None),
        replace(example_findings()[1], name="accuracy/forget"),
    )
    assert "right on 0.0 % of the training rows of class '3' (before: 98.6 %)" in verdict(
        example_result(findings=findings)
    )


def test_nothing_audited_is_nothing_judged() -> None:
    assert "nothing was compared with retrained networks" in verdict(example_result(findings=()))


def test_what_was_asked_is_given_by_name() -> None:
    assert asked(requesting(3)) == "class '3'"
    assert asked(requesting(3, "#5")) == "classes '3' and '5'"
    assert asked(requesting("ship")) == "class 'ship'"
    assert asked(requesting(*range(9))) == "classes '0', '1', '2' and 6 more"
    assert asked(example_result(experiment=EXPERIMENT | {"request": {"rows": [1, 2]}})) == "2 single rows"
    assert asked(example_result(experiment={})) == "what is not known"


def corrupted(unlearned: float, known: float = 1.0) -> Result:
    told = {"request": {"rows": [1, 2]}, "corruption": {"name": "backdoor", "known": known}}
    remembered = replace(example_findings()[1], name="backdoor/memorised", original=0.97, unlearned=unlearned)
    return example_result(experiment=EXPERIMENT | told, findings=(remembered, *example_findings()[:1]))


def test_manipulated_rows_are_spoken_of_by_what_was_done_to_them() -> None:
    assert asked(corrupted(0.0)) == "2 manipulated rows (backdoor)"
    assert asked(corrupted(0.0, 0.25)) == "2 manipulated rows, 25.0 % of all (backdoor)"
    assert verdict(corrupted(0.5)).startswith(
        "The network still gives 50.0 % of the manipulated rows the label that was put on them (before: 97.0 %), and "
    )
    assert verdict(corrupted(0.0)).startswith(
        "The network no longer gives any of the manipulated rows the label that was put on them (before: 97.0 %), and "
    )


def test_several_classes_are_spoken_of_together() -> None:
    text = verdict(requesting(3, 5))
    assert text.startswith("The network is right on none of the test rows of classes '3' and '5', and its outputs")
    assert "retrained without them" in text


def test_a_hostile_name_stays_short_and_on_one_line() -> None:
    names = ("\x1b[31mred\n\u202eback{it}" + "x" * 10_000, *DIGITS[1:])
    text = verdict(replace(requesting(0), label_names=names))
    assert len(text) < 400
    assert not set(text) & set("\x1b\n\u202e")
    assert "'[31mred back{it}xxx" in text
