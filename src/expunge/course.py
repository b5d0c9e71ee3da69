"""Course: a training under way: all that changes from step to step, to keep, put back and go on from.

1. Every few steps the loss is looked at. While its mean is finite, and no further from zero than that of any network
   that learns, the state is held as the last good one. A loss that is to grow, as in gradient ascent, runs to minus
   infinity where it is not held.
2. A training that diverged goes back to that state and goes on at half the learning rate, a few times at most. What
   happened is noted in the bill. Nothing changes in a training that does not diverge.
3. With a journal the state is saved there now and then, and at the end; the same training takes it up from there, with
   weights, optimiser, schedule and random numbers as they were. What was done before then stands in the bill as if it
   had been done now: its operations, its seconds and its reads.
"""

import copy
import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from expunge.errors import DivergedError
from expunge.journal import State
from expunge.rehearsal import SET_ASIDE
from expunge.runtime import Runtime

LOOK = 64
"""Steps between two looks at the loss; on a GPU each waits for it."""
WILD = 1e4
"""A mean loss, of either sign and in nats or what else it is in, that no network has unless it diverged."""
TRIES = 3
"""How often a training may go back."""
RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""What a learning rate and those that a schedule goes by are called in an optimiser."""


@dataclass(kw_only=True)
class Course:
    """A training under way."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    runtime: Runtime
    stage: str
    steps: int
    name: str | None
    """Of its progress in the runtime's journal; None keeps none."""
    tries: int
    """How often it may still go back."""
    done: int = 0
    """Steps done."""
    total: Tensor = field(init=False)
    """Sum of the losses of these steps."""
    events: list[str] = field(default_factory=list)
    """What went wrong and was put right."""
    _good: State = field(init=False)

    def __post_init__(self) -> None:
        self.total = torch.zeros((), device=self.runtime.device)
        self._flops, self._begun = self.runtime.cost.flops, time.perf_counter()
        self._reads = {part: rows.reads for part, rows in self.runtime.counted.items()}
        found = self.runtime.journal.find(self.name) if self.runtime.journal and self.name else None
        done = found.done if found else 0
        same = self.runtime.highest(done) == -self.runtime.highest(-done)
        if found is not None and same:  # all processes have found it
            self._put(found)
            self._count(found)
        self._good = self._held()

    def step(self, loss: Tensor) -> bool:
        """Take note of a step that is done; return False if the training went back, so that its batches come again.

        Raises:
            DivergedError: It has gone back as often as it may.
            KeyboardInterrupt: The user has asked to stop; the state is saved.
        """
        self.done += 1
        self.total += loss
        last = self.done == self.steps
        journal = self.runtime.journal
        looks = last or self.done % LOOK == 0
        # of several processes all look at the loss together, and so they stop and save
        may = looks or self.runtime.fabric.world_size == 1
        stop = may and journal is not None and journal.stops()
        due = journal is not None and (journal.due_at_end() if last else journal.due())
        save = may and self.name is not None and self.runtime.highest(stop or due) > 0
        if self.runtime.rehearsal is not None:  # two states are held at a time: so much memory is needed
            looks = self.done < SET_ASIDE
        if looks or save:
            mean = self._mean()
            if not self._goes_well(mean):
                self._back(mean)
                return False
            if not last:
                self._good = self._held()
        if journal is not None and self.name is not None and save:
            journal.save(self.name, self._end() if last else self._good)
        if stop:
            raise KeyboardInterrupt
        return True

    def _mean(self) -> float:
        """Return the mean loss since the last good state."""
        return float(self.total - self._good.tensors["total"]) / (self.done - self._good.done)

    def _goes_well(self, mean: float) -> bool:
        return self.runtime.highest(abs(mean) if math.isfinite(mean) else math.inf) < WILD

    def _back(self, mean: float) -> None:
        if not self.tries:
            do = ", or look for inputs that are not finite" if math.isnan(mean) else ""
            raise DivergedError(
                f"expected a mean loss between {-WILD:g} and {WILD:g} in {self.stage}, got {mean:g}: lower "
                f"the learning rate{do}"
            )
        tries, at = self.tries - 1, self.done
        self._put(self._good)
        self.tries = tries
        for group in self.optimizer.param_groups:
            group |= {key: group[key] / 2 for key in RATES if key in group}
        self.schedule.base_lrs = [rate / 2 for rate in self.schedule.base_lrs]
        event = f"{self.stage} diverged by step {at}: went on from step {self.done} at half the learning rate, lower it"
        self.events.append(event)
        self.runtime.cost.events.append(event)
        self._good = self._held()

    def _held(self) -> State:
        """Return everything that the next steps depend on, as it is now and not as it will be."""
        saved, precision = self.optimizer.state_dict(), self.runtime.fabric.strategy.precision
        slots = {
            f"optimizer/{index}/{slot}": value.clone()
            for index, values in saved["state"].items()
            for slot, value in values.items()
            if isinstance(value, Tensor)
        }
        random = {"random/cpu": torch.get_rng_state()}
        if self.runtime.device.type == "cuda":
            random["random/cuda"] = torch.cuda.get_rng_state(self.runtime.device)
        end = self._end()
        tensors = {name: value.clone() for name, value in end.tensors.items()} | slots | random
        record = {
            "groups": copy.deepcopy(saved["param_groups"]),
            "schedule": copy.deepcopy(self.schedule.state_dict()),
            "precision": precision.state_dict(),
            "tries": self.tries,
        }
        return State(
            done=self.done, tensors=tensors | {"total": self.total.clone()}, record={**end.record, "course": record}
        )

    def _end(self) -> State:
        """Return what is left of a training when it is over: the weights, and its part of the bill."""
        counted = self.runtime.counted
        seen = {f"seen/{part}": rows.seen for part, rows in counted.items()}
        record = {
            "seconds": time.perf_counter() - self._begun,
            "flops": self.runtime.cost.flops - self._flops,
            "reads": {part: rows.reads - self._reads[part] for part, rows in counted.items()},
            "events": list(self.events),
        }
        return State(done=self.done, tensors=weights_of(self.model) | seen, record=record)

    def _put(self, state: State) -> None:
        """Set everything to a state; of the end of a training only the weights."""
        with torch.no_grad():
            for name, weight in weights_of(self.model).items():
                weight.copy_(state.tensors[name])
        self.done = state.done
        course = state.record.get("course")
        if course is None:
            return
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in state.tensors.items():
            if name.startswith("optimizer/"):
                _, index, slot = name.split("/")
                slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({"state": slots, "param_groups": copy.deepcopy(course["groups"])})
        self.schedule.load_state_dict(copy.deepcopy(course["schedule"]))
        self.runtime.fabric.strategy.precision.load_state_dict(course["precision"])
        torch.set_rng_state(state.tensors["random/cpu"])
        if self.runtime.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["random/cuda"], self.runtime.device)
        self.total.copy_(state.tensors["total"])
        self.tries = course["tries"]

    def _count(self, state: State) -> None:
        """Put into the bill what was done before, as if it had been done now."""
        record, cost = state.record, self.runtime.cost
        self._begun -= record["seconds"]
        cost.seconds[self.stage] = cost.seconds.get(self.stage, 0.0) + record["seconds"]
        cost.flops += record["flops"]
        self.events += record["events"]
        cost.events += record["events"]
        for part, rows in self.runtime.counted.items():
            rows.add(record["reads"][part], state.tensors[f"seen/{part}"])


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return all weights and buffers of a model, each once."""
    return {f"model/{name}": value.detach() for name, value in [*model.named_parameters(), *model.named_buffers()]}
