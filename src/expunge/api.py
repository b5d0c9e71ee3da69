"""The Python interface: forget and audit, on any network and any data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from torch import nn
from torch.jit import ScriptModule
from torch.utils.data import DataLoader, Dataset

from expunge.case import Audit, Method, open_case
from expunge.data import Data, Split, numbered, split
from expunge.errors import ModelError, RequestError, SettingsError
from expunge.experiment import DEFAULT_AUDITS
from expunge.forgetting import Forgotten, KeepOrDrop, headed
from expunge.guard import run_guarded
from expunge.history import Entry, as_left, judged, since, trained_without
from expunge.hugging_face import Logits, bare, is_pretrained
from expunge.judging import judge
from expunge.network import rebuild
from expunge.outputs import count_outputs
from expunge.provenance import earlier_values, entry, head_values, request_values
from expunge.request import Request
from expunge.result import Result
from expunge.rows import Rows, TakenRows, as_rows
from expunge.runtime import Progress, Runtime, open_runtime, silent
from expunge.settings import build as build_settings
from expunge.settings import describe, to_mapping
from expunge.subject import check_apart, subject_of, weights_of

Source = Rows | Dataset[Any] | DataLoader[Any]


def forget(
    model: nn.Module | Forgotten,
    train: Source,
    *,
    classes: int | str | Sequence[int | str] = (),
    rows: int | Sequence[int] = (),
    method: str | Method = "unsir",
    labels: Iterable[int] | None = None,
    label_names: Sequence[str] | None = None,
    build: Callable[[], nn.Module] | None = None,
    head: KeepOrDrop = "keep",
    earlier: Sequence[Request] = (),
    device: str = "auto",
    precision: str = "32-true",
    seed: int = 0,
    progress: Progress = silent,
) -> Forgotten:
    """Return a model that has forgotten classes or rows, with what that cost and read; `model` is left as it is.

    Args:
        model: Maps inputs (rows, ...) to logits (rows, classes), or is an image classifier of transformers; or what
            `forget` returned, whose requests then are earlier ones.
        train: All training rows of the original; the method sees only the parts that it declares.
        classes: Classes to forget, by index or name; one may stand without a list.
        rows: Or single rows of `train` to forget, by index.
        method: A method, or the name of one with its default settings.
        labels: Class index of every row of `train`, where the data set has no ``targets``.
        label_names: Names of the classes; without them, their indices.
        build: Makes the network anew with random weights, for methods that start afresh; without it, timm's factory
            or the modules' ``reset_parameters``.
        head: Whether the last layer keeps the outputs of forgotten classes; ``drop`` gives a model without them, whose
            outputs are the other classes, in their order.
        earlier: What the model was made to forget before, if it is a plain network: these rows are not read.
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
    before = _before(model, earlier)
    kept = model.statistics if isinstance(model, Forgotten) else None
    model = _network(model)
    given = _Given(train=as_rows(train, labels), test=None, label_names=label_names)
    parts = _split(model, given.left(before), Request(classes=_each(classes), rows=_each(rows)), absent=True)
    chosen: Method = build_settings("methods", {"name": method}) if isinstance(method, str) else method
    fresh = rebuild(model) if build is None else lambda: _giving_logits(build())
    headed(model, parts, head)  # what cannot be dropped is told before the work
    made = run_guarded(chosen, model, parts, runtime, fresh, statistics=kept)
    done = entry(made.method, parts, seed, head)
    return replace(made, model=bare(headed(made.model, parts, head)), history=(*before, done))


