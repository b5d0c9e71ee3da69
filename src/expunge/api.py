"""The Python interface: forget and audit, on any network and any data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from torch import nn
from torch.utils.data import DataLoader, Dataset

from expunge.case import Audit, Method, open_case
from expunge.data import Data, Request, Split, numbered, split
from expunge.errors import ModelError, RequestError, SettingsError
from expunge.experiment import DEFAULT_AUDITS
from expunge.forgetting import Forgotten, KeepOrDrop, headed
from expunge.guard import run_guarded
from expunge.hugging_face import Logits, bare, is_pretrained
from expunge.judging import judge
from expunge.network import rebuild
from expunge.outputs import count_outputs
from expunge.provenance import request_values
from expunge.result import Result
from expunge.rows import Rows, TakenRows, as_rows
from expunge.runtime import Progress, Runtime, open_runtime, silent
from expunge.settings import build as build_settings
from expunge.settings import describe

Source = Rows | Dataset[Any] | DataLoader[Any]


def forget(
    model: nn.Module,
    train: Source,
    *,
    classes: int | str | Sequence[int | str] = (),
    rows: int | Sequence[int] = (),
    method: str | Method = "unsir",
    labels: Iterable[int] | None = None,
    label_names: Sequence[str] | None = None,
    build: Callable[[], nn.Module] | None = None,
    head: KeepOrDrop = "keep",
    device: str = "auto",
    precision: str = "32-true",
    seed: int = 0,
    progress: Progress = silent,
) -> Forgotten:
    """Return a model that has forgotten classes or rows, with what that cost and read; `model` is left as it is.

    Args:
        model: Maps inputs (rows, ...) to logits (rows, classes), or is an image classifier of transformers.
        train: The training rows; the method sees only the parts that it declares.
        classes: Classes to forget, by index or name; one may stand without a list.
        rows: Or single rows of `train` to forget, by index.
        method: A method, or the name of one with its default settings.
        labels: Class index of every row of `train`, where the data set has no ``targets``.
        label_names: Names of the classes; without them, their indices.
        build: Makes the network anew with random weights, for methods that start afresh; without it, timm's factory
            or the modules' ``reset_parameters``.
        head: Whether the last layer keeps the outputs of forgotten classes; ``drop`` gives a model without them, whose
            outputs are the other classes, in their order.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: As Lightning Fabric names it.
        seed: Seed of all random streams.
        progress: How to show progress.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    if head not in get_args(KeepOrDrop):
        raise SettingsError(f"expected a head to keep or drop, got {head!r}")
    runtime = open_runtime(device=device, precision=precision, seed=seed, progress=progress)
    model = _giving_logits(model)
    parts = _split(model, as_rows(train, labels), None, classes, rows, label_names)
    chosen: Method = build_settings("methods", {"name": method}) if isinstance(method, str) else method
    fresh = rebuild(model) if build is None else lambda: _giving_logits(build())
    headed(model, parts, head)  # what cannot be dropped is told before the work
    made = run_guarded(chosen, model, parts, runtime, fresh)
    return replace(made, model=bare(headed(made.model, parts, head)))


def audit(
    original: nn.Module,
    unlearned: nn.Module | Forgotten,
    train: Source,
    test: Source,
    *,
    classes: int | str | Sequence[int | str] = (),
    rows: int | Sequence[int] = (),
    retrained: Sequence[nn.Module] = (),
    audits: Sequence[Audit] = DEFAULT_AUDITS,
    labels: Iterable[int] | None = None,
    test_labels: Iterable[int] | None = None,
    label_names: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "32-true",
    seed: int = 0,
    progress: Progress = silent,
) -> Result:
    """Return the evidence of how well a model has forgotten; no model is changed.

    Args:
        original: The model before.
        unlearned: The model after, or what `forget` returned, whose cost and reads then stand in the result.
        train: All training rows of the original.
        test: Rows that no model was trained on.
        classes: What was to be forgotten, as given to `forget`.
        rows: Or the single rows.
        retrained: Models trained without the forgotten rows; without at least two no level can be reached.
        audits: What to ask.
        labels: Class index of every row of `train`, where the data set has no ``targets``.
        test_labels: The same for `test`.
        label_names: Names of the classes; without them, their indices.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: As Lightning Fabric names it.
        seed: Seed of all random streams.
        progress: How to show progress.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    runtime: Runtime = open_runtime(device=device, precision=precision, seed=seed, progress=progress)
    made = unlearned if isinstance(unlearned, Forgotten) else None
    after = unlearned.model if isinstance(unlearned, Forgotten) else unlearned
    original, after, *retrained = (_giving_logits(model) for model in (original, after, *retrained))
    parts = _split(original, as_rows(train, labels), as_rows(test, test_labels), classes, rows, label_names)
    told = {
        "dataset": {"name": type(train).__name__},
        "network": {"name": type(bare(original)).__name__},
        "training": None,
        "request": request_values(parts),
        "method": made.method if made else None,
        "audits": [describe(audit) for audit in audits],
        "references": len(retrained),
        "seed": seed,
    }
    return judge(
        open_case(parts, original, after, retrained, runtime),
        audits,
        told,
        bill=made.bill if made else None,
        access=made.access if made else None,
        pictures=made.pictures if made else (),
    )


def _giving_logits(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):  # types are checked by few who call
        do = ": load it into its network first" if isinstance(model, Mapping) else ""
        raise ModelError(f"expected a network (torch.nn.Module), got {type(model).__name__}{do}")
    return Logits(model) if is_pretrained(model) else model


def _each(given: Any) -> tuple[Any, ...]:
    given = [given] if isinstance(given, int | str | np.integer) else given
    if not isinstance(given, Iterable):
        raise RequestError(f"expected a class, a row or a list of them to forget, got {given!r}")
    return tuple(int(one) if isinstance(one, np.integer) else one for one in given)


def _split(
    model: nn.Module,
    train: Rows,
    test: Rows | None,
    classes: int | str | Sequence[int | str],
    rows: int | Sequence[int],
    label_names: Sequence[str] | None,
) -> Split:
    request = Request(classes=_each(classes), rows=_each(rows))
    if label_names is None:
        label_names = numbered(train.labels)
    nothing = TakenRows(train, np.zeros(0, dtype=np.int64))
    parts = split(
        Data(train=train, test=nothing if test is None else test, label_names=tuple(label_names), input_size=()),
        request,
    )
    first, _ = parts["retain"].batch(np.zeros(1, dtype=np.int64))
    classes_out = count_outputs(model, first)
    if classes_out != len(label_names):
        names = tuple(label_names) + tuple(str(index) for index in range(len(label_names), classes_out))
        if classes_out < len(label_names):
            raise ModelError(f"expected {len(label_names)} outputs, one per class, got {classes_out}")
        label_names = names
    return Split(
        request=parts.request, label_names=tuple(label_names), input_size=tuple(first.shape[1:]), parts=parts.parts
    )
