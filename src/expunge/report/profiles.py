"""Profiles: findings of one quantity at several depths, joined into one chart from the input to the head."""

from collections.abc import Sequence
from dataclasses import replace

from expunge.finding import Finding, Series

PROFILES = {
    "similarity/original/": "likeness of features to the original\u2019s (CKA) on rows to forget, by depth",
    "similarity/retrained/": "likeness of features to retrained ones (CKA) on rows to forget, by depth",
    "probe/forget_test/": "accuracy of a new linear layer on rows to forget, by depth",
}


def profiles(findings: Sequence[Finding]) -> list[Finding]:
    """Return a finding with a series over depths for each quantity that is known at two depths or more.

    Retrained networks are known by their mean alone, and have no range.
    """
    made = []
    for prefix, axis in PROFILES.items():
        own = [one for one in findings if one.name.startswith(prefix)]
        columns = [(one.original, one.unlearned, one.retrained) for one in own]
        known = [tuple(number for number in row if number is not None) for row in zip(*columns, strict=True)]
        if len(own) < 2 or len(known[0]) < len(own) or len(known[1]) < len(own):
            continue
        series = Series(
            x=tuple(one.name.removeprefix(prefix) for one in own),
            axis=axis,
            original=known[0],
            unlearned=known[1],
            retrained=(known[2],) if len(known[2]) == len(own) else (),
        )
        made.append(replace(own[-1], series=series))
    return made
