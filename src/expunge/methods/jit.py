"""jit: take the outputs for what is to be forgotten to those for its noisy copies, row by row. No other row is needed.

Foster, Fogarty, Schoepf, Oztireli and Brintrup, "An Information Theoretic Approach to Machine Unlearning",
https://arxiv.org/abs/2402.01401, at first "Zero-Shot Machine Unlearning at Scale via Lipschitz Regularization" (JiT);
code https://github.com/jwf40/Information-Theoretic-Unlearning.

1. Shake. Add normal noise of deviation `sigma` to each forgotten row, `samples` times over.
2. Smooth. Minimise, by SGD in one pass, the mean over rows and samples of how far the outputs move for how far the
   input did, ``||f(x) - f(x + noise)|| / ||noise||``: an estimate of the local Lipschitz constant.

Reads: forget.

In the code the gradient goes through the outputs for the clean rows alone, those for the noisy ones being held fixed,
and so it does here. That is another method than the loss says, and the difference is all there is to it. With the
gradient of the loss itself (`gradient = "both"`) the local Lipschitz constant falls, as the paper means it to, and on
the digits the class is known as well as before. With half of it the clean outputs are drawn to the noisy ones, of
which the class is less sure; that forgets, and the constant does not fall.

Defaults are those of the code for forgetting a class with a VGG on 128 rows at a time, which takes four steps for one
of CIFAR-100. Its rate is 0.0003 for the sum over a batch, in plain SGD; here it is of the mean, and momentum goes ten
times as far: 0.0003 * 128 / 10. For a ViT the code has a `sigma` of 0.8 and the rate 1.5; for single rows a `sigma` of
0.01, for a ViT 0.5. Nothing but the rate and the number of steps says when to stop, and what else is lost.

Differences from the code: SGD has Nesterov momentum of 0.9; noisy rows are not cut off at the lowest and the highest
element of their batch, which would make them depend on one another; the network is in evaluation mode, so that what
moves the outputs is the noise alone (the code's VGG drops units at random, and has no batch normalisation).

Reproduction: not tried at the size of its authors, which takes a GPU. On small data it was measured beside all others:
the tables of ``docs/methods.md``.
"""

from contextlib import nullcontext
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.linalg import vector_norm

from expunge.access import Access
from expunge.data import Part
from expunge.network import copy_of
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, Training, fit


@settings
class Jit:
    """Take the outputs for the forgotten rows to those for noisy copies of them (JiT)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"forget"})

    sigma: Positive = 0.5
    """Standard deviation of the noise, in units of the normalised input."""
    samples: Count = 25
    """Noisy copies of each row at every step."""
    gradient: Literal["clean", "both"] = "clean"
    """Which outputs are moved: those for the clean rows, as in the code, or those for the noisy ones too."""
    epochs: Count = 1
    """Passes over the forgotten rows."""
    batch_size: Count = 128
    """Rows per step."""
    lr: Positive = 0.004
    """Learning rate of SGD with momentum 0.9."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy with the outputs for the forgotten rows that noise gives. Stream: ``smoothing/dropout``.

        Raises:
            DivergedError: The loss has left every bound, at lower rates too.
        """
        forgetting = copy_of(model)
        shaken = Shaken(forgetting, sigma=self.sigma, samples=self.samples, gradient=self.gradient).train(
            model.training
        )
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=0.0,
            schedule="constant",
        )
        fit(shaken, access["forget"], runtime, training, stage="smoothing", loss=mean_of, asleep=shaken.modules())
        return forgetting


class Shaken(nn.Module):
    """A network seen by how far its outputs move when its inputs are shaken; the noise is of torch's own generator."""

    def __init__(
        self, network: nn.Module, *, sigma: float, samples: int, gradient: Literal["clean", "both"] = "clean"
    ) -> None:
        super().__init__()
        self.network = network
        self.sigma = sigma
        self.samples = samples
        self.noisy = torch.no_grad if gradient == "clean" else nullcontext

    def forward(self, inputs: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows samples"]:
        """Return the ratio of both distances for every noisy copy."""
        outputs, found = self.network(inputs), []
        for _ in range(self.samples):
            noise = self.sigma * torch.randn_like(inputs)
            with self.noisy():
                others = self.network(inputs + noise)
            found.append(vector_norm(outputs - others, dim=1) / vector_norm(noise.flatten(1), dim=1))
        return torch.stack(found, dim=1)


def mean_of(ratios: Float[Tensor, "rows samples"], labels: Tensor, inputs: Tensor) -> Float[Tensor, ""]:
    """Return the mean ratio; neither labels nor inputs play a part."""
    return ratios.mean()
