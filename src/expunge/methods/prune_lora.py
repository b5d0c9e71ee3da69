"""prune_lora: put half of the filters to zero, then train low-rank adapters and the head on the retained rows.

Mittal, "LoRA Unlearns More and Retains More" (student abstract), AAAI 2025, https://arxiv.org/abs/2411.11907
(PruneLoRA); code https://github.com/vlgiitr/LoRA-Unlearn.

1. Prune. In every convolution, put the half of the filters with the smallest L2 norms to zero, for good. In a
   transformer, do so with the rows of the last attention's output projection and of the head.
2. Adapt. Put a LoRA adapter into the pruned layers, freeze everything but the adapters and the head, and train on the
   retained rows with cross-entropy and Adam.
3. Merge. Add each adapter to the weight of its layer: the network is again one of the same architecture.

Reads: retain. There is no loss that forgets: what is forgotten was pruned, and is not learned again.

Differences from the code: adapters are merged, which it leaves out. The head is trained in full in transformers too,
where the code has an adapter of rank 16 on ten outputs, which can do the same. Its adapter on the projection of
torchvision's attention acts on nothing, since that attention never calls the layer; here the projection is the last one
within an attention that is called, and without any, the last linear layer before the head. As in the code, the first
convolution is pruned and not adapted, nor are convolutions with groups or dilation; shortcuts are, which the code
leaves out. For networks with neither convolutions nor attention it has nothing: here the rows of their linear layers,
but for the head, count as filters.

What it takes: steps. The paper's five passes over CIFAR-10 are 1,760 of them; on a small set lower the batch size.

Needs peft: ``pip install 'expunge[lora]'``.

Reproduction: not reproduced. The paper finds that it forgets as wholly as fine-tuning and keeps more. On digits and on
a part of CIFAR-10, as the paper sets it, it costs more than `finetune` does, and on digits it leaves more of the class;
tuned, it is among the best on that part of CIFAR-10: the tables of ``docs/methods.md``. At the paper's size (ResNet-50
on CIFAR-10) it was not tried.
"""

import re
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn
from torch.nn.utils import prune

from expunge.access import Access
from expunge.data import Part
from expunge.errors import ModelError
from expunge.methods._adapters import CONVOLUTIONS, adapt, adaptable_layers, merged
from expunge.network import copy_of, find_head
from expunge.runtime import Runtime
from expunge.settings import settings
from expunge.training import Count, Positive, adam, fit

ATTENTION = re.compile("attention|attn", re.IGNORECASE)
"""What attention is called in the names of its classes, whatever the library."""


@settings
class PruneLora:
    """Prune filters, then train LoRA adapters and the head on the retained rows (PruneLoRA)."""

    reads: ClassVar[frozenset[Part]] = frozenset({"retain"})

    amount: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Share of the filters of a layer that are put to zero."""
    rank: Count = 8
    """Rank of the adapters; the paper's ViT has 16."""
    scale: Positive = 2.0
    """Factor of an adapter's update, LoRA's alpha over the rank."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of an adapter's inputs that are dropped in training."""
    epochs: Count = 5
    """Passes over the retained rows."""
    batch_size: Count = 128
    """Rows per step."""
    lr: Positive = 0.001
    """Adam's learning rate."""

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        """Return a copy that was pruned and trained on; stream ``prune_lora/adapters``.

        Raises:
            ModelError: There is no linear head, or no layer before it to prune.
        """
        pruned, head = copy_of(model), head_name(model, access)
        to_prune, to_adapt = choose_layers(pruned, head, access)
        for name in to_prune:
            prune_filters(pruned.get_submodule(name), self.amount)
        adapted = adapt(
            pruned,
            to_adapt,
            runtime,
            rank=self.rank,
            scale=self.scale,
            dropout=self.dropout,
            stream="prune_lora/adapters",
        )
        for name, weight in model.get_submodule(head).named_parameters():
            adapted.get_parameter(f"model.{head}.{name}").requires_grad_(weight.requires_grad)
        training = adam(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)
        fit(adapted, access["retain"], runtime, training, stage="adapt")
        return merged(adapted, model)


def head_name(model: nn.Module, access: Access) -> str:
    """Return the name of the head.

    Raises:
        ModelError: There is no linear head.
    """
    head = find_head(model, access.num_classes)
    name: str = next(name for name, module in model.named_modules() if module is head)
    return name


def choose_layers(model: nn.Module, head: str, access: Access) -> tuple[list[str], list[str]]:
    """Return the names of the layers to prune, and of those to put an adapter into; frozen ones are neither.

    Raises:
        ModelError: There is no layer before the head that an adapter acts on.
    """
    usable = [name for name in adaptable_layers(model, access.input_size) if name != head]
    if not usable:
        raise ModelError(f"expected layers before the head to prune, got none in {type(model).__name__}: use 'retrain'")
    modules = dict(model.named_modules())
    convolutions = [name for name, module in modules.items() if isinstance(module, CONVOLUTIONS)]
    linear = [name for name in usable if isinstance(modules[name], nn.Linear)]
    attentions = [name for name, module in modules.items() if ATTENTION.search(type(module).__name__)]
    if len(convolutions) > 1:  # the only one of a vision transformer cuts its input into patches
        chosen, adapted = convolutions, [name for name in convolutions[1:] if name in usable]
    elif attentions:
        inside = [name for name in linear if any(name.startswith(f"{attention}.") for attention in attentions)]
        adapted = (inside or linear)[-1:]
        chosen = [*adapted, head]
    else:
        chosen = adapted = linear
    return [name for name in chosen if modules[name].get_parameter("weight").requires_grad], adapted or usable


@torch.no_grad()
def prune_filters(layer: nn.Module, amount: float) -> None:
    """Put the filters of a layer with the smallest L2 norms to zero, in place and for good; their biases stay."""
    prune.ln_structured(layer, "weight", amount=amount, n=2, dim=0)  # type: ignore[no-untyped-call]
    prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