def audit(
    original: nn.Module | Forgotten,
    unlearned: nn.Module | Forgotten,
    train: Source,
    test: Source,
    *,
    classes: int | str | Sequence[int | str] = (),
    rows: int | Sequence[int] = (),
    retrained: Sequence[nn.Module | Forgotten] = (),
    audits: Sequence[Audit] = DEFAULT_AUDITS,
    labels: Iterable[int] | None = None,
    test_labels: Iterable[int] | None = None,
    label_names: Sequence[str] | None = None,
    earlier: Sequence[Request] = (),
    device: str = "auto",
    precision: str = "32-true",
    seed: int = 0,
    progress: Progress = silent,
) -> Result:
    """Return the evidence of how well a model has forgotten; no model is changed.

    Args:
        original: The model before, or what `forget` returned, to judge a later request alone.
        unlearned: The model after, or what `forget` returned, whose cost and reads then stand in the result.
        train: All training rows of the original.
        test: Rows that no model was trained on.
        classes: What was to be forgotten, as given to `forget`; of several requests since the original, all of it.
        rows: Or the single rows. With neither, it is what `forget` was asked for.
        retrained: Models trained without the forgotten rows, or what `forget` by ``retrain`` returned; without at least
            two no level can be reached.
        audits: What to ask.
        labels: Class index of every row of `train`, where the data set has no ``targets``.
        test_labels: The same for `test`.
        label_names: Names of the classes; without them, their indices.
        earlier: What the original was made to forget before, if it is a plain network: these rows are not read.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: As Lightning Fabric names it.
        seed: Seed of all random streams.
        progress: How to show progress.

    Raises:
        ExpungeError: Something that the caller can put right.
    """
    runtime: Runtime = open_runtime(device=device, precision=precision, seed=seed, progress=progress)
    before = _before(original, earlier)
    after = unlearned.history if isinstance(unlearned, Forgotten) else ()
    given = _Given(train=as_rows(train, labels), test=as_rows(test, test_labels), label_names=label_names)
    steps = since(given.left(()), before, after)
    made = unlearned if isinstance(unlearned, Forgotten) and len(steps) < 2 else None
    original, new, *others = map(_network, (original, unlearned, *retrained))
    names = [f"retrained model {number}" for number in range(1, 1 + len(others))]
    check_apart(original, new, dict(zip(names, others, strict=True)))
    data = given.left(before)
    asked = Request(classes=_each(classes), rows=_each(rows)) if classes != () or rows != () else None
    parts = _split(original, data, judged(asked, data, steps, "the unlearned model"))
    wanted = [*before, {"request": request_values(parts.request)}]
    for name, one in zip(names, retrained, strict=True):
        trained_without(given.left(()), one.history if isinstance(one, Forgotten) else (), wanted, name)
    told = {
        "dataset": {"name": type(train).__name__},
        "network": {"name": type(bare(original)).__name__},
        "training": None,
        "request": request_values(parts.request),
        **earlier_values(parts),
        "method": made.method if made else None,
        **({"steps": list(steps)} if len(steps) > 1 else {}),
        **(head_values(steps[-1].get("head", "keep")) if steps else {}),
        "audits": [describe(audit) for audit in audits],
        "references": len(others),
        "seed": seed,
    }
    hashed = list(map(weights_of, (original, new, *others)))
    about = subject_of(hashed[0], hashed[1], hashed[2:], given.left(()), given=len(others))
    return judge(
        open_case(parts, original, new, others, runtime),
        audits,
        told,
        about,
        bill=made.bill if made else None,
        access=made.access if made else None,
        pictures=made.pictures if made else (),
    )


@dataclass(frozen=True, kw_only=True)
class _Given:
    """The caller's rows."""

    train: Rows
    test: Rows | None
    label_names: Sequence[str] | None

    def left(self, history: Sequence[Entry]) -> Data:
        """Return them as data, as a history leaves them."""
        names = numbered(self.train.labels) if self.label_names is None else tuple(self.label_names)
        test = TakenRows(self.train, np.zeros(0, dtype=np.int64)) if self.test is None else self.test
        return as_left(Data(train=self.train, test=test, label_names=names, input_size=()), history)


def _before(model: nn.Module | Forgotten, earlier: Sequence[Request]) -> tuple[dict[str, Any], ...]:
    """Return the history of a model: its own, or the earlier requests that the caller names.

    Raises:
        RequestError: Both are given.
    """
    if not isinstance(model, Forgotten):
        return tuple({"request": to_mapping(request)} for request in earlier)
    if earlier:
        raise RequestError("expected earlier requests of a plain network alone, got some of what `forget` returned")
    return model.history


def _network(model: nn.Module | Forgotten) -> nn.Module:
    """Return the network itself, giving logits."""
    network = model.model if isinstance(model, Forgotten) else model
    return _giving_logits(network)


def _giving_logits(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):  # types are checked by few who call
        do = ": load it into its network first" if isinstance(model, Mapping) else ""
        raise ModelError(f"expected a network (torch.nn.Module), got {type(model).__name__}{do}")
    if isinstance(model, ScriptModule):
        raise ModelError("expected a network whose modules can be changed, got one that torch.jit has compiled")
    return Logits(model) if is_pretrained(model) else model


def _each(given: Any) -> tuple[Any, ...]:
    given = [given] if isinstance(given, int | str | np.integer) else given
    if not isinstance(given, Iterable):
        raise RequestError(f"expected a class, a row or a list of them to forget, got {given!r}")
    return tuple(int(one) if isinstance(one, np.integer) else one for one in given)


def _split(model: nn.Module, data: Data, request: Request, *, absent: bool = False) -> Split:
    """Return data split by a request, with a name for each of the model's outputs."""
    parts, label_names = split(data, request, absent=absent), data.label_names
    first, _ = parts["retain"].batch(np.zeros(1, dtype=np.int64))
    classes_out = count_outputs(model, first)
    if classes_out != len(label_names):
        names = label_names + tuple(str(index) for index in range(len(label_names), classes_out))
        if classes_out < len(label_names):
            raise ModelError(f"expected {len(label_names)} outputs, one per class, got {classes_out}")
        label_names = names
    return replace(parts, label_names=label_names, input_size=tuple(first.shape[1:]))
