"""Faults: a few of what ``make faults`` does in full."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import Ground

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="attempts are forked")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    home, cache = Path.cwd(), os.environ["EXPUNGE_CACHE"]
    yield Ground(tmp_path_factory.mktemp("ground"))
    os.chdir(home)
    os.environ["EXPUNGE_CACHE"] = cache


@pytest.mark.parametrize(("name", "overwrite"), [("train", True), ("unsir", False)])
def test_killed_commands_end_with_the_weights_of_an_undisturbed_run(ground: Ground, name: str, overwrite: bool) -> None:
    chance = random.Random(3)  # noqa: S311  no secret hangs on it
    assert ground.killed(name, 2, chance, overwrite=overwrite)["equal"]


def test_a_full_disk_leaves_the_earlier_result_whole(ground: Ground) -> None:
    assert ground.full("train", 0.5)["earlier_result_whole"]
