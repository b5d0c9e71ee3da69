"""dissolve: let what only the class reads fade from the features, and its rows dissolve into their neighbours.

Ours, and experimental: what it was measured to do, and what not, stands in ``docs/unsir.md``. In the setting of UNSIR,
https://arxiv.org/abs/2111.08947: the model and a small subset of the retained rows; a forgotten row is never read.

Hiding an output leaves the class in the features, and high learning rates shake it out together with the rest. Here
the head says which directions of the features the retained classes read. These stay; the others fade.

1. Subset. Draw a share of the retained rows and put each through the network once. Keep what comes out of the first
   units (see `expunge.methods._tail`), what the head reads, and the logits. All training is of the last units alone.
2. Targets of the features h that the head reads, centred. S is the span of the retained classes' head rows w_k, their
   mean taken off: whatever is outside it changes no retained class against another. u is the part outside S of a
   forgotten class's row: what that class reads and no other does. The target is the part of h in S, and outside it
   `rest` times h without u. A share `neighbours` of this is replaced by the retained classes' mean features, weighted
   by what the model says with the forgotten classes left out (neural collapse: a class that was never learned has no
   place of its own). Retained logits stay nearly as they were; what the class alone had is gone.
3. Targets of the logits: the original's softmax over the retained classes alone, the forgotten ones left out, as
   in DELETE, https://arxiv.org/abs/2503.23751. Mass goes where the model already saw likeness.
4. Head. The forgotten classes' rows get the weights of a freshly initialised head: those of classes that never came up.
5. Rewrite. Train the last units and the head on both targets, with AdamW and one cycle of the learning rate. The rate
   is told in units of the weights' own size, so that one number serves networks whose weights differ in scale.
6. Watch. The step is tried again from the start at half of the rate if a loss was not finite, or if the model then
   gets more of the subset wrong than the original does with the forgotten classes left out: by more than a twentieth,
   which is what a network that has learned its rows by heart loses by any change, and `margin` or two rows. If no rate
   is gentle enough the best try is kept, and the bill says so; a tenth more wrong answers are a failure.

Reads: retain. `dissolve_data_free` does the same on rows that it makes up.

Where the head has as many retained classes as features or more, S is all there is, nothing can fade, and only
`neighbours` acts.

Reproduction: no public number. It is ours.
"""

import copy
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part, choose
from expunge.errors import DivergedError
from expunge.methods._tail import Cut, Tail, cut
from expunge.network import copy_of, find_head, reset_rows
from expunge.rows import Rows, TakenRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, Training, make_schedule, optimizer_of

Share = Annotated[float, Ge(0), Le(1)]
SomeShare = Annotated[float, Gt(0), Le(1)]
GROWTH = 1.05
"""How much larger the share of wrong answers may become, beside the margin."""
COLLAPSE = 0.1
"""The most by which the share of wrong answers may grow at the best rate; beyond it the method has failed."""
WATCHED = 512
"""The most rows that answers are compared on."""
SMALLEST = 1e-6
"""Singular values and norms below this share of the largest count as none; also the least variance divided by."""


