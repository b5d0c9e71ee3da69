"""unsir_notebook: the authors' notebook exactly as it runs, quirks included, to check published numbers with.

Tarun, Chundawat, Mandal and Kankanhalli, https://arxiv.org/abs/2111.08947; the notebook "Machine Unlearning.ipynb"
of https://github.com/vikram2000b/Fast-Machine-Unlearning (November 2021). Use `unsir` for anything else.

1. For one class after another, learn a batch of 256 noise images from N(0, 1): 40 steps of Adam at 0.1.
2. Impair: one pass over twenty rounds of noise and the first 1,000 rows of each retained class, Adam at 0.02.
3. Repair: one pass over the same retained rows, Adam at 0.01.

Reads: retain.

Quirks kept, and what `unsir` does instead:
1. Of the 256 noise images only the first C are used, C being the number of channels (the loop that should run over
   the batch runs over ``batch[0].size(0)``), each 20 times; `unsir` uses all.
2. All noise is labelled class 0, whichever class it was made for (``class_num = 0``); `unsir` uses its own class.
3. The model is in training mode while noise is learned: batch norm normalises by the noise and overwrites its
   running statistics, one class after the other; `unsir` evaluates.
4. Gradients of the noise steps pile up on the weights (cleared before impair, so without effect on the result).
5. The squared norm, summed over all pixels at weight 0.1, outweighs the error for most of the 40 steps.
6. The retained rows are the first of each class, not a random choice.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from expunge.data import Access, Part
from expunge.network import copy_of
from expunge.rows import JoinedRows, TakenRows, TensorRows
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, NotNegative, Positive, adam, fit


@settings
class UnsirNotebook:
    """The authors' notebook as it runs, bugs included; for checking published numbers."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    noise_images: Count = 256
    """Noise images per class, of which as many are used as inputs have channels."""
    noise_steps: Count = 40
    """Steps of Adam per class."""
    noise_lr: Positive = 0.1
    """Adam's learning rate on the noise."""
    noise_penalty: NotNegative = 0.1
    """Weight of the squared L2 norm of a noise image."""
    noise_rounds: Count = 20
    """How often the used noise images enter the impair step."""
    retain_rows_per_class: Count = 1000
    """Retained rows per class, the first ones."""
    batch_size: Count = 256
    """Rows per step of impair and repair."""
    impair_lr: Positive = 0.02
    """Adam's learning rate in the impair step."""
    repair_lr: Positive = 0.01
    """Adam's learning rate in the repair step."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy, treated as the notebook treats its model."""
        forgetting = copy_of(model).train()
        used = []
        for index in access.classes():
            noise = self._learn_noise(forgetting, access, runtime, index)
            used.append(noise[: access.input_size[0]])
            runtime.images["noise", index] = used[-1]
        rounds = torch.cat([images.repeat(self.noise_rounds, *[1] * len(access.input_size)) for images in used])
        noisy = TensorRows(rounds, torch.zeros(len(rounds), dtype=torch.int64))

        rows = access["retain"]
        first = [np.flatnonzero(rows.labels == index)[: self.retain_rows_per_class] for index in np.unique(rows.labels)]
        retain = TakenRows(rows, np.concatenate(first))
        for stage, data, lr in (
            ("impair", JoinedRows(noisy, retain), self.impair_lr),
            ("repair", retain, self.repair_lr),
        ):
            fit(forgetting, data, runtime, adam(epochs=1, batch_size=self.batch_size, lr=lr), stage=stage)
        return forgetting.train(model.training)

    def _learn_noise(self, model: nn.Module, access: Access, runtime: Runtime, index: int) -> torch.Tensor:
        network = runtime.place(model)
        generator = runtime.generator(f"unsir_notebook/noise/{index}")
        noise = torch.randn(self.noise_images, *access.input_size, generator=generator).to(runtime.device)
        noise.requires_grad_()
        labels = torch.full((self.noise_images,), index, device=runtime.device)
        optimizer = torch.optim.Adam([noise], self.noise_lr)
        with runtime.stage("noise", self.noise_steps) as advance:
            for _ in range(self.noise_steps):
                with runtime.cost.step("noise", len(noise)):
                    error = functional.cross_entropy(network(noise), labels)
                    size = noise.flatten(1).square().sum(1).mean()
                    optimizer.zero_grad()
                    runtime.backward(self.noise_penalty * size - error)
                optimizer.step()
                advance(1)
        return noise.detach().cpu()
