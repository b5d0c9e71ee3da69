"""Claims about progress on a terminal: shown for what takes long, with rate and time left, and nowhere else."""

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from examples import example_findings, example_result
from expunge.cli import terminal
from expunge.cli.terminal import Bars, findings_table, in_lines, rate

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PATIENCE", 0.05)


def shown(work: str, *, on_terminal: bool = True, quiet: bool = False) -> str:
    """Return what is written while work is done that is long, short, stuck, nested or told before."""
    console = Console(file=io.StringIO(), force_terminal=on_terminal, width=80, _environ={})
    bars = Bars(console, quiet=quiet)
    with bars(work, 40) as advance:
        if work == "resumed":
            advance(30)
        for _ in range(0 if work in ("short", "stuck") else 8):
            time.sleep(0.03)
            advance(1)
        if work == "stuck":
            time.sleep(0.3)
        if work == "outer":
            with bars("inner", 4) as inner:
                inner(1)
                time.sleep(0.3)
    assert isinstance(console.file, io.StringIO)
    return CONTROLS.sub("", console.file.getvalue())


@pytest.mark.usefixtures("impatient")
def test_a_long_stage_tells_rate_and_time_left_within_80_columns() -> None:
    lines = re.split(r"[\r\n]+", shown("train"))
    bars = [line for line in lines if "steps/s" in line]
    assert bars
    assert all(re.search(r"train +.+ \d/40 .*steps/s 0:00:\d\d left", line) for line in bars[2:])
    assert max(map(len, lines)) <= 80
    assert re.fullmatch(r"train +0\.\d s", lines[-2])


@pytest.mark.usefixtures("impatient")
def test_steps_that_were_done_before_are_not_in_the_rate() -> None:
    rates = [float(found) for found in re.findall(r"([\d.]+) steps/s", shown("resumed"))]
    assert rates
    assert max(rates) < 40  # a step takes 0.03 s; with thirty at once the rate would begin far above


@pytest.mark.usefixtures("impatient")
def test_a_stage_of_one_long_step_is_shown_while_it_runs() -> None:
    assert "0/40" in shown("stuck")


@pytest.mark.usefixtures("impatient")
def test_a_stage_inside_another_is_a_line_below_it() -> None:
    text = shown("outer")
    assert re.search(r"outer.*8/40[^\n]*\n[^\n]*inner.*1/4", text)
    assert text.index("inner") < text.rindex("outer")


def test_what_is_short_piped_or_quiet_shows_nothing(impatient: None) -> None:
    assert shown("short") == ""
    assert shown("train", on_terminal=False) == ""
    assert shown("train", quiet=True) == ""


def test_rates_below_one_are_told_by_the_step() -> None:
    assert [rate(steps) for steps in (0.25, 1.0, 12.345, 12345.6)] == [
        "4 s/step",
        "1 steps/s",
        "12.3 steps/s",
        "12346 steps/s",
    ]


def test_a_long_name_goes_on_after_its_last_slash_and_its_table_fits() -> None:
    assert in_lines("accuracy/forget", 38) == " accuracy/forget"
    name = "membership/confidence/predicted_non_member"
    assert in_lines(name, 38) == " membership/confidence/\n   predicted_non_member"
    console = Console(file=io.StringIO(), width=80)
    over = [
        replace(one, name="prediction/total_variation/forget_test", miss="over-forgotten", inside=False)
        if one.name == "accuracy/forget_test"
        else one
        for one in example_findings()
    ]
    console.print(findings_table(example_result(findings=tuple(over)), wide=False))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (cut,) = (line.split() for line in lines if "over-forgotten" in line)
    assert (cut[0], cut[-1]) == ("prediction/total_variation/", "over-forgotten")


def test_the_table_says_why_numbers_are_not_judged() -> None:
    few = [replace(one, inside=None, note="too few references for a band (2)") for one in example_findings()]
    console = Console(file=io.StringIO(), width=80)
    console.print(findings_table(example_result(findings=tuple(few)), wide=False))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("not judged: too few references for a band (2)") == 1
