"""Others: the classes that may take the place of a row's own: all but that one and those to be forgotten."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from expunge.access import Access


def forgotten_classes(access: Access) -> tuple[int, ...]:
    """Return the classes to forget; of a request of single rows there are none."""
    return () if access.request.rows else access.classes()


def among_others(
    logits: Float[Tensor, "rows classes"], labels: Int64[Tensor, " rows"], forgotten: tuple[int, ...]
) -> Float[Tensor, "rows classes"]:
    """Return logits with minus infinity for each row's own class and for those to be forgotten.

    Args:
        logits: Of some rows.
        labels: The class of each.
        forgotten: Classes that no row may be taken for.
    """
    hidden = functional.one_hot(labels, logits.shape[1]).bool()
    hidden[:, list(forgotten)] = True
    return logits.masked_fill(hidden, -torch.inf)
