"""Verdict: what a result shows, in plain words, and never more than it shows."""

from collections.abc import Sequence

from expunge.finding import AT_THE_EDGE, Finding, Miss
from expunge.report.titles import title
from expunge.report.wording import clip, listed, percent, span, value
from expunge.result import LEVELS, Level, Result, reached, to_lower

_ALIKE = {
    "L0": "its accuracies are in the range of networks retrained without {it} (level L0)",
    "L1": "its outputs look like those of networks retrained without {it} (level L1)",
    "L2": "its outputs and inner features look like those of networks retrained without {it} (level L2)",
    "L3": "its outputs, inner features and speed of relearning look like those of networks retrained without {it} "
    "(level L3)",
    "L4": "no test here, even over many networks, tells it from networks retrained without {it} (level L4)",
}
_LIMITS = {
    "L0": "This says nothing of its confidence or its inner features.",
    "L1": "This says nothing of its inner features.",
    "L2": "This says nothing of how fast {it} could be relearned.",
    "L3": "This says nothing of what tests over many networks would find.",
    "L4": "This is evidence, not proof.",
}
_CONTROL = "This is a control, not unlearning: head_mask only hides the output and leaves every feature in place."
_MISSES: dict[Miss | None, str] = {
    "memory left": "memory is left",
    "over-forgotten": "over-forgotten: less is left than in retrained networks",
    "damaged": "over-forgotten: what was to stay is damaged",
}
_UNTOLD = "The original network would pass too, so these numbers cannot tell forgetting from doing nothing."
_EDGE = "another seed or other rounding may judge otherwise"


def verdict(result: Result) -> str:
    """Return what the result shows as one text; see `sentences`."""
    return " ".join(sentences(result))


def sentences(result: Result) -> list[str]:
    """Return what the result shows: how the network now answers and whether retrained ones do so too; then the rest.

    The first sentence is the whole claim; what limits it, and the numbers, follow. The level is the one that the
    findings bear out, should the result state a higher one. The text is plain: names of classes are clipped and hold no
    control characters.
    """
    level = borne_out(result)
    it = "it" if len(forgotten_classes(result)) == 1 else "them"
    ending, *rest = _judged(result, level, it)
    texts = [f"{_answers(result)}{ending}", *rest, *_advice(result), *_numbers(result)]
    if LEVELS.index(level) < LEVELS.index(result.level):
        texts.append(f"The result states level {result.level}, which its findings do not bear out.")
    return [_CONTROL, *texts] if method_name(result) == "head_mask" else texts


def _advice(result: Result) -> list[str]:
    """Return what to do if the method did too much; nothing if it did not, or has no setting for it."""
    too_much = any(
        finding.miss in ("over-forgotten", "damaged") for finding in result.findings if finding.level is not None
    )
    method = result.experiment.get("method")
    setting = to_lower(method) if too_much and isinstance(method, dict) else None
    name = method_name(result)
    if setting is None or name is None:
        return []
    return [f"It did too much: lower {clip(setting)} of {clip(name)} and forget again."]


def borne_out(result: Result) -> Level:
    """Return the level that the result states, or the one that its findings reach if that is lower."""
    return min(result.level, reached(result.findings), key=LEVELS.index)


def forgotten_classes(result: Result) -> tuple[str, ...]:
    """Return the names of the classes that were to be forgotten; none if single rows were, or it is not known."""
    request = result.experiment.get("request")
    classes = request.get("classes") if isinstance(request, dict) else None
    names = []
    for item in classes if isinstance(classes, list | tuple) else ():
        index = str(item).removeprefix("#")
        known = item not in result.label_names and index.isdecimal() and int(index) < len(result.label_names)
        names.append(result.label_names[int(index)] if known else str(item))
    return tuple(names)


