"""Judging: audits run on a case, and all that is known put into a result."""

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.access import Count
from expunge.case import Audit, Case
from expunge.data import PARTS, Part
from expunge.finding import Finding
from expunge.provenance import as_reads
from expunge.result import Bill, Picture, Result, Subject, environment, findings_from_json, findings_to_json, reached
from expunge.settings import describe
from expunge.subject import doubts
from expunge.views import View, look


def judge(
    case: Case,
    audits: Sequence[Audit],
    told: Mapping[str, Any],
    subject: Subject,
    *,
    scores: Sequence[Finding] = (),
    bill: Bill | None = None,
    access: Mapping[Part, Count] | None = None,
    pictures: tuple[Picture, ...] = (),
    views: Sequence[View] = (),
) -> Result:
    """Run audits on a case and put everything into a result.

    Args:
        case: The models and their evidence.
        audits: What to ask.
        told: What is known of how the models came about: the result's ``experiment``.
        subject: Which models and data these are.
        scores: Findings that stand before those of the audits.
        bill: What forgetting cost, if known.
        access: What it read, if known.
        pictures: What the method left to show.
        views: What to draw besides.
    """
    findings = list(scores)
    with case.runtime.progress("audits", len(audits)) as advance:
        for audit in audits:
            findings += _ask(audit, case)
            advance(1)
    case.runtime.tracking.findings(findings)
    doubted = doubts(case, subject.given)
    for doubt in doubted:
        case.runtime.tell(doubt)
    return Result(
        experiment=dict(told),
        label_names=case.split.label_names,
        rows={part: len(case.split[part]) for part in PARTS},
        findings=tuple(findings),
        cost=bill,
        access=None if access is None else as_reads(access),
        level=reached(findings),
        images=pictures,
        environment=environment(str(case.runtime.device)),
        views=look(case, views),
        subject=subject,
        doubts=doubted,
    )


def _ask(audit: Audit, case: Case) -> list[Finding]:
    """Return the findings of an audit, from the journal if it was done before the command was killed."""
    journal = case.runtime.journal
    if journal is None:
        return audit(case)
    text = journal.remembered(lambda: findings_to_json(audit(case)), "audit", describe(audit))
    return findings_from_json(text)
