"""Methods that edit layers one by one, or the head alone: which layers they take, and which they refuse."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from conftest import Toy
from expunge.case import Method
from expunge.errors import ModelError
from expunge.methods.damp import Damp
from expunge.methods.esc import Esc
from expunge.methods.head_mask import HeadMask
from expunge.methods.null_space import NullSpace
from expunge.methods.pour import Pour
from expunge.methods.projected_gradient import ProjectedGradient
from expunge.methods.svd import Svd
from test_methods_closed import TETRAHEDRON, head_of, with_head
from test_subspaces import Tied


class Signals(nn.Module):
    """A network of one-dimensional and three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 3, stride=2, groups=2))
        self.volumes = nn.Sequential(nn.Conv3d(1, 4, (2, 3, 1)), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(24, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.volumes(self.rows(images[:, 0]).view(-1, 1, 4, 3, 2)))
        return logits


EVERY_LAYER = [
    Damp(),
    Svd(alpha_r=(100.0,), alpha_f=(3.0,)),
    NullSpace(share=0.5),
    ProjectedGradient(share=0.5, epochs=5),
]


@pytest.mark.parametrize("method", EVERY_LAYER)
def test_every_convolution_is_edited_however_many_axes_it_has(toy: Toy, method: Method) -> None:
    with toy.runtime.seeded("signals"):
        model = Signals()
    world = Toy(toy.data, model, toy.runtime)
    new = method(model, world.access(toy.split(1), method.reads), toy.runtime.fresh())
    for name, weight in model.named_parameters():
        assert torch.equal(new.get_parameter(name), weight) == name.endswith("bias"), name


@pytest.mark.parametrize("method", [*EVERY_LAYER, Esc()])
def test_the_last_layer_of_a_network_of_timm_may_be_its_own_linear_one(toy: Toy, method: Method) -> None:
    with toy.runtime.seeded("linear"):
        ours = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    theirs = copy.deepcopy(ours)
    theirs[3] = timm.layers.Linear(16, 4)
    theirs.load_state_dict(ours.state_dict())
    found = [
        method(model, Toy(toy.data, model, toy.runtime).access(toy.split(1), method.reads), toy.runtime.fresh())
        for model in (ours, theirs)
    ]
    for name, weight in found[0].named_parameters():
        assert torch.equal(found[1].get_parameter(name), weight), name


@pytest.mark.parametrize("method", EVERY_LAYER)
def test_what_cannot_be_edited_layer_by_layer_is_refused_before_a_row_is_read(toy: Toy, method: Method) -> None:
    upward = nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.Flatten(), nn.Linear(200, 4))
    for model, message in (
        (Tied(), "expected a weight of its own in every layer"),
        (upward, "expected linear layers and convolutions, got a ConvTranspose2d"),
        (with_head(TETRAHEDRON).requires_grad_(False), "expected linear layers or convolutions that can change"),
    ):
        access = Toy(toy.data, model, toy.runtime).access(toy.split(1), method.reads)
        with pytest.raises(ModelError, match=message):
            method(model, access, toy.runtime.fresh())
        assert not any(count.reads for count in access.counts().values())


@pytest.mark.parametrize("method", [Pour(), Esc(), HeadMask()])
def test_a_head_that_cannot_be_edited_is_refused(toy: Toy, method: Method) -> None:
    parts = toy.split(1)
    frozen, tied, normed = (with_head(TETRAHEDRON) for _ in range(3))
    head_of(frozen).weight.requires_grad_(False)
    tied.register_parameter("again", tied.get_parameter("2.weight"))
    nn.utils.parametrizations.weight_norm(head_of(normed))
    for model, message in (
        (frozen, r"expected a head that can change, got a frozen weight \(2\): unfreeze it"),
        (tied, r"got one shared by again and 2\.weight"),
        (normed, "got 2 whose weight is computed from others"),
    ):
        with pytest.raises(ModelError, match=message):
            method(model, Toy(toy.data, model, toy.runtime).access(parts, method.reads), toy.runtime.fresh())


def test_a_frozen_bias_of_the_head_is_no_matter_to_a_method_that_leaves_it(toy: Toy) -> None:
    model = with_head(TETRAHEDRON)
    head_of(model).bias.requires_grad_(False)
    access = Toy(toy.data, model, toy.runtime).access
    new = Esc()(model, access(toy.split(1), Esc.reads), toy.runtime.fresh())
    assert not torch.equal(head_of(new).weight, head_of(model).weight)
    for method in (Pour(), HeadMask()):
        with pytest.raises(ModelError, match="got a frozen bias"):
            method(model, access(toy.split(1), method.reads), toy.runtime.fresh())
