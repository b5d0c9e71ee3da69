"""Others: the classes that may take the place of a row's own: all but that one and the forgotten ones."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from expunge.access import Access


def forgotten_classes(access: Access) -> tuple[int, ...]:
    """Return the classes to forget and those that were forgotten before; of requests of single rows there are none."""
    kept = access.kept_classes()
    return tuple(index for index in range(access.num_classes) if index not in kept)


def among_others(
    logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], forgotten: tuple[int, ...]
) -> Float[Tensor, "rows classes"]:
    """Return logits with minus infinity for each row's own class and for the forgotten ones.

    Args:
        logits: Of some rows.
        labels: The class of each.
        forgotten: Classes that no row may be taken for.
    """
    hidden = functional.one_hot(labels, logits.shape[1]).bool()
    hidden[:, list(forgotten)] = True
    return logits.masked_fill(hidden, -torch.inf)
