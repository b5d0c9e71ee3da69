"""Experiment: the whole story on one page, from data to result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from torch import nn

from expunge.audits.accuracy import Accuracy
from expunge.audits.batch_norm import BatchNorm
from expunge.audits.few_shot import FewShot
from expunge.audits.head import Head
from expunge.audits.head_bias import HeadBias
from expunge.audits.information import Information
from expunge.audits.inversion import Inversion
from expunge.audits.membership import Membership
from expunge.audits.prediction import Prediction
from expunge.audits.probe import Probe
from expunge.audits.prototypes import Prototypes
from expunge.audits.quantization import Quantization
from expunge.audits.query import Query
from expunge.audits.relearning import Relearning
from expunge.audits.similarity import Similarity
from expunge.audits.weight_noise import WeightNoise
from expunge.audits.weights import Weights
from expunge.cache import Cache
from expunge.case import Audit, Method, open_case
from expunge.checkpoint import load_model, save_model
from expunge.corruption import Corruption, make_task
from expunge.data import PARTS, Data, Split
from expunge.datasets import Dataset
from expunge.datasets.digits import Digits
from expunge.errors import SettingsError
from expunge.files import RESULT, check_free, file_hash, new_folder
from expunge.forgetting import KeepOrDrop, check_takes_rows, dropped, headed, run_method
from expunge.guard import guarded
from expunge.judging import judge
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir
from expunge.model_files import WEIGHTS
from expunge.network import Network, rebuild
from expunge.population import HERE, Recipe, Workers, grow_both, member_seed
from expunge.population import retrain as retrain
from expunge.provenance import entry, head_values, request_values, with_retraining
from expunge.report.page import render
from expunge.request import Request
from expunge.result import Result
from expunge.resume import resumable
from expunge.runtime import Runtime
from expunge.settings import build, describe, from_mapping, settings, to_mapping
from expunge.subject import subject_of, weights_in
from expunge.training import Training, fit
from expunge.views import View, check_views

DEFAULT_AUDITS: tuple[Audit, ...] = (
    Accuracy(),
    Prediction(),
    Membership(),
    Probe(),
    Prototypes(),
    Similarity(),
    Information(),
    Head(),
    HeadBias(),
    Quantization(),
    BatchNorm(),
    WeightNoise(),
    Relearning(),
    FewShot(),
    Inversion(),
    Query(),
    Weights(),
)
DEFAULT_REQUEST = Request(classes=(3,))
BOTH = "expected a request or a corruption, got both: a corruption makes the request from the rows that it manipulates"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run from data to result; a TOML file is one spelling of it."""

    dataset: Dataset = field(default_factory=Digits)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)
    """How the original is trained, and every retrained model."""
    request: Request = DEFAULT_REQUEST
    """What to forget; with a corruption, the rows that it manipulates instead."""
    corruption: Corruption | None = None
    """How training rows are manipulated before anything is trained, so as to be forgotten; None leaves the data be."""
    method: Method = field(default_factory=Unsir)
    head: KeepOrDrop = "keep"
    """Whether the unlearned model's last layer keeps the outputs of forgotten classes, or they are dropped."""
    audits: tuple[Audit, ...] = DEFAULT_AUDITS
    references: int = 5
    """Number of models retrained with other seeds; two or more give bands."""
    population: int = 0
    """Number of further unlearned models, each from an original of its own; audits of populations need them."""
    stacked: int = 0
    """The most small networks of a population to train at once, as one stack; 0 trains one after another."""
    views: tuple[View, ...] = ()
    """What to draw beside the findings that is not drawn by itself."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_views(self.views)
        if self.corruption is not None and self.request != DEFAULT_REQUEST:
            raise SettingsError(BOTH)


def experiment_from(values: Mapping[str, Any]) -> Experiment:
    """Return the experiment that plain values, as read from TOML, describe.

    Tables are ``dataset``, ``network``, ``training``, ``method``, and ``request`` or ``corruption``; ``audits`` is a
    list of names or of tables with a name, ``views`` one of names; ``head`` is ``"keep"`` or ``"drop"``;
    ``references``, ``population``, ``stacked`` and ``seed`` are numbers. What is left out has its default.

    Raises:
        SettingsError: A key or a setting is unknown or wrong.
    """
    read: dict[str, Callable[[Any], Any]] = {
        "dataset": lambda value: build("datasets", value),
        "network": lambda value: from_mapping(Network, value),
        "training": lambda value: from_mapping(Training, value),
        "request": lambda value: from_mapping(Request, value),
        "corruption": lambda value: build("corruptions", value),
        "method": lambda value: build("methods", value),
        "head": lambda value: from_mapping(_Plain, {"head": value}).head,
        "audits": _audits_from,
        "references": lambda value: from_mapping(_Plain, {"references": value}).references,
        "population": lambda value: from_mapping(_Plain, {"population": value}).population,
        "stacked": lambda value: from_mapping(_Plain, {"stacked": value}).stacked,
        "views": lambda value: from_mapping(_Plain, {"views": value}).views,
        "seed": lambda value: from_mapping(_Plain, {"seed": value}).seed,
    }
    for key, value in values.items():
        if key not in read:
            raise SettingsError(f"expected a key of an experiment, got {key!r} (known: {', '.join(read)})")
        if key not in PLAIN and not isinstance(value, Mapping):
            raise SettingsError(f"expected a table [{key}], got {value!r}")
    if {"request", "corruption"} <= values.keys():
        raise SettingsError(BOTH)
    experiment = Experiment(**{key: read[key](value) for key, value in values.items()})
    if isinstance(experiment.method, Retrain) and "training" not in values.get("method", {}):
        return replace(experiment, method=Retrain(training=experiment.training))
    return experiment


def _audits_from(value: Any) -> tuple[Audit, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str | Mapping) for item in value):
        raise SettingsError(f"expected audits as a list of names or of tables with a name, got {value!r}")
    return tuple(build("audits", {"name": item} if isinstance(item, str) else item) for item in value)


PLAIN = ("head", "audits", "references", "population", "stacked", "views", "seed")
"""Keys of an experiment that are no tables."""


@settings
class _Plain:
    head: KeepOrDrop = "keep"
    references: Annotated[int, Ge(0)] = 5
    population: Annotated[int, Ge(0)] = 0
    stacked: Annotated[int, Ge(0)] = 0
    views: tuple[View, ...] = ()
    seed: int = 0


def run(
    experiment: Experiment,
    runtime: Runtime,
    out: Path,
    *,
    overwrite: bool = False,
    cache: Cache | None = None,
    workers: Workers = HERE,
) -> Result:
    """Train, forget, retrain, audit and report.

    With a corruption, the original is trained on the corrupted data, the method is told of the manipulated rows that it
    names, and the references are trained without any manipulated row.

    Args:
        experiment: What to run.
        runtime: Where; its seed is the experiment's.
        out: The folder to make: ``original/``, ``unlearned/``, ``retrained-1/`` ..., ``result.json``, ``report.html``.
        overwrite: Replace what is there.
        cache: Where to look for the retrained models and the population first; None trains them all.
        workers: Who trains them.

    Raises:
        ExpungeError: Something that the caller can put right; nothing is left in `out`.
    """
    check_free(out, overwrite=overwrite)
    runtime = runtime.fresh(seed=experiment.seed)
    task = make_task(experiment.dataset.load(), experiment.request, experiment.corruption, runtime)
    data, parts = task.data, task.asked
    check_takes_rows(experiment.method, parts, runtime, lambda: experiment.network.build(data))
    told = to_values(experiment, parts)
    rows = (data.train, data.test)
    with (
        resumable(runtime, out, {"command": "run", **told}, rows) as runtime,
        new_folder(out, overwrite=overwrite) as folder,
    ):
        original = train(experiment.network, data, experiment.training, runtime)
        about = {"training": to_mapping(experiment.training)}
        save_model(original, folder / "original", data, about | corruption_values(experiment))
        parent = load_model(folder / "original", builder=experiment.network.name)
        headed(original, parts, experiment.head)  # what cannot be dropped is told before the work

        forgotten = run_method(experiment.method, original, parts, runtime, rebuild(original))
        forgotten = guarded(forgotten, experiment.method, original, parts, runtime)
        unlearned = headed(forgotten.model, parts, experiment.head)
        save_model(
            unlearned,
            folder / "unlearned",
            data,
            parent.child(entry(forgotten.method, parts, experiment.seed, experiment.head)),
            dropped=dropped(parts, experiment.head),
        )

        references, population = grow_both(
            recipe_for(experiment, original, data, task.whole),
            experiment.method,
            parts,
            experiment.references,
            experiment.population,
            runtime,
            cache=cache,
            workers=workers,
        )
        retrained = [f"retrained-{number}" for number in range(1, 1 + len(references))]
        retraining = describe(Retrain(training=experiment.training))
        for number, (name, reference) in enumerate(zip(retrained, references, strict=True), start=1):
            done = entry(retraining, task.whole, member_seed(experiment.seed, number), "keep")
            save_model(reference.model, folder / name, data, about | {"history": [done], "parent": parent.hash})

        case = open_case(
            task.whole,
            original,
            unlearned,
            [reference.model for reference in references],
            runtime,
            population=[member.model for member in population],
        )
        hashed = [weights_in(file_hash(folder / name / WEIGHTS)) for name in ("original", "unlearned", *retrained)]
        result = judge(
            case,
            experiment.audits,
            told,
            subject_of(hashed[0], hashed[1], hashed[2:], data),
            scores=experiment.corruption.score(case, task.corrupted)
            if experiment.corruption and task.corrupted
            else (),
            bill=with_retraining(forgotten.bill, references),
            access=forgotten.access,
            pictures=forgotten.pictures,
            views=experiment.views,
        )
        result = replace(result, rows={part: len(parts[part]) for part in PARTS})  # as the method was told of them
        (folder / RESULT).write_text(result.to_json(), encoding="utf-8")
        (folder / "report.html").write_text(render(result), encoding="utf-8")
    return result


def train(network: Network, data: Data, training: Training, runtime: Runtime) -> nn.Module:
    """Return a network trained on all training rows."""
    with runtime.seeded("train/init"):
        model = network.build(data)
    fit(model, data.train, runtime, training, stage="train")
    return model


def recipe_for(experiment: Experiment, network: nn.Module, data: Data, parts: Split) -> Recipe:
    """Return the recipe of an experiment's retrained models; `network` gives their architecture."""
    return Recipe(
        network=network,
        dataset=experiment.dataset,
        data=data,
        parts=parts,
        training=experiment.training,
        method=Retrain(training=experiment.training),
        stacked=experiment.stacked,
    )


def to_values(experiment: Experiment, parts: Split) -> dict[str, Any]:
    """Return an experiment as plain values, classes as indices."""
    return {
        "dataset": describe(experiment.dataset),
        "network": to_mapping(experiment.network),
        "training": to_mapping(experiment.training),
        "request": request_values(parts.request),
        **corruption_values(experiment),
        "method": describe(experiment.method),
        **head_values(experiment.head),
        "audits": [describe(audit) for audit in experiment.audits],
        "references": experiment.references,
        "population": experiment.population,
        "stacked": experiment.stacked,
        **({"views": list(experiment.views)} if experiment.views else {}),
        "seed": experiment.seed,
    }


def corruption_values(experiment: Experiment) -> dict[str, Any]:
    """Return the corruption of an experiment as plain values under its key; nothing if there is none."""
    return {"corruption": describe(experiment.corruption)} if experiment.corruption else {}