@settings
class Dissolve:
    """Fade what only the class reads, rewrite the last units; never reads the forgotten rows. Experimental."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    retain_share: SomeShare = 0.2
    """Share of the retained rows of the largest class that is drawn of every class."""
    fewest_rows: Count = 25
    """Rows drawn per class at least; all of a class that has fewer."""
    tail_share: SomeShare = 1 / 3
    """Share of the network's units that are rewritten, rounded up, counted from the head."""
    rest: Share = 0.5
    """What is left of features outside the span that the retained classes read; 1 lets nothing but u fade."""
    neighbours: Share = 0.2
    """How far features move to the mean of the classes that the model would name instead."""
    feature_weight: NotNegative = 10.0
    """Weight of the squared error of features, in units of their variance, beside the cross-entropy of the logits."""
    passes: Positive = 1.4
    """Passes over the subset in the rewrite."""
    steps: Count = 200
    """The most steps in the rewrite, which sets the batch size: rows x passes / steps, from 8 to 256."""
    fewest_steps: Count = 30
    """Steps in the rewrite at least: a few rows are gone through more often than `passes` says."""
    lr: Positive = 0.15
    """AdamW's highest learning rate in the first try, in units of the root mean square of the rewritten matrices."""
    weight_decay: NotNegative = 0.01
    """AdamW's weight decay."""
    margin: Share = 0.01
    """The most by which the share of wrong answers on the subset may grow, beyond a twentieth and two rows."""
    tries: Count = 4
    """How often the rewrite is tried, each time at half the rate of the time before."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that has forgotten the classes.

        Raises:
            RequestError: The request is of single rows.
            ModelError: The network cannot be cut (see `expunge.methods._tail.cut`), or all behind the cut is frozen.
            DivergedError: No rate that was tried leaves the answers to retained rows nearly as they were.
        """
        access.classes()  # a request of single rows is refused before a row is read
        return self.on(self._subset(access, runtime), model, access, runtime)

    def on(self, rows: Rows, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that has forgotten the classes, by steps 1 to 6 on these rows in place of the subset.

        Raises:
            As `__call__`.
        """
        classes = list(access.classes())
        with runtime.stage("cut", 1) as advance:
            found = cut(model, rows, runtime, num_classes=access.num_classes, share=self.tail_share)
            advance(1)
        goal = _Goal(
            features=faded(found, classes, rest=self.rest, neighbours=self.neighbours),
            distribution=without(found.logits, classes).softmax(dim=1),
        )
        with runtime.seeded("dissolve/head"):
            fresh = find_head(access.build(), access.num_classes)
        tail = self._best(found, goal, fresh, classes, runtime)
        forgetting = copy_of(model)
        tail.put_into(forgetting)
        return forgetting

    def _best(self, found: Cut, goal: "_Goal", fresh: nn.Linear, classes: list[int], runtime: Runtime) -> Tail:
        """Return the first rewritten tail that keeps enough of the answers, or else the one that keeps most."""
        tries: list[tuple[float, Tail]] = []
        while len(tries) < self.tries and not (tries and tries[-1][0] <= self.margin):
            tail = copy.deepcopy(found.tail)
            reset_rows(tail.head, fresh, classes)
            whole = self._rewrite(tail, found, goal, runtime, self.lr / 2 ** len(tries))
            lost = self._lost(tail, found, goal, runtime) if whole else math.inf
            if runtime.rehearsal is not None:  # a few steps cannot be expected to keep answers
                return tail
            tries.append((lost, tail))
        lost, tail = min(tries, key=lambda one: one[0])
        rates = f"learning rates from {self.lr:g} to {self.lr / 2 ** (len(tries) - 1):g}"
        if lost > COLLAPSE:
            got = "losses that are not finite" if lost == math.inf else f"{lost:.0%} more wrong"
            raise DivergedError(
                f"expected the retained rows answered as well as before, within {COLLAPSE:.0%}, at one of the {rates}, "
                f"got {got}: lower lr"
            )
        if lost > self.margin:
            runtime.cost.events.append(
                f"dissolve left {lost:.1%} more of the retained rows wrong at the best of the {rates}: lower lr"
            )
        return tail

    def _subset(self, access: Access, runtime: Runtime) -> Rows:
        rows = access["retain"]
        largest = int(np.bincount(rows.labels).max())
        per_class = max(self.fewest_rows, round(self.retain_share * largest))
        return TakenRows(rows, choose(rows.labels, per_class, runtime.generator("dissolve/retain")))

    def _rewrite(self, tail: Tail, found: Cut, goal: "_Goal", runtime: Runtime, lr: float) -> bool:
        """Train the tail in place, at a rate relative to its weights; return whether every loss was finite."""
        total = self.passes * len(found.stored)
        size = min(max(round(total / self.steps), 8), 256, len(found.stored))
        steps = max(self.fewest_steps, round(total / size))
        weights: list[Tensor] = [weight for weight in tail.parameters() if weight.requires_grad]
        rate = lr * size_of(weights)
        training = Training(optimizer="adamw", lr=rate, weight_decay=self.weight_decay, schedule="one_cycle")
        optimizer = optimizer_of(weights, training)
        schedule = make_schedule(optimizer, training, steps)
        # each process trains on all rows: the tail is small, and ends the same in all of them
        network, stepper = runtime.place(tail.train().body), runtime.stepper(optimizer)
        scale = goal.features.var(dim=0).sum().clamp_min(SMALLEST)
        losses, track = torch.zeros((), device=runtime.device), runtime.tracking.curve("rewrite")
        with runtime.seeded("dissolve/dropout"), runtime.stage("rewrite", steps) as advance:
            order = batches(len(found.stored), size, steps, runtime.generator("dissolve/order"))
            for step, batch in enumerate(order, start=1):
                chosen = batch.to(runtime.device)
                with runtime.cost.step("rewrite", len(chosen)):
                    features = network(found.stored[chosen])
                    logits = tail.head(features)
                    miss = (features - goal.features[chosen]).square().sum(dim=1).mean() / scale
                    loss = functional.cross_entropy(logits, goal.distribution[chosen]) + self.feature_weight * miss
                    stepper.zero_grad()
                    runtime.backward(loss)
                stepper.step()
                schedule.step()
                losses += loss.detach()
                track(step, loss.detach())
                advance(1)
        tail.zero_grad(set_to_none=True)
        return bool(losses.isfinite())

    @torch.no_grad()
    def _lost(self, tail: Tail, found: Cut, goal: "_Goal", runtime: Runtime) -> float:
        """Return by how much more than a twentieth the share of wrong answers to some of the rows has grown.

        They are the first of a random order. Up to two rows count as none, outputs that are not finite without end.
        """
        order = torch.randperm(len(found.stored), generator=runtime.generator("dissolve/watch"))[:WATCHED]
        chosen = order.to(runtime.device)
        network = runtime.place(tail.eval())
        with runtime.cost.step("watch", len(chosen)):
            logits = network(found.stored[chosen])
        if not logits.isfinite().all():
            return math.inf
        before, after = (
            float((answers.argmax(dim=1) != found.labels[chosen]).float().mean())
            for answers in (goal.distribution[chosen], logits)
        )
        return after - GROWTH * before if after - GROWTH * before > 2 / len(chosen) else 0.0


@dataclass(frozen=True, kw_only=True)
class _Goal:
    """What the rewritten tail is to give for each row."""

    features: Float[Tensor, "rows width"]
    distribution: Float[Tensor, "rows classes"]


def without(logits: Float[Tensor, "rows classes"], classes: list[int]) -> Float[Tensor, "rows classes"]:
    """Return the logits with those of some classes at minus infinity."""
    return logits.index_fill(1, torch.tensor(classes, device=logits.device), -torch.inf)


@torch.no_grad()
def faded(found: Cut, classes: list[int], *, rest: float, neighbours: float) -> Float[Tensor, "rows width"]:
    """Return the features that the head is to read: step 2 of the module's page.

    With m the mean of the retained classes' mean features, P the projection on S and U an orthonormal basis of the
    forgotten rows' parts outside S: ``(1 - neighbours) (P + rest (1 - P - U U')) (h - m) + neighbours (M' p - m) + m``,
    where M holds the retained classes' means and p their probabilities. Computed in double precision.

    Args:
        found: What the original makes of the retained subset.
        classes: The forgotten classes.
        rest: What is left outside S and U, from 0 to 1.
        neighbours: Share of the mixture of means, from 0 to 1.
    """
    features, weight = found.features.double(), found.tail.head.weight.double()
    kept = sorted(set(found.labels.tolist()))
    means = torch.stack([features[found.labels == index].mean(dim=0) for index in kept])
    others = [index for index in range(len(weight)) if index not in classes]
    rows = weight[others]
    span = basis(rows - rows.mean(dim=0), float(rows.norm()))
    own = weight[classes] - rows.mean(dim=0)
    alone = basis(own - own @ span @ span.T, float(rows.norm()))
    middle = means.mean(dim=0)
    centred = features - middle
    read, only = centred @ span @ span.T, centred @ alone @ alone.T
    kept_logits = without(found.logits.double(), classes)[:, kept]
    mixture = kept_logits.softmax(dim=1) @ means - middle
    target = (1 - neighbours) * (read + rest * (centred - read - only)) + neighbours * mixture + middle
    return target.to(found.features.dtype)


def basis(vectors: Float[Tensor, "count width"], scale: float) -> Float[Tensor, "width rank"]:
    """Return an orthonormal basis, in columns, of the span of some vectors; what is tiny beside the scale is none."""
    _, sizes, directions = torch.linalg.svd(vectors, full_matrices=False)
    found: Tensor = directions[sizes > SMALLEST * scale].T
    return found


def size_of(weights: list[Tensor]) -> float:
    """Return the root mean square of all weights of two dimensions and more, of all others if there are none."""
    matrices = [weight.detach() for weight in weights if weight.ndim > 1] or [weight.detach() for weight in weights]
    total = sum(float(weight.double().square().sum()) for weight in matrices)
    size = math.sqrt(total / max(1, sum(weight.numel() for weight in matrices)))
    return max(size, SMALLEST)


def batches(rows: int, size: int, steps: int, generator: torch.Generator) -> list[Int64[Tensor, " size"]]:
    """Return the row numbers of so many batches: one random order of all rows after the other."""
    orders = [torch.randperm(rows, generator=generator) for _ in range(-(-steps * size // rows))]
    return list(torch.split(torch.cat(orders)[: steps * size], size))
