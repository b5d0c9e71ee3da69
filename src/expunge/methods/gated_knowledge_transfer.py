"""gated_knowledge_transfer: teach a new network what the model says of made-up inputs, but for those it would forget.

Chundawat, Tarun, Mandal and Kankanhalli, "Zero-Shot Machine Unlearning", IEEE TIFS 2023,
https://arxiv.org/abs/2201.05629 (gated knowledge transfer, GKT);
code https://github.com/ayushkumartarun/zero-shot-unlearning.

1. The model is the teacher, frozen. The student is a network of its architecture with random weights. A generator, new
   too, makes inputs of normal noise.
2. Gate. Of the generator's inputs, those pass to which the teacher gives no forgotten class a probability above
   `threshold`.
3. One step of the generator, on what passes: make the student differ most from the teacher, climbing
   ``KL(teacher || student)``.
4. Ten steps of the student, on what passes of the new generator's inputs for the same noise: descend that divergence,
   and `attention` times the difference between both networks' attention maps at a few depths. A map is the mean over
   channels of the squares of what a module gives, at each position, as a vector of length 1.
5. Go on from step 2 with new noise.

Reads: nothing. What a class looks like reaches the student through the teacher alone, and not through the gate.

Differences from the code: it halves both rates by the loss of real test rows, which are data; here they stay. All
forgotten classes are gated, where the code has one. Attention maps are taken at the depths of `expunge.taps`, where the
code has every block; a module whose outputs have no positions has none. The generator makes inputs of any shape, flat
ones with two linear layers. As in the code, the student is in evaluation mode throughout, so that its batch
normalisation only scales; and when nothing has passed for a hundred rounds, the generator goes back to what it was
fifty to a hundred rounds ago, here at most a few times.

Measured on digits: after its 4,000 rounds the student gets three quarters of the class right, of which nothing has
passed the gate; see ``docs/methods.md``.

Reproduction: not tried, since the paper's data sets were not at hand.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt, Lt
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part
from expunge.errors import DivergedError
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.taps import HEAD, Tap, channel_axis, find_taps
from expunge.training import Count, NotNegative, Positive

PATIENCE = 100
"""Rounds in succession in which nothing may pass the gate."""
SAVED_EVERY = 50
"""Rounds after which the generator is kept, to go back to."""
TRIES = 3
"""How often it may go back."""
LONGEST = 5.0
"""Norm that gradients are cut to."""


@settings
class GatedKnowledgeTransfer:
    """A new network taught on made-up inputs behind a gate; reads no data at all (GKT)."""

    reads: ClassVar[frozenset[Part]] = frozenset()

    rounds: Count = 4000
    """Batches of noise; each makes a step of the generator and `student_steps` of the student."""
    student_steps: Count = 10
    """Steps of the student on one batch."""
    batch_size: Count = 256
    """Inputs made at a time, before the gate."""
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.01
    """The highest probability of a forgotten class with which an input passes the gate."""
    attention: NotNegative = 250.0
    """Weight of the attention maps."""
    temperature: Positive = 1.0
    """What logits are divided by."""
    noise: Count = 128
    """Numbers that an input is made of."""
    lr: Positive = 0.001
    """Adam's learning rate on the student."""
    generator_lr: Positive = 0.001
    """Adam's learning rate on the generator."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a new network that has learned from the model all but the classes.

        Streams: ``gated_knowledge_transfer/start`` and ``gated_knowledge_transfer/noise``.

        Raises:
            RequestError: The request is of single rows.
            ModelError: There is no linear head.
            DivergedError: The generator makes nothing that passes the gate.
        """
        forgotten, teacher = access.classes(), copy_of(model).eval().requires_grad_(False)
        with runtime.seeded("gated_knowledge_transfer/start"):
            student = access.build().eval()
            generator = make_generator(self.noise, access.input_size)
        generator.to(runtime.device, next(model.parameters()).dtype)
        transfer = Transfer(
            how=self,
            generator=Trained(generator, self.generator_lr),
            student=Trained(student, self.lr),
            student_sees=Watched(student, access.num_classes, runtime),
            teacher_sees=Watched(teacher, access.num_classes, runtime),
            forgotten=(*forgotten, *access.earlier_classes),
            runtime=runtime,
        )
        transfer.run()
        student.zero_grad(set_to_none=True)
        return student.train(model.training)


