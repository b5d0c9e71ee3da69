"""Subject: which models and data a result is about, by their hashes; and retrained models that cannot be such."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from torch import nn

from expunge.case import Case, Evidence
from expunge.data import Data, Part
from expunge.errors import ModelError
from expunge.fingerprints import glance, tensors_hash
from expunge.hugging_face import bare
from expunge.result import Subject, Weights

DOUBTED = 0.9
"""Share of the original's accuracy that a model reaches on retained and forgotten rows alike if it has seen both."""


def weights_of(model: nn.Module) -> Weights:
    """Return the hash of a model in memory: of its state dictionary, as its library names it."""
    return Weights(sha256=tensors_hash(bare(model).state_dict()), of="tensors")


def weights_in(digest: str) -> Weights:
    """Return the hash of a weights file, which is known already."""
    return Weights(sha256=digest, of="file")


def subject_of(
    original: Weights, unlearned: Weights, retrained: Sequence[Weights], data: Data, *, given: int = 0
) -> Subject:
    """Return what a result is about, with the time that it is now; of the data all labels and a few inputs are read.

    Args:
        original: Of the original.
        unlearned: Of the unlearned model.
        retrained: Of the retrained models.
        data: All rows, as they were before anything was forgotten.
        given: How many of the retrained models, the first ones, were supplied by the user.
    """
    return Subject(
        judged=datetime.now(UTC).isoformat(timespec="seconds"),
        original=original,
        unlearned=unlearned,
        retrained=tuple(retrained),
        given=given,
        data={"train": glance(data.train), "test": glance(data.test)},
    )


def check_apart(original: nn.Module, unlearned: nn.Module, retrained: Mapping[str, nn.Module]) -> None:
    """Refuse a retrained model with the weights of the original, of the unlearned model or of another.

    Args:
        original: The model before.
        unlearned: The model after.
        retrained: The others, by what to call them.

    Raises:
        ModelError: Two are the same, so that a band would be narrower, or wider, than retraining makes it.
    """
    seen = {
        weights_of(model).sha256: name
        for name, model in (("the unlearned model", unlearned), ("the original", original))
    }
    for name, model in retrained.items():
        digest = weights_of(model).sha256
        if digest in seen:
            raise ModelError(
                f"expected models retrained with seeds of their own, got {name} with the weights of {seen[digest]}: "
                "leave it out, or retrain with another seed"
            )
        seen[digest] = name


def doubts(case: Case, given: int) -> tuple[str, ...]:
    """Return which of the first retrained models seem to have seen what they are said never to have seen, a line each.

    For a request of classes: such a model has never been told to name the class, and names it on its rows by chance
    at most.
    """

    def right(evidence: Evidence, part: Part) -> float:
        return (evidence.logits[part].argmax(dim=1) == evidence.labels[part]).double().mean().item()

    def knows(evidence: Evidence) -> bool:
        # one that is trained too little to know anything may give all rows the forgotten class
        both: tuple[Part, ...] = ("retain", "forget")
        return all(right(evidence, part) > max(DOUBTED * right(case.original, part), 1 / 2) for part in both)

    if not case.split.request.classes:
        return ()
    return tuple(
        f"retrained model {number} is right on {right(evidence, 'forget'):.1%} of the rows that it should never have "
        f"seen, the original on {right(case.original, 'forget'):.1%}"
        for number, evidence in enumerate(case.retrained[:given], start=1)
        if knows(evidence)
    )
