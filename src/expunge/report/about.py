"""About: which models and data a result is of, when it was judged, and whether its settings make it again."""

from collections.abc import Mapping
from typing import Any

from expunge.report.wording import clip, count
from expunge.result import Result, Weights

KINDS = {"file": "of model.safetensors", "tensors": "of the tensors in memory"}


def about(result: Result) -> list[tuple[str, str]]:
    """Return facts of the request, the data and the time: what each is, and what it says."""
    facts = []
    earlier, steps = (result.experiment.get(key) for key in ("earlier", "steps"))
    if isinstance(earlier, Mapping):
        rows, requests = earlier.get("rows"), earlier.get("requests")
        many = len(requests) if isinstance(requests, list | tuple) else 0
        facts.append(
            ("Forgotten before", f"{count(rows if isinstance(rows, int) else None)} rows, in {many} earlier requests")
        )
    if isinstance(steps, list | tuple):
        facts.append(("Requests since the original", ", ".join(map(_step, steps[:20]))))
    dataset = result.experiment.get("dataset")
    if isinstance(dataset, Mapping) and isinstance(dataset.get("name"), str):
        facts.append(("Data", clip(dataset["name"])))
    if result.subject is not None:
        facts.append(("Judged", clip(result.subject.judged.replace("T", " ").replace("+00:00", " UTC"))))
    return facts


def hashes(result: Result) -> list[tuple[str, str]]:
    """Return the SHA-256 of every model and of the data: of what, and the digest; nothing if they are not known."""
    subject = result.subject
    if subject is None:
        return []
    models = [("original", subject.original), ("unlearned", subject.unlearned)]
    models += [(f"retrained {number}", one) for number, one in enumerate(subject.retrained, start=1)]
    halves = [(f"{half} rows", clip(digest, 64)) for half, digest in subject.data.items()]
    return [(f"{name}, {_kind(one)}", clip(one.sha256, 64)) for name, one in models] + [
        (f"{clip(half)}: labels, and up to 1000 inputs", digest) for half, digest in halves
    ]


def repeats(result: Result) -> bool:
    """Return whether the settings hold all that decides the result: those of `expunge run` do.

    An audit of models that were made before does not know how these came about. `run` alone tells of a population.
    """
    return "population" in result.experiment


def untold(result: Result) -> str:
    """Return why it is not known what the method read; nothing if it is."""
    if result.access is not None:
        return ""
    if "steps" in result.experiment:
        return "The network was made by several requests; what each took stands in the forget.json of its folder."
    return "The unlearned network was made elsewhere, so what it took is not known."


def _kind(weights: Weights) -> str:
    return KINDS[weights.of]


def _step(step: Any) -> str:
    method = step.get("method") if isinstance(step, Mapping) else None
    name = method.get("name") if isinstance(method, Mapping) else None
    return clip(name) if isinstance(name, str) else "not known"
