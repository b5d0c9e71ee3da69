"""Comparison: many results side by side, method by method, in the same worlds; JSON; its report's only input. No torch.

Methods are ranked by the share of what can tell forgetting that they pass (see `summary.passed`): doing nothing has
0, a retrained network nearly 1. With fewer than three seeds they are not ranked, and two methods whose difference over
seeds may be chance share a rank. Two controls belong in every world and are never ranked: `head_mask`, which only hides
the output and must not rise above level L0, and a held-out retrained network, which must be inside every band.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from expunge.comparison.statistics import Estimate

RETRAINED = "retrain"
CONTROLS = {
    "head_mask": "hides the output and forgets nothing",
    RETRAINED: "a held-out network retrained without the rows",
}
"""What each control is, by the name of its method."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One world: how far each method came in it, and whether its audits can be trusted."""

    name: str
    request: dict[str, Any]
    seed: int
    levels: dict[str, str]
    """By method."""
    missing: tuple[str, ...]
    """Controls that it lacks."""
    faults: tuple[str, ...]
    """How a control went wrong, so that the audits are not to be trusted here; one sentence each."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """One finding of one method over all worlds."""

    name: str
    level: int | None
    unlearned: Estimate
    gap: Estimate
    """Unlearned less the mean of retrained."""
    inside: int
    """Worlds in which it was inside the band."""
    judged: int
    """Worlds in which it could be judged."""
    worst: str | None
    """World with the greatest gap, up or down."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A cost over worlds; None if it is not known in any."""

    median: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One method over all worlds."""

    label: str
    method: dict[str, Any] | None
    """Name and settings; None if the models were made elsewhere."""
    control: str | None
    """What it is for, if it is a control."""
    rank: int | None
    """One more than the number of methods that are better and whose difference is no chance; None if not ranked."""
    worlds: int
    levels: dict[str, int]
    """Worlds by the level reached."""
    quantities: dict[str, Estimate]
    findings: tuple[Tally, ...]
    cost: dict[str, Spread]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The difference of two methods in one quantity, over the worlds that both have."""

    first: str
    second: str
    quantity: str
    difference: Estimate
    """First less second."""
    p: float | None
    """Wilcoxon's signed-rank test over seeds, Holm's correction for all pairs here; None with too few seeds."""
    apart: bool
    """Whether the interval over seeds excludes 0."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods side by side; the comparison's report needs nothing else."""

    setting: dict[str, Any]
    """What all results share: data set, network, training, audits, number of references."""
    label_names: tuple[str, ...]
    worlds: tuple[Place, ...]
    standings: tuple[Standing, ...]
    """The best first if they are ranked, else by name; controls last."""
    pairs: tuple[Pair, ...]
    ranked: bool
    ranking: str
    """By what, or why not; one sentence."""
    expunge: str = ""
    """Versions of expunge that the results are of, with commas; empty if no result says."""
    schema: Literal[1] = 1

    def to_json(self) -> str:
        """Return the comparison as JSON; every number is finite."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"
