"""Card: a result as the README.md of a model on the Hugging Face hub, which names nobody.

The names and numbers of forgotten classes are withheld: a class may be a person. What a model folder itself still says,
above all the label names in its ``config.json``, is told to be looked at. See https://huggingface.co/docs/hub/model-cards.
"""

from collections.abc import Iterator
from dataclasses import replace

from huggingface_hub import ModelCardData

from expunge.finding import Finding
from expunge.report.limits import limits
from expunge.report.titles import title
from expunge.report.verdict import borne_out, forgotten_classes, method_name, verdict
from expunge.report.wording import count, span, value
from expunge.result import Result

WHERE = ("retain", "forget")
CONFIG = (
    "`config.json` of this folder holds the label names, and the history of requests by class or row. Look at them "
    "before the folder is given away: a name can be what was to be forgotten."
)


def render_card(result: Result) -> str:
    """Return the card as Markdown with its metadata in front, in YAML."""
    hidden = without_names(result)
    data = ModelCardData(library_name="timm", tags=["machine-unlearning", "expunge"])
    sections = [
        f"---\n{data.to_yaml()}\n---",
        "# An unlearned model",
        verdict(hidden),
        "## What was forgotten",
        _forgotten(result),
        "## How",
        "\n".join(f"- {line}" for line in _how(result)),
        f"## Evidence: level {borne_out(result)}",
        _table([finding for finding in result.findings if finding.level is not None]),
        "## What this does not prove",
        "\n".join(f"- {line}" for line in limits(result)),
        "## Before it is given away",
        CONFIG,
    ]
    return "\n\n".join(sections) + "\n"


def without_names(result: Result) -> Result:
    """Return a result that does not tell which classes were forgotten, neither by name nor by number."""
    number = len(forgotten_classes(result))
    if not number:
        return result
    names = ["name withheld"] if number == 1 else [f"name {n} withheld" for n in range(1, number + 1)]
    request = {**result.experiment["request"], "classes": names}
    return replace(result, experiment={**result.experiment, "request": request}, label_names=())


def _forgotten(result: Result) -> str:
    classes = len(forgotten_classes(result))
    rows = result.rows.get("forget")
    what = (
        f"{classes} {'class' if classes == 1 else 'classes'} of {len(result.label_names)}" if classes else "single rows"
    )
    return f"By request: {what}" + (f", {count(rows)} training rows." if rows else ".")


def _how(result: Result) -> Iterator[str]:
    yield f"Method: {method_name(result) or 'not known'}, by expunge {result.environment.get('expunge', 'not known')}."
    if result.access is None:
        yield "What the method read is not known: it ran elsewhere."
        return
    for part in WHERE:
        read = result.access.get(part, {"rows": 0, "reads": 0})
        kind = "retained" if part == "retain" else "forgotten"
        yield f"Rows read of the {kind} data: {count(read['rows'])} ({count(read['reads'])} reads)."
    cost = result.cost
    if cost is not None and cost.epoch_equivalents is not None:
        yield f"Cost: {cost.epoch_equivalents:.3g} epochs of training."


def _table(findings: list[Finding]) -> str:
    if not findings:
        return "Nothing was compared with retrained networks."
    head = "| finding | original | unlearned | retrained | band | judged |\n|---|---|---|---|---|---|"
    return "\n".join([head, *map(_row, findings)])


def _row(finding: Finding) -> str:
    judged = {True: "inside", False: finding.miss or "outside", None: "not judged"}[finding.inside]
    judged += ", as the original is" if finding.inside and finding.informative is False else ""
    numbers = (value(number, finding.name) for number in (finding.original, finding.unlearned, finding.retrained))
    cells = [title(finding.name), *numbers, span(finding.band, finding.name), judged]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
