"""Recovery: what the audits of level 3 share: rows to watch, and how well changed copies of a model do on them."""

from collections.abc import Callable, Hashable, Iterable
from statistics import fmean

import torch
from torch import nn

from expunge.audits.accuracy import accuracy
from expunge.case import Case, Evidence
from expunge.data import Part
from expunge.finding import Finding
from expunge.rows import Rows, TakenRows
from expunge.runtime import Runtime
from expunge.training import predict

Change = Callable[[nn.Module], Iterable[nn.Module]]
"""Makes changed copies of a model, one or several, and leaves the model as it was."""


def forgotten_part(case: Case) -> Part:
    """Return where it is measured whether what was forgotten comes back: unseen rows if there are any."""
    return "forget" if case.missing("forget_test") else "forget_test"


def choose(rows: Rows, count: int, runtime: Runtime, stream: str) -> Rows:
    """Return at most `count` rows, drawn at random from a stream if there are more."""
    if len(rows) <= count:
        return rows
    return TakenRows(rows, torch.randperm(len(rows), generator=runtime.generator(stream)).numpy()[:count])


def after_change(
    case: Case, key: Hashable, name: str, change: Change, *, level: int | None, words: str, rows: int
) -> list[Finding]:
    """Return the accuracy on forgotten and on kept unseen rows, each the mean over the changed copies of a model.

    Args:
        case: The models.
        key: The audit.
        name: Audit and change; the part is appended, and names the stream that rows are drawn from.
        change: What is done to each model.
        level: What the forgotten part counts for; the kept part informs.
        words: What was done, as in ``"after its weights are rounded to 4 bits"``.
        rows: The most rows that each part is measured on.
    """
    parts: tuple[Part, Part] = (forgotten_part(case), "retain_test")
    watched = {part: choose(case.split[part], rows, case.runtime, f"{name}/{part}") for part in parts}

    def measure(evidence: Evidence) -> dict[Part, float | None]:
        found: dict[Part, list[float]] = {part: [] for part in parts}
        for model in change(evidence.model):
            for part in parts:
                if len(watched[part]):
                    found[part].append(accuracy(*predict(model, watched[part], case.runtime)))
        return {part: fmean(values) if values else None for part, values in found.items()}

    known = case.each((key, name), measure)
    findings = []
    for part in parts:
        forgotten, missing = part != "retain_test", case.missing(part)
        measured = case.measure(
            f"{name}/{part}",
            lambda evidence, part=part: known[evidence][part],  # type: ignore[misc]
            level=level if forgotten and not missing else None,
            meaning=f"Share of rows {'to forget' if forgotten else 'to keep'} that the model gets right {words}.",
            higher="memory" if forgotten else "kept",
            note=missing or (f"measured on {part}" if part == "forget" else None),
            limits=(0.0, 1.0),
            step=1 / max(1, len(watched[part])),
        )
        findings.append(measured)
    return findings