class Trained:
    """A network with its optimiser: Adam, with gradients cut to a norm of `LONGEST`."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.network = network
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.Adam(self._weights, lr)

    def step(self, loss: Tensor) -> None:
        """Go down a loss."""
        self._optimizer.zero_grad()
        torch.autograd.backward(loss, inputs=self._weights)
        nn.utils.clip_grad_norm_(self._weights, LONGEST)
        self._optimizer.step()


class Watched:
    """A network that gives its logits and its attention maps."""

    def __init__(self, network: nn.Module, num_classes: int, runtime: Runtime) -> None:
        self._call = runtime.place(network)
        self._taps = [tap for tap in find_taps(network, num_classes) if tap.name != HEAD]

    def __call__(self, inputs: Tensor) -> tuple[Float[Tensor, "rows classes"], list[Float[Tensor, "rows _"]]]:
        """Return logits, and the maps in the order of the calls."""
        with mapped(self._taps) as maps:
            logits = self._call(inputs)
        return logits, maps


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Knowledge on its way from the teacher to the student."""

    how: GatedKnowledgeTransfer
    generator: Trained
    student: Trained
    student_sees: Watched
    teacher_sees: Watched
    forgotten: tuple[int, ...]
    runtime: Runtime

    def run(self) -> None:
        """Go through all rounds.

        Raises:
            DivergedError: Nothing passes the gate any more.
        """
        noise = self.runtime.generator("gated_knowledge_transfer/noise")
        network = self.generator.network
        kept = [copy.deepcopy(network.state_dict())]
        done = missed = back = 0
        with self.runtime.stage("transfer", self.how.rounds) as advance:
            while done < self.how.rounds:
                drawn = torch.randn(self.how.batch_size, self.how.noise, generator=noise)
                if self.round(drawn.to(self.runtime.device, next(network.parameters()).dtype)):
                    done, missed = done + 1, 0
                    advance(1)
                    if done % SAVED_EVERY == 0:
                        kept = [kept[-1], copy.deepcopy(network.state_dict())]
                    continue
                missed += 1
                if missed == PATIENCE:
                    if back == TRIES:
                        raise DivergedError(
                            f"expected a generator that makes inputs without the forgotten classes, got none in "
                            f"{PATIENCE} batches, {TRIES + 1} times: raise threshold, or lower generator_lr"
                        )
                    network.load_state_dict(kept[0])
                    back, missed = back + 1, 0

    def round(self, noise: Float[Tensor, "inputs noise"]) -> bool:
        """Take the steps of the generator and the student on one batch of noise; return whether anything has passed."""
        made: Tensor = self.generator.network(noise)
        rows = self.pass_gate(made)
        if not len(rows):
            return False
        with self.runtime.cost.step("generator", len(rows)):
            divergence = self.divergence(self.student_sees(rows)[0], self.teacher_sees(rows)[0])
            self.generator.step(-divergence)
        with torch.no_grad():
            rows = self.pass_gate(self.generator.network(noise))
            if not len(rows):
                return False
            wanted, wanted_maps = self.teacher_sees(rows)
        for _ in range(self.how.student_steps):
            with self.runtime.cost.step("student", len(rows)):
                logits, maps = self.student_sees(rows)
                loss = self.divergence(logits, wanted)
                for one, other in zip(maps, wanted_maps, strict=True):
                    loss = loss + self.how.attention * (one - other).square().mean()
                self.student.step(loss)
        return True

    def pass_gate(self, inputs: Float[Tensor, "inputs ..."]) -> Float[Tensor, "passed ..."]:
        """Return the inputs that pass the gate of step 2."""
        with torch.no_grad():
            logits, _ = self.teacher_sees(inputs)
        return inputs[passes(logits, self.forgotten, self.how.threshold)]

    def divergence(self, student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"]) -> Tensor:
        """Return the divergence from the teacher to the student, as the code has it: a mean over rows and classes."""
        logs, wanted = ((logits / self.how.temperature).log_softmax(dim=1) for logits in (student, teacher))
        return functional.kl_div(logs, wanted, reduction="none", log_target=True).mean()


def passes(
    logits: Float[Tensor, "inputs classes"], forgotten: tuple[int, ...], threshold: float
) -> Bool[Tensor, " inputs"]:
    """Return to which inputs no forgotten class is given a probability above a threshold."""
    return logits.softmax(dim=1)[:, list(forgotten)].amax(dim=1) <= threshold


@contextmanager
def mapped(taps: list[Tap]) -> Iterator[list[Float[Tensor, "rows _"]]]:
    """Catch the attention maps of a forward pass, in the order of the calls."""
    maps: list[Tensor] = []

    def after(tap: Tap) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if isinstance(outputs, Tensor) and outputs.ndim > 2:
                channels = channel_axis(outputs, tap.width, channels_first=tap.channels_first)
                squares = outputs.float().square().mean(dim=channels)
                maps.append(functional.normalize(squares.flatten(1)))

        return hook

    handles = [tap.module.register_forward_hook(after(tap)) for tap in taps]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def make_generator(noise: int, input_size: tuple[int, ...]) -> nn.Module:
    """Return a network from noise to inputs, each channel of which has mean 0 and variance 1 over a batch at first."""
    if len(input_size) != 3:
        size = math.prod(input_size)
        hidden = [nn.Linear(noise, 256), nn.BatchNorm1d(256), nn.LeakyReLU(0.2)]
        return nn.Sequential(*hidden, nn.Linear(256, size), nn.BatchNorm1d(size), nn.Unflatten(1, input_size))
    channels, *whole = input_size
    half, quarter = (tuple(math.ceil(side / parts) for side in whole) for parts in (2, 4))
    return nn.Sequential(
        nn.Linear(noise, 128 * math.prod(quarter)),
        nn.Unflatten(1, (128, *quarter)),
        nn.BatchNorm2d(128),
        nn.Upsample(size=half),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Upsample(size=tuple(whole)),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
    )
