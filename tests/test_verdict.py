"""Claims about the verdict: it says what the findings say, and never more."""

from dataclasses import replace

import pytest

from examples import DIGITS, EXPERIMENT, changed, example_findings, example_result
from expunge.finding import Finding
from expunge.report import verdict
from expunge.report.verdict import asked, way
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
        "The network no longer outputs class '3' (accuracy on its test rows 0.0 %, was 98.6 %), is right on 97.2 % of "
        "the retained ones (was 98.1 %), and its outputs look like those of networks retrained without it (level L1). "
        "This says nothing of its inner features."
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
    text = verdict(at(level))
    assert f"(level {level})" in text
    assert text.endswith(limit)


def test_a_class_that_is_still_recognised_is_named_so() -> None:
    text = verdict(example_result(findings=changed("accuracy/forget_test", unlearned=0.124, inside=False)))
    assert "still right on 12.4 % of the test rows of class '3' (was 98.6 %)" in text
    assert "differs from networks retrained without it" in text
    assert "accuracy on forgotten test rows, 12.4 % against 0.0 % to 0.0 %, still recognised" in text
    assert "level" not in text


def test_less_accuracy_than_retrained_networks_have_is_over_forgotten() -> None:
    findings = changed("accuracy/forget_test", unlearned=0.1, band=(0.4, 0.6), inside=False, miss="over-forgotten")
    text = verdict(example_result(findings=findings))
    assert "over-forgotten" in text
    assert text.endswith("It did too much: lower impair_lr of unsir and forget again.")


@pytest.mark.parametrize("method", [None, {"name": "retrain", "training": {"lr": 0.1}}, {"name": "head_mask"}])
def test_no_setting_is_named_where_none_would_help(method: object) -> None:
    findings = changed("accuracy/retain_test", unlearned=0.5, inside=False, miss="damaged")
    text = verdict(example_result(findings=findings, experiment=EXPERIMENT | {"method": method}))
    assert "what was to stay is damaged" in text
    assert "lower " not in text.replace("lower than", "")


def test_a_damaged_rest_is_named_so() -> None:
    findings = changed("accuracy/retain_test", unlearned=0.4, inside=False, miss="damaged")
    text = verdict(example_result(findings=findings))
    assert "is right on 40.0 % of the retained ones (was 98.1 %), but it differs" in text
    assert "what was to stay is damaged" in text


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
    assert text.endswith("whether this is forgetting could not be judged.")


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
    assert "(level L1), but beyond that it differs from them: accuracy while relearning, 95.0 % against" in text
    assert "says nothing of its inner features" not in text


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
    assert "still right on under 0.1 % of" in verdict(example_result(findings=findings))


def test_a_missing_accuracy_is_not_known() -> None:
    findings = tuple(each for each in example_findings() if each.name != "accuracy/forget_test")
    assert verdict(example_result(findings=findings)).startswith(
        "What the network now answers on class '3' is not known"
    )
    no_original = changed("accuracy/forget_test", original=None)
    assert "accuracy on its test rows 0.0 %, was not known" in verdict(example_result(findings=no_original))


def test_training_rows_stand_in_where_there_are_no_test_rows() -> None:
    findings = (
        *changed("accuracy/forget_test", unlearned=None),
        replace(example_findings()[1], name="accuracy/forget"),
    )
    assert "accuracy on its training rows 0.0 %" in verdict(example_result(findings=findings))


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
        "The network still gives 50.0 % of the manipulated rows the label that was put on them (was 97.0 %), is right"
    )
    assert verdict(corrupted(0.0)).startswith(
        "The network no longer gives any of the manipulated rows the label that was put on them (was 97.0 %), is right"
    )


def test_several_classes_are_spoken_of_together() -> None:
    text = verdict(requesting(3, 5))
    assert text.startswith("The network is no longer right on any of the test rows of classes '3' and '5'")
    assert "retrained without them" in text


def test_a_hostile_name_stays_short_and_on_one_line() -> None:
    names = ("\x1b[31mred\n\u202eback{it}" + "x" * 10_000, *DIGITS[1:])
    text = verdict(replace(requesting(0), label_names=names))
    assert len(text) < 400
    assert not set(text) & set("\x1b\n\u202e")
    assert "'[31mred back{it}xxx" in text
