"""unsir_notebook: the authors' notebook exactly as it runs, quirks included, to check published numbers with.

Tarun, Chundawat, Mandal and Kankanhalli, https://arxiv.org/abs/2111.08947; the notebook "Machine Unlearning.ipynb"
of https://github.com/vikram2000b/Fast-Machine-Unlearning (November 2021). Use `unsir` for anything else.

1. For one class after another, learn a batch of 256 noise images from N(0, 1): 40 steps of Adam at 0.1.
2. Impair: one pass over twenty rounds of noise and the first 1,000 rows of each retained class, Adam at 0.02.
3. Repair: one pass over the same retained rows, Adam at 0.01.

Reads: retain.

Quirks kept, each a setting that can be switched off alone, and what `unsir` does instead:

1. `first_images_only`. Of the 256 noise images only the first C are used, C being the number of channels (the loop
   that should run over the batch runs over ``batch[0].size(0)``), each 20 times; `unsir` uses all.
2. `label_zero`. All noise is labelled class 0, whichever class it was made for (``class_num = 0``); `unsir` uses its
   own class.
3. `training_mode`. The model is in training mode while noise is learned: batch norm normalises by the noise and
   overwrites its running statistics, one class after the other; `unsir` evaluates.
4. `gradients_pile_up`. Gradients of the noise steps stay on the weights (cleared before impair, so without effect on
   the result).
5. `norm_summed`. The squared norm, summed over all elements at weight 0.1, outweighs the error for most of the 40
   steps; off, it is their mean.
6. `first_rows`. The retained rows are the first of each class, not a random choice.

Reproduction: not reproduced. Its output names 0.00 on the forgotten classes and 70.95 on the others, of a ResNet-18
with 77.17 on all of CIFAR-10. At that size it was not tried; with small networks on a part of CIFAR-10 the class goes
to 0 as well, and the others lose twenty points: ``benchmarks/results/unsir-cifar10.json``.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from expunge.access import Access
from expunge.data import Part, subset
from expunge.network import copy_of
from expunge.rows import JoinedRows, Rows, TakenRows, TensorRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, adam, fit


@settings
class UnsirNotebook:
    """The authors' notebook as it runs, bugs included; for checking published numbers."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    noise_images: Count = 256
    """Noise images learned per class."""
    noise_steps: Count = 40
    """Steps of Adam per class."""
    noise_lr: Positive = 0.1
    """Adam's learning rate on the noise."""
    noise_penalty: NotNegative = 0.1
    """Weight of the size of a noise image."""
    noise_rounds: Count = 20
    """How often the used noise images enter the impair step."""
    retain_rows_per_class: Count = 1000
    """Retained rows per class."""
    batch_size: Count = 256
    """Rows per step of impair and repair."""
    impair_lr: Positive = 0.02
    """Adam's learning rate in the impair step."""
    repair_lr: Positive = 0.01
    """Adam's learning rate in the repair step."""
    repair: bool = True
    """Whether to repair; off, the copy is returned as impair left it."""
    first_images_only: bool = True
    """Quirk 1: use as many noise images of a class as inputs have channels; off, all of them."""
    label_zero: bool = True
    """Quirk 2: label all noise as class 0; off, as the class that it was made for."""
    training_mode: bool = True
    """Quirk 3: learn noise in training mode, which overwrites batch-norm statistics; off, in evaluation mode."""
    gradients_pile_up: bool = True
    """Quirk 4: leave the gradients of the noise steps on the weights; off, clear them after every step."""
    norm_summed: bool = True
    """Quirk 5: a noise image's size is the sum of its squared elements; off, their mean."""
    first_rows: bool = True
    """Quirk 6: retain the first rows of each class; off, rows drawn at random."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy, treated as the notebook treats its model."""
        forgetting = copy_of(model).train(self.training_mode)
        used, labels = [], []
        for index in access.classes():
            noise = self._learn_noise(forgetting, access, runtime, index)
            kept = noise[: access.input_size[0]] if self.first_images_only else noise
            runtime.images["noise", index] = kept[:8]
            used.append(kept.repeat(self.noise_rounds, *[1] * len(access.input_size)))
            labels.append(torch.full((len(used[-1]),), 0 if self.label_zero else index))
        noisy, retain = TensorRows(torch.cat(used), torch.cat(labels)), self._retained(access, runtime)
        stages: list[tuple[str, Rows, float]] = [("impair", JoinedRows(noisy, retain), self.impair_lr)]
        if self.repair:
            stages.append(("repair", retain, self.repair_lr))
        for stage, data, lr in stages:
            fit(forgetting, data, runtime, adam(epochs=1, batch_size=self.batch_size, lr=lr), stage=stage)
        return forgetting.train(model.training)

    def _retained(self, access: Access, runtime: Runtime) -> Rows:
        rows, count = access["retain"], self.retain_rows_per_class
        if not self.first_rows:
            return subset(rows, count, runtime.generator("unsir_notebook/retain"))
        first = [np.flatnonzero(rows.labels == index)[:count] for index in np.unique(rows.labels)]
        return TakenRows(rows, np.concatenate(first))

    def _learn_noise(self, model: nn.Module, access: Access, runtime: Runtime, index: int) -> torch.Tensor:
        network = runtime.place(model)
        generator = runtime.generator(f"unsir_notebook/noise/{index}")
        noise = torch.randn(self.noise_images, *access.input_size, generator=generator).to(runtime.device)
        noise.requires_grad_()
        labels = torch.full((self.noise_images,), index, device=runtime.device)
        optimizer = torch.optim.Adam([noise], self.noise_lr)
        track = runtime.tracking.curve("noise")
        with runtime.stage("noise", self.noise_steps) as advance:
            for step in range(self.noise_steps):
                with runtime.cost.step("noise", len(noise)):
                    error = functional.cross_entropy(network(noise), labels)
                    squares = noise.flatten(1).square()
                    size = (squares.sum(1) if self.norm_summed else squares.mean(1)).mean()
                    optimizer.zero_grad()
                    loss = self.noise_penalty * size - error
                    runtime.backward(loss)
                optimizer.step()
                if not self.gradients_pile_up:
                    model.zero_grad(set_to_none=True)
                track(step + 1, loss.detach())
                advance(1)
        return noise.detach().cpu()