def asked(result: Result) -> str:
    """Return what was to be forgotten, ``class '3'``; of many classes, the first three by name."""
    names = [f"'{clip(name)}'" for name in forgotten_classes(result)]
    if names:
        few = [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else names
        return f"{'class' if len(names) == 1 else 'classes'} {listed(few)}"
    request = result.experiment.get("request")
    rows = request.get("rows") if isinstance(request, dict) else None
    if not isinstance(rows, list | tuple) or not rows:
        return "what is not known"
    corruption = corruption_name(result)
    if corruption is None:
        return f"{len(rows):,} single rows"
    known = result.experiment["corruption"].get("known")
    part = f", {percent(known)} of all" if isinstance(known, float) and known < 1 else ""
    return f"{len(rows):,} manipulated rows{part} ({clip(corruption)})"


def corruption_name(result: Result) -> str | None:
    """Return the name of the corruption that manipulated what was to be forgotten; None if there was none."""
    corruption = result.experiment.get("corruption")
    name = corruption.get("name") if isinstance(corruption, dict) else None
    return name if isinstance(name, str) else None


def method_name(result: Result) -> str | None:
    """Return the name of the method; None if the unlearned model was made elsewhere."""
    method = result.experiment.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    return name if isinstance(name, str) else None


def way(finding: Finding) -> str | None:
    """Return which way the unlearned network misses the retrained ones; None unless it is outside a known band."""
    if finding.inside is not False or finding.band is None or finding.unlearned is None:
        return None
    above = finding.unlearned > finding.band[1]
    if finding.name == "accuracy/forget_test" and above:
        return "still recognised"
    if finding.miss in _MISSES:
        return _MISSES[finding.miss]
    text = "higher than in retrained networks" if above else "lower than in retrained networks"
    if finding.original is None or _within(finding.original, finding):
        return text
    same_side = (finding.original > finding.band[1]) == above
    return f"{text}, {'on the side of the original' if same_side else 'further off than needed'}"


def _answers(result: Result) -> str:
    """Return how the network now answers, without a full stop."""
    label = _known(result, f"{corruption_name(result)}/memorised")
    if label is not None:
        some = "no longer gives any" if label.unlearned == 0 else f"still gives {percent(label.unlearned)}"
        before = percent(label.original)
        return f"The network {some} of the manipulated rows the label that was put on them (before: {before})"
    accuracy, rows = _forgotten(result)
    if accuracy is None:
        return f"What the network now answers on {rows} is not known"
    if accuracy.unlearned == 0:
        one = len(forgotten_classes(result)) == 1
        return (
            f"The network no longer outputs {asked(result)}" if one else f"The network is right on none of the {rows}"
        )
    right, retrained = percent(accuracy.unlearned), percent(accuracy.retrained)
    if accuracy.inside and accuracy.retrained is not None:
        alike = "as" if right == retrained else "much as"
        return f"The network is right on {right} of the {rows}, {alike} retrained networks are ({retrained})"
    return f"The network is still right on {right} of the {rows}"


def _numbers(result: Result) -> list[str]:
    """Return the accuracies of the network, with those of before, as a sentence; nothing if none is known."""
    accuracy, rows = _forgotten(result)
    kept = _known(result, "accuracy/retain_test")
    told = [(accuracy, rows)] if accuracy and _known(result, f"{corruption_name(result)}/memorised") is None else []
    told += [(kept, "retained test rows")] if kept else []
    texts = [f"on {percent(one.unlearned)} of the {of} (before: {percent(one.original)})" for one, of in told]
    return [f"It is right {listed(texts)}."] if texts else []


def _forgotten(result: Result) -> tuple[Finding | None, str]:
    """Return the accuracy on what was to be forgotten, test rows first, and what those rows are called."""
    classes, test = forgotten_classes(result), _known(result, "accuracy/forget_test")
    accuracy = test or _known(result, "accuracy/forget")
    if accuracy is None:
        return None, asked(result) if classes else "the forgotten rows"
    part = "test" if test else "training"
    return accuracy, f"{part} rows of {asked(result)}" if classes else f"forgotten {part} rows"


def _known(result: Result, name: str) -> Finding | None:
    return next((one for one in result.findings if one.name == name and one.unlearned is not None), None)


def _judged(result: Result, level: Level, it: str) -> list[str]:
    """Return how the network compares with retrained ones: the rest of the first sentence, and further sentences."""
    counted = [finding for finding in result.findings if finding.level is not None]
    if not counted:
        return ["; nothing was compared with retrained networks, so whether this is forgetting could not be judged."]
    if all(finding.inside is None for finding in counted):
        few = "two or more retrained networks are needed to judge whether this is forgetting, so it was not judged"
        if all(finding.retrained is None for finding in result.findings):
            few = "there is no retrained network to compare with, so whether this is forgetting could not be judged"
        return [f"; {few}."]
    passed = LEVELS.index(level)
    outside = [finding for finding in counted if finding.inside is False and (finding.level or 0) >= passed]
    unjudged = [finding for finding in counted if finding.inside is None and finding.level == passed]
    if level == "none":
        if outside:
            return [f", but it differs from networks retrained without {it}.", _misses("It differs in", outside)]
        if any(finding.level == 0 for finding in counted) and not any(finding.level == 0 for finding in unjudged):
            return [".", f"No level is reached: {_UNTOLD[0].lower()}{_UNTOLD[1:]}"]
        return [f"; level L0 could not be judged{_reason(unjudged)}, so no level is reached."]
    below = [finding for finding in counted if (finding.level or 0) < passed]
    texts = [f", and {_ALIKE[level]}.".replace("{it}", it)]
    texts += _near(below)
    if outside:
        texts.append(_misses("Beyond that it differs from them in", outside))
    elif unjudged:
        texts.append(f"Level L{passed} could not be judged{_reason(unjudged)}.")
    else:
        texts.append(_LIMITS[level].replace("{it}", it))
    if all(finding.original is not None and _within(finding.original, finding) for finding in below):
        texts.append(_UNTOLD)
    return texts


def _near(inside: Sequence[Finding]) -> list[str]:
    """Return that some of what the level rests on is at the edge of its band; nothing if none is."""
    number = sum(_at_the_edge(finding) for finding in inside)
    what = "one finding" if number == 1 else f"{number} findings"
    return [f"The level rests on {what} at the edge of the band: {_EDGE}."] if number else []


def _misses(beginning: str, outside: Sequence[Finding]) -> str:
    """Return the findings outside their bands as a sentence, three at most, lowest level first."""
    ordered = sorted(outside, key=lambda finding: finding.level or 0)
    texts = []
    for finding in ordered[:3]:
        name = title(finding.name)
        numbers = f"({value(finding.unlearned, finding.name)} against {span(finding.band, finding.name)})"
        told = " ".join(filter(None, (way(finding), numbers)))
        edge = f", at the edge of the band: {_EDGE}" if _at_the_edge(finding) else ""
        texts.append(f"{name[:1].lower()}{name[1:]}, {told}{edge}")
    more = f"; and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return f"{beginning}: {'; '.join(texts)}{more}."


def _at_the_edge(finding: Finding) -> bool:
    return AT_THE_EDGE in (finding.note or "")


def _reason(unjudged: Sequence[Finding]) -> str:
    notes = [clip(finding.note, 120) for finding in unjudged if finding.note]
    return f" ({notes[0]})" if notes else ""


def _within(number: float, finding: Finding) -> bool:
    return finding.band is not None and finding.band[0] <= number <= finding.band[1]
