"""inversion: can inputs of the class still be read out of the model?

Every model is asked for its idea of the forgotten class: inputs are optimised, from noise, until it is sure of them.
The models themselves are no judges of what comes out. Two independent ones are:

* ``original``: share of the inputs that the original gives the class,
* ``nearest_mean``: share of the inputs whose nearest class mean, among real training rows, is that of the class.

Two attacks, one mechanism:

1. ``plain``: minimise the cross-entropy with the class alone. This is UNSIR's noise with its sign turned: re-noising.
2. ``prior``: also keep the inputs natural, by their total variation, their mean square and, where there is batch
   normalisation, by the distance of the statistics of every batch-norm layer's input from its running ones.

Numbers ``plain/original``, ``prior/original`` and ``prior/nearest_mean``, from 0 to 1. Ideal: those of retrained
models, which need not be 0, since what is no other class may look like this one; above their band, the class can be
read out. The nearest mean informs: a network is often sure of inputs that lie nowhere near real ones, the original not
excepted. Not known for a request of single rows.

Streams: ``inversion/start``, the same for every model, and ``inversion/rows``. Sources: activation maximisation, Erhan
et al. 2009; DeepInversion, Yin et al., https://arxiv.org/abs/1912.08795, for the prior; inversion as a test of
unlearning, Chundawat et al., https://arxiv.org/abs/2201.05629.

Differences from DeepInversion: means where it has sums, so that the weights do not depend on the size of an input; no
jitter, flips or competition with a student.

What it does not catch by its nature: an output that is a constant, as that of `head_mask`, gives no direction towards
the class, and is found only where lowering all other outputs is direction enough, as on the digits.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.audits._recovery import choose
from expunge.case import Case, Evidence
from expunge.finding import Finding
from expunge.rows import JoinedRows, Rows, TensorRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.synthesis import move_inputs
from expunge.training import Count, NotNegative, Positive, predict


@settings
class Prior:
    """How much natural inputs are preferred."""

    total_variation: NotNegative = 0.0
    """Weight of the mean absolute difference between neighbours, for inputs with two or more dimensions of space."""
    mean_square: NotNegative = 0.0
    """Weight of the mean square of the inputs."""
    statistics: NotNegative = 0.0
    """Weight of the distance from batch-norm statistics."""


@settings
class Inversion:
    """Share of the inputs, optimised for the forgotten class, that independent judges take for it."""

    level: ClassVar[int | None] = 3

    images: Count = 32
    """Inputs in all, shared evenly by the forgotten classes (at least one each)."""
    steps: Count = 40
    """Steps of Adam on the inputs."""
    lr: Positive = 0.1
    """Adam's learning rate, as a multiple of the standard deviation of real inputs."""
    total_variation: NotNegative = 0.1
    """Weight of the mean absolute difference between neighbours in the prior."""
    mean_square: NotNegative = 0.01
    """Weight of the mean square of the inputs in the prior."""
    statistics: NotNegative = 1.0
    """Weight of the distance from batch-norm statistics in the prior."""
    rows: Count = 2000
    """The most real training rows that class means and the scale of inputs come from."""

    def __call__(self, case: Case) -> list[Finding]:
        """Return three findings."""
        prior = Prior(total_variation=self.total_variation, mean_square=self.mean_square, statistics=self.statistics)
        classes = [] if case.closed() else [int(index) for index in case.split.request.classes]
        judges: dict[str, Callable[[Evidence], float]] = {}
        if classes:
            real = choose(
                JoinedRows(case.split["retain"], case.split["forget"]), self.rows, case.runtime, "inversion/rows"
            )
            means, mean, std = statistics(real, len(case.split.label_names), case.runtime)
            labels = torch.tensor(classes).repeat(-(-self.images // len(classes)))
            start = torch.randn(
                len(labels), *case.split.input_size, generator=case.runtime.generator("inversion/start")
            )

            def attack(evidence: Evidence, prior: Prior) -> Tensor:
                return invert(
                    evidence.model,
                    mean + std * start,
                    labels,
                    case.runtime,
                    prior=prior,
                    steps=self.steps,
                    lr=self.lr * std,
                )

            plain = case.each((self, "plain"), lambda evidence: attack(evidence, Prior()))
            natural = case.each((self, "prior"), lambda evidence: attack(evidence, prior))

            def by_original(inputs: Tensor) -> float:
                logits, _ = predict(case.original.model, TensorRows(inputs, labels), case.runtime)
                return float((logits.argmax(dim=1) == labels).double().mean())

            judges = {
                "plain/original": lambda evidence: by_original(plain[evidence]),
                "prior/original": lambda evidence: by_original(natural[evidence]),
                "prior/nearest_mean": lambda evidence: float(
                    (nearest(natural[evidence], means) == labels).double().mean()
                ),
            }
        return [self._share(case, name, judges.get(name), judge) for name, judge in JUDGES.items()]

    def _share(self, case: Case, name: str, value: Callable[[Evidence], float] | None, judge: str) -> Finding:
        return case.measure(
            f"inversion/{name}",
            value or (lambda evidence: None),
            level=self.level if value and name != "prior/nearest_mean" else None,
            meaning=f"Share of the inputs, made from the model's own idea of the forgotten classes, that {judge}.",
            note=None if value else case.closed() or "a request of single rows has no class to read out",
            higher="memory",
            limits=(0.0, 1.0),
            step=1 / self.images,
        )


JUDGES = {
    "plain/original": "the original takes for these classes",
    "prior/original": "the original takes for these classes when natural inputs are preferred",
    "prior/nearest_mean": "lie nearest to the mean of real rows of these classes when natural inputs are preferred",
}


def invert(
    model: nn.Module,
    start: Float[Tensor, "images ..."],
    labels: Int64[Tensor, " images"],
    runtime: Runtime,
    *,
    prior: Prior,
    steps: int,
    lr: float,
) -> Float[Tensor, "images ..."]:
    """Return inputs that the model is surest belong to the classes in `labels`, as natural as the prior asks for.

    The model is in evaluation mode and left as it is; its weights are out of the graph.
    """
    wanted = labels.to(runtime.device)

    def objective(images: Tensor, logits: Tensor, mismatches: list[Tensor]) -> Tensor:
        loss = functional.cross_entropy(logits, wanted)
        loss = loss + prior.total_variation * total_variation(images)
        loss = loss + prior.mean_square * images.square().mean()
        if mismatches and prior.statistics:
            loss = loss + prior.statistics * torch.stack(mismatches).mean()
        return loss

    return move_inputs(model, start, runtime, objective, steps=steps, lr=lr, stage="inversion", measure=mismatch)


def total_variation(images: Float[Tensor, "images ..."]) -> Float[Tensor, ""]:
    """Return the mean absolute difference between neighbours, summed over the dimensions of space; 0 without any."""
    total = images.new_zeros(())
    for dimension in range(2, images.ndim):
        if images.shape[dimension] > 1:
            total = total + images.diff(dim=dimension).abs().mean()
    return total


def nearest(inputs: Float[Tensor, "images ..."], means: Float[Tensor, "classes size"]) -> Int64[Tensor, " images"]:
    """Return the class whose mean is nearest to each input; a class without rows has a mean of infinity."""
    distances = (inputs.flatten(1).double()[:, None] - means).square().sum(dim=2)
    return distances.argmin(dim=1)


def statistics(rows: Rows, classes: int, runtime: Runtime) -> tuple[Float[Tensor, "classes size"], float, float]:
    """Return the mean input of each class (infinite without rows), and mean and deviation of all elements."""
    totals, counts, square = torch.zeros(0), torch.zeros(classes, dtype=torch.float64), 0.0
    for inputs, labels, _ in runtime.batches(rows, 512):
        flat = inputs.flatten(1).double().cpu()
        totals = totals if len(totals) else torch.zeros(classes, flat.shape[1], dtype=torch.float64)
        totals.index_add_(0, labels.cpu(), flat)
        counts += labels.cpu().bincount(minlength=classes)
        square += float(flat.square().sum())
    means = (totals / counts[:, None]).nan_to_num(nan=math.inf)
    mean = float(totals.sum()) / (len(rows) * totals.shape[1])
    return means, mean, math.sqrt(max(square / (len(rows) * totals.shape[1]) - mean**2, 0.0))


def mismatch(layer: nn.Module, values: Float[Tensor, "images channels ..."]) -> Float[Tensor, ""]:
    """Return how far values differ in mean and variance from what a batch normalisation remembers, over channels."""
    assert isinstance(layer.running_mean, Tensor)  # noqa: S101
    assert isinstance(layer.running_var, Tensor)  # noqa: S101
    inputs, scale = values.transpose(0, 1).flatten(1), layer.running_var + 1e-5
    mean = ((inputs.mean(dim=1) - layer.running_mean).square() / scale).mean()
    variance = ((inputs.var(dim=1, correction=0) - layer.running_var) / scale).square().mean()
    return mean + variance
