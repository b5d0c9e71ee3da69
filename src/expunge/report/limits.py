"""Limits: what a result does not prove, whatever its numbers."""

from expunge.report.verdict import borne_out, forgotten_classes, method_name
from expunge.report.wording import clip
from expunge.result import LEVELS, Result


def limits(result: Result) -> list[str]:
    """Return what the result does not prove, one sentence or two each."""
    return [*of_level(result), *of_any(result)]


def of_level(result: Result) -> list[str]:
    """Return what the result does not prove and a higher level would; the list is shorter the higher the level."""
    reached = LEVELS.index(borne_out(result)) - 1
    it = "the class" if len(forgotten_classes(result)) == 1 else "what was forgotten"
    texts = [f"That the retrained networks are such: {clip(doubt, 200)}." for doubt in result.doubts]
    if method_name(result) == "head_mask":
        texts.append(
            f"That anything was forgotten: head_mask changes the last layer alone, and {it} is all still there."
        )
    if all(finding.retrained is None for finding in result.findings):
        texts.append("That this is unlearning at all: with no retrained network, there is nothing to measure it by.")
    texts += _of_wide_bands(result, reached)
    if reached < 1:
        texts.append("That an outsider cannot tell: how sure the outputs are may still give the forgotten rows away.")
    if reached < 2:
        texts.append(f"That {it} is gone from inside: the features may still hold it, and a new last layer find it.")
    if reached < 3:
        texts.append(f"That {it} stays away: a few of its rows, or further training, may bring it back quickly.")
    if reached < 4:
        texts.append("That a stronger attacker fails, who trains many networks and compares them row by row.")
    return texts


def _of_wide_bands(result: Result, reached: int) -> list[str]:
    """Return how many findings the original passes as well, of levels above L0 that rest on few others."""
    told = []
    for level in range(1, reached + 1):
        of_level = [finding for finding in result.findings if finding.level == level]
        idle = sum(finding.informative is False for finding in of_level)
        if 2 * idle > len(of_level):
            told.append(f"{idle} of {len(of_level)} at level L{level}")
    if not told:
        return []
    return [
        f"That every finding inside is evidence: {' and '.join(told)} have the original inside their bands too, and "
        "cannot tell forgetting from doing nothing. With more retrained networks bands are narrower."
    ]


def of_any(result: Result) -> list[str]:
    """Return what no result proves."""
    texts = []
    bands = [finding for finding in result.findings if finding.band is not None]
    if bands:
        count = result.experiment.get("references")
        many = f"{count} retrained networks" if isinstance(count, int) else "few retrained networks"
        texts.append(
            f"That it equals a retrained network: a band says where one more of them is expected, and comes from "
            f"{many}. The fewer there are, the wider it is, and the less it means to be inside."
        )
    texts.append("Anything about other data: every number comes from the rows at hand.")
    texts.append(
        "Anything about what else holds the forgotten rows: copies, caches, earlier checkpoints, other networks."
    )
    texts.append("A bound on leakage, as differential privacy gives, or that a law is kept.")
    return texts
