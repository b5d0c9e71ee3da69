"""Cases made by hand: evidence of given logits, so that every number of an audit can be worked out."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from expunge.case import Case, Evidence
from expunge.data import PARTS, Part, Split
from expunge.finding import Finding
from expunge.request import Request
from expunge.rows import TensorRows
from expunge.runtime import open_runtime

CLASSES = 4
FEATURES = 3
WIDTHS = {"early": 5, "head": 6}
SIZES: dict[Part, int] = {"retain": 60, "forget": 30, "retain_test": 24, "forget_test": 12}
Logits = Mapping[Part, Tensor]
Labels = Mapping[Part, Tensor]


def make_labels(sizes: Mapping[Part, int] = SIZES, forgotten: int = CLASSES - 1) -> dict[Part, Tensor]:
    """Return labels in turn: the forgotten class in the parts to forget, the others in the parts to keep."""
    kept = torch.tensor([index for index in range(CLASSES) if index != forgotten])
    return {
        part: torch.full((count,), forgotten) if part.startswith("forget") else kept[torch.arange(count) % len(kept)]
        for part, count in sizes.items()
    }


def make_logits(labels: Labels, seed: int, signal: float = 2.0) -> dict[Part, Tensor]:
    """Return normal random logits, that of the label raised by `signal`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        part: torch.randn(len(values), CLASSES, generator=generator)
        + signal * nn.functional.one_hot(values, CLASSES).float()
        for part, values in labels.items()
    }


def make_split(labels: Labels, request: Request) -> Split:
    """Return parts with these labels; the inputs of a class lie around a point of its own."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(CLASSES, FEATURES, generator=generator)
    parts = {
        part: TensorRows(centres[values] + torch.randn(len(values), FEATURES, generator=generator), values)
        for part, values in labels.items()
    }
    names = tuple("abcd")
    return Split(request=request, label_names=names, input_size=(FEATURES,), parts=parts)


def make_case(
    labels: Labels,
    original: Logits,
    unlearned: Logits,
    retrained: Sequence[Logits] = (),
    *,
    models: Sequence[nn.Module] = (),
    request: Request | None = None,
) -> Case:
    """Return a case of given logits; `models` are those of original, unlearned and retrained, in this order."""
    given = [original, unlearned, *retrained]
    models = models or [nn.Linear(FEATURES, CLASSES) for _ in given]
    evidence = [
        Evidence(model=model, logits=logits, labels=labels) for logits, model in zip(given, models, strict=True)
    ]
    return Case(
        split=make_split(labels, request or Request(classes=(CLASSES - 1,))),
        original=evidence[0],
        unlearned=evidence[1],
        retrained=tuple(evidence[2:]),
        runtime=open_runtime(device="cpu"),
    )


def random_case(sizes: Mapping[Part, int] = SIZES, *, references: int = 4, request: Request | None = None) -> Case:
    """Return a case of random logits, all different."""
    labels = make_labels(sizes)
    logits = [make_logits(labels, seed) for seed in range(2 + references)]
    return make_case(labels, logits[0], logits[1], logits[2:], request=request)


def featured_case(
    references: int = 4, sizes: Mapping[Part, int] = SIZES, *, same: bool = False, request: Request | None = None
) -> Case:
    """Return a case whose models have random features at two depths, around a point for each class.

    Every model has points of its own, or with `same` all but the unlearned have the original's.
    """
    labels = make_labels(sizes)
    logits = [make_logits(labels, seed) for seed in range(2 + references)]
    models = [nn.Linear(WIDTHS["head"], CLASSES) for _ in logits]
    case = make_case(labels, logits[0], logits[1], logits[2:], models=models, request=request)

    def with_features(evidence: Evidence, seed: int) -> Evidence:
        own = torch.Generator().manual_seed(0 if same and seed != 1 else 100 + seed)
        noise = torch.Generator().manual_seed(200 + seed)
        points = {depth: 0.7 * torch.randn(CLASSES, width, generator=own) for depth, width in WIDTHS.items()}
        features = {
            depth: {
                part: points[depth][values] + torch.randn(len(values), width, generator=noise)
                for part, values in labels.items()
            }
            for depth, width in WIDTHS.items()
        }
        return replace(evidence, features=features, feature_labels=labels)

    original, unlearned, *retrained = (with_features(one, seed) for seed, one in enumerate(case.models))
    return replace(case, original=original, unlearned=unlearned, retrained=tuple(retrained))


def row_case(references: int = 4) -> Case:
    """Return a case of random logits whose request is of single rows of all classes: no test row is to be forgotten."""
    labels = make_labels(SIZES | {"forget_test": 0})
    labels["forget"] = torch.arange(len(labels["forget"])) % 3
    logits = [make_logits(labels, seed) for seed in range(2 + references)]
    return make_case(labels, logits[0], logits[1], logits[2:], request=Request(rows=tuple(range(30))))


def permuted(case: Case) -> Case:
    """Return the same case with the rows of every part in another order."""
    generator = torch.Generator().manual_seed(1)
    orders = {part: torch.randperm(len(case.original.labels[part]), generator=generator) for part in PARTS}

    def reorder(evidence: Evidence) -> Evidence:
        return replace(
            evidence,
            logits={part: evidence.logits[part][orders[part]] for part in PARTS},
            labels={part: evidence.labels[part][orders[part]] for part in PARTS},
            features={
                depth: {part: values[part][orders[part]] for part in PARTS}
                for depth, values in evidence.features.items()
            },
            feature_labels={part: values[orders[part]] for part, values in evidence.feature_labels.items()},
        )

    return replace(
        case,
        original=reorder(case.original),
        unlearned=reorder(case.unlearned),
        retrained=tuple(reorder(evidence) for evidence in case.retrained),
        unlearned_population=tuple(reorder(evidence) for evidence in case.unlearned_population),
    )


def by_name(findings: Sequence[Finding]) -> dict[str, Finding]:
    """Return findings by their names, each of which there is once."""
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings)
    return named


def assert_same_numbers(first: Sequence[Finding], second: Sequence[Finding]) -> None:
    """Compare findings, up to the rounding of sums in another order."""
    for one, other in zip(first, second, strict=True):
        assert (one.name, one.level, one.inside, one.note) == (other.name, other.level, other.inside, other.note)
        for number in ("original", "unlearned", "retrained", "band"):
            assert getattr(one, number) == pytest.approx(getattr(other, number)), f"{one.name}: {number}"


def state(case: Case) -> list[object]:
    """Return all that an audit must leave alone: weights, buffers, gradients, modes, global random state."""
    found: list[object] = [torch.get_rng_state().tolist()]
    for evidence in case.models:
        model = evidence.model
        found.append({name: value.tolist() for name, value in copy.deepcopy(model.state_dict()).items()})
        found.append([(weight.grad is None, weight.requires_grad) for weight in model.parameters()])
        found.append([module.training for module in model.modules()])
        found.append({part: (evidence.logits[part].tolist(), evidence.labels[part].tolist()) for part in PARTS})
        found.append({depth: [values[part].tolist() for part in PARTS] for depth, values in evidence.features.items()})
    return found
