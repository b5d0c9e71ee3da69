"""Methods that read what is to be forgotten alone: delete, boundary_shrink, boundary_expand, jit and mu_mis."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Toy
from expunge.data import split
from expunge.errors import ModelError
from expunge.methods import boundary_expand, boundary_shrink
from expunge.methods._other_classes import among_others
from expunge.methods.boundary_expand import BoundaryExpand, widened
from expunge.methods.boundary_shrink import BoundaryShrink, nearest_labels
from expunge.methods.delete import Delete, divergence
from expunge.methods.jit import Jit, Shaken
from expunge.methods.mu_mis import MuMis, differentiable, sensitivity
from expunge.network import Network, batch_norms, find_head
from expunge.request import Request
from expunge.rows import Rows

NESTEROV = 1.9
"""How many times as far as its rate says the first step of SGD with Nesterov momentum of 0.9 goes."""


def linear() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def run(method: Any, model: nn.Module, toy: Toy, request: Request, seed: int = 0) -> nn.Module:
    access = Toy(toy.data, model, toy.runtime).access(split(toy.data, request), method.reads)
    new: nn.Module = method(model, access, toy.runtime.fresh(seed=seed))
    return new


def watch(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[tuple[nn.Module, Rows]]:
    """Return, for every training of a method that will come, a copy of the network at its start, and its rows."""
    found: list[tuple[nn.Module, Rows]] = []
    real = module.fit

    def fit(model: nn.Module, rows: Rows, *others: Any, **named: Any) -> None:
        found.append((copy.deepcopy(model), rows))
        real(model, rows, *others, **named)

    monkeypatch.setattr(module, "fit", fit)
    return found


def test_other_classes_are_all_but_the_own_and_those_to_be_forgotten() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    hidden = -torch.inf
    wanted = torch.tensor([[hidden, 2.0, hidden, 4.0], [5.0, 6.0, hidden, hidden]])
    assert torch.equal(among_others(logits, torch.tensor([0, 3]), (2,)), wanted)
    wanted = torch.tensor([[hidden, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, hidden]])
    assert torch.equal(among_others(logits, torch.tensor([0, 3]), ()), wanted)


def test_delete_has_no_loss_where_the_answer_is_the_originals_without_the_class() -> None:
    # the original gives 1 : 2 : 5 : 8, of which the second is the row's own: 1, 5 and 8 of 14 are left
    original = torch.tensor([[1.0, 2.0, 5.0, 8.0]]).log() + 3.0
    target = among_others(original, torch.tensor([1]), ()).softmax(dim=1)
    torch.testing.assert_close(target, torch.tensor([[1 / 14, 0.0, 5 / 14, 8 / 14]]))
    answer = torch.tensor([[1.0, 1e-30, 5.0, 8.0]]).log()
    assert divergence(answer, target).item() == pytest.approx(0, abs=1e-6)
    # kept as it was, the answer lacks 2 of 16: each share left is 16 / 14 times what it was
    assert divergence(original, target).item() == pytest.approx(np.log(16 / 14), rel=1e-5)
    both = divergence(torch.cat([original, answer]), torch.cat([target, target]))
    assert both.item() == pytest.approx(np.log(16 / 14) / 2, rel=1e-5)


@pytest.mark.parametrize("request_", [Request(classes=(1,)), Request(classes=(1, 2)), Request(rows=(3, 40, 77))])
def test_delete_goes_down_the_divergence_from_the_masked_original(toy: Toy, request_: Request) -> None:
    model, rate = linear(), 0.01
    rows = split(toy.data, request_)["forget"]
    new = run(Delete(epochs=1, batch_size=1000, lr=rate), model, toy, request_)
    inputs, labels = rows.batch(np.arange(len(rows)))
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    logits = model(inputs)
    loss = torch.zeros(())
    for row, own in zip(logits, labels.tolist(), strict=True):
        kept = [index for index in range(4) if index != own and index not in request_.classes]
        shares = row[kept].detach().exp() / row[kept].detach().exp().sum()
        loss = loss + (shares * (shares.log() - row.log_softmax(0)[kept])).sum() / len(rows)
    (gradient,) = torch.autograd.grad(loss, [layer.weight])
    torch.testing.assert_close(new.get_parameter("1.weight"), layer.weight - rate * NESTEROV * gradient)


def test_batch_normalisation_keeps_its_statistics_unless_told_otherwise(toy: Toy) -> None:
    for choice in ("still", "moving"):
        new = run(Delete(epochs=1, batch_norm=choice), toy.model, toy, Request(classes=(1,)))
        norms = zip(batch_norms(toy.model), batch_norms(new), strict=True)
        same = [
            torch.equal(before.get_buffer("running_mean"), after.get_buffer("running_mean")) for before, after in norms
        ]
        assert same == [choice == "still"] * 3


def test_nearest_classes_of_a_linear_model_are_those_of_its_gradient_by_hand(toy: Toy) -> None:
    model = linear()
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    rows = toy.split(1)["forget"]
    inputs, _ = rows.batch(np.arange(len(rows)))
    flat = inputs.flatten(1).detach().numpy().astype(np.float64)
    weight, bias = (value.detach().numpy().astype(np.float64) for value in (layer.weight, layer.bias))
    scores = np.exp(flat @ weight.T + bias)
    shares = scores / scores.sum(axis=1, keepdims=True)
    moved = flat + 0.3 * np.sign((shares - np.eye(4)[1]) @ weight)  # the gradient of the cross-entropy with class 1
    logits = moved @ weight.T + bias
    for forgotten, others in (((), [0, 2, 3]), ((1, 2), [0, 3])):
        found = nearest_labels(model, rows, forgotten, toy.runtime.fresh(), bound=0.3, batch_size=7)
        np.testing.assert_array_equal(found, np.array(others)[logits[:, others].argmax(axis=1)])
        assert len(set(found)) > 1


def test_nearest_classes_of_a_network_are_those_of_one_row_after_the_other(toy: Toy) -> None:
    rows = split(toy.data, Request(rows=tuple(range(40))))["forget"]
    network, unlike_at_rest = copy.deepcopy(toy.model).eval(), 0
    found = nearest_labels(toy.model, rows, (), toy.runtime.fresh(), bound=1.0, batch_size=16)
    for index in range(40):
        row, label = rows.batch(np.array([index]))
        row.requires_grad_()
        own = int(label)
        at_rest = network(row)[0]
        (gradient,) = torch.autograd.grad(-at_rest.log_softmax(0)[own], [row])
        logits = network(row + gradient.sign())[0].tolist()
        nearest = max((index for index in range(4) if index != own), key=logits.__getitem__)
        assert found[index] == nearest
        unlike_at_rest += nearest != max(
            (index for index in range(4) if index != own), key=at_rest.tolist().__getitem__
        )
    assert unlike_at_rest > 0  # the step has its say


@pytest.mark.parametrize("request_", [Request(classes=(1,)), Request(rows=(3, 40, 77))])
def test_boundary_shrink_trains_the_forgotten_rows_as_they_are_under_the_nearest_classes(
    toy: Toy, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = watch(monkeypatch, boundary_shrink)
    method, forget = BoundaryShrink(epochs=1), split(toy.data, request_)["forget"]
    run(method, toy.model, toy, request_)
    ((_, rows),) = shown
    indices = np.arange(len(forget))
    assert torch.equal(rows.batch(indices)[0], forget.batch(indices)[0])
    nearest = nearest_labels(
        toy.model, forget, (1,) if request_.classes else (), toy.runtime.fresh(), bound=0.5, batch_size=64
    )
    np.testing.assert_array_equal(rows.labels, nearest)
    assert (rows.labels != forget.labels).all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_widened_head_gives_what_it_gave_and_one_output_more(bias: bool) -> None:
    head = nn.Linear(6, 3, bias=bias)
    wide, inputs = widened(head), torch.randn(5, 6)
    assert wide(inputs).shape == (5, 4)
    torch.testing.assert_close(wide(inputs)[:, :3], head(inputs))
    assert wide.weight[3].abs().min() > 0
    assert wide(torch.zeros(6))[3] == 0
    assert (wide.bias is not None) == bias


def test_boundary_expand_trains_a_shadow_class_and_prunes_it(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = watch(monkeypatch, boundary_expand)
    method, forget = BoundaryExpand(epochs=3, lr=1e-3), toy.split(1)["forget"]
    new = run(method, toy.model, toy, Request(classes=(1,)))
    ((before, rows),) = shown
    assert set(rows.labels) == {4}
    indices = np.arange(len(forget))
    inputs, _ = forget.batch(indices)
    assert torch.equal(rows.batch(indices)[0], inputs)
    head, original = find_head(before, 5), find_head(toy.model, 4)
    assert torch.equal(head.weight[:4], original.weight)
    torch.testing.assert_close(before.eval()(inputs)[:, :4], toy.model.eval()(inputs))
    assert (before(inputs).argmax(1) == 4).float().mean() < 0.2
    # trained by hand from there, with PyTorch's own optimiser, in batches drawn from the same stream
    optimizer = torch.optim.SGD(before.parameters(), 1e-3, momentum=0.9, nesterov=True)
    for batch, _, _ in toy.runtime.fresh().batches(rows, 64, epochs=3, stream="expand/order"):
        optimizer.zero_grad()
        torch.autograd.backward(-before(batch).log_softmax(1)[:, 4].mean())
        optimizer.step()
    assert (before(inputs).argmax(1) == 4).float().mean() > 0.8
    pruned = find_head(new, 4)
    assert new.eval()(inputs).shape == (len(forget), 4)
    assert (pruned.weight - original.weight).abs().max() > 1e-3
    torch.testing.assert_close(pruned.weight, head.weight[:4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new(inputs), before(inputs)[:, :4], rtol=1e-3, atol=1e-3)


def test_boundary_expand_wants_a_linear_head(toy: Toy) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten())
    with pytest.raises(ModelError, match="expected a linear layer with 4 outputs, got none in Sequential, but a conv"):
        run(BoundaryExpand(), model, toy, Request(classes=(1,)))


def test_a_map_that_stretches_by_three_has_a_ratio_of_three_whatever_the_noise() -> None:
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    stretching = nn.Linear(8, 8)
    with torch.no_grad():
        stretching.weight.copy_(3 * rotation)
    shaken = Shaken(stretching, sigma=0.2, samples=5)
    torch.testing.assert_close(shaken(torch.randn(4, 8)), torch.full((4, 5), 3.0))


def test_the_noise_has_the_deviation_that_it_is_given(toy: Toy) -> None:
    seen: list[torch.Tensor] = []
    network = copy.deepcopy(toy.model).eval()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    inputs, _ = toy.data.train.batch(np.arange(100))
    ratios = Shaken(network, sigma=0.7, samples=4)(inputs)
    noises = [others - seen[0] for others in seen[1:]]
    assert len(noises) == 4
    values = torch.stack(noises).flatten()
    assert values.std().item() == pytest.approx(0.7, rel=5 / (2 * len(values)) ** 0.5)
    assert values.mean().abs() < 5 * 0.7 / len(values) ** 0.5
    for index, row in np.ndindex(4, 100):
        if row % 25 == 0:  # by hand, from what the network was given
            outputs = network(torch.stack([inputs[row], seen[1 + index][row]])).detach()
            out = float((outputs[0] - outputs[1]).square().sum()) ** 0.5
            across = float((inputs[row] - seen[1 + index][row]).square().sum()) ** 0.5
            assert ratios[row, index].item() == pytest.approx(out / across, rel=1e-3)


@pytest.mark.parametrize("gradient", ["clean", "both"])
def test_jit_goes_down_the_ratio_by_its_gradient_or_by_the_half_of_it(toy: Toy, gradient: Any) -> None:
    model, request = linear(), Request(rows=(3, 40, 77))
    rows = split(toy.data, request)["forget"]
    method = Jit(samples=2, lr=0.05, gradient=gradient)
    new = run(method, model, toy, request)
    runtime, layer = toy.runtime.fresh(), model[1]
    assert isinstance(layer, nn.Linear)
    ((inputs, _, _),) = runtime.batches(rows, 128, stream="smoothing/order")
    with runtime.seeded("smoothing/dropout", apart=True):
        noises = [0.5 * torch.randn(3, 1, 8, 8) for _ in range(2)]
    slope = torch.zeros(4, 64)
    for noise in noises:
        for row, shake in zip(inputs.flatten(1), noise.flatten(1), strict=True):
            moved = -layer.weight.detach() @ shake  # of a linear map, the clean output less the noisy one
            by = row if gradient == "clean" else -shake
            slope += torch.outer(moved / moved.norm(), by) / shake.norm() / 6
    torch.testing.assert_close(new.get_parameter("1.weight"), layer.weight - 0.05 * NESTEROV * slope)


def test_jit_lowers_the_local_lipschitz_constant_at_forgotten_rows_most_by_the_gradient_of_its_loss(toy: Toy) -> None:
    parts, request = toy.split(1), Request(classes=(1,))
    new = run(Jit(batch_size=16, lr=0.002, gradient="both"), toy.model, toy, request)
    inputs = {part: parts[part].batch(np.arange(len(parts[part])))[0] for part in parts.parts}
    fall = {part: 1 - steepest(new, inputs[part]) / steepest(toy.model, inputs[part]) for part in ("forget", "retain")}
    assert fall["forget"] > 0.1
    assert fall["forget"] > fall["retain"] + 0.1
    # what the docstring says of the two: with the code's half of the gradient it forgets, and the constant stays
    half = run(Jit(batch_size=16, lr=0.002), toy.model, toy, request)
    assert steepest(half, inputs["forget"]) > 0.95 * steepest(toy.model, inputs["forget"])
    known = [toy.accuracy(model, parts, "forget_test") for model in (toy.model, new, half)]
    assert known[1] >= known[0] > 0.9
    assert known[2] < 0.1


def steepest(model: nn.Module, inputs: torch.Tensor) -> float:
    """Return the mean over rows of the steepest of many small steps: a lower bound of the local Lipschitz constant."""
    model, generator = copy.deepcopy(model).eval(), torch.Generator().manual_seed(9)
    with torch.no_grad():
        steps = [0.05 * torch.randn(inputs.shape, generator=generator) for _ in range(50)]
        outputs = [(model(inputs + step) - model(inputs)).norm(dim=1) for step in steps]
    ratios = [output / step.flatten(1).norm(dim=1) for output, step in zip(outputs, steps, strict=True)]
    return torch.stack(ratios).amax(dim=0).mean().item()


def test_sensitivity_is_the_squared_slope_by_finite_differences(toy: Toy) -> None:
    network = copy.deepcopy(toy.model).double().eval()
    inputs = toy.data.train.batch(np.arange(3))[0].double()
    classes = torch.tensor([2, 0, 3])
    with differentiable(network) as shown:
        found = sensitivity(network(inputs), classes, shown[0])
    for row, index in enumerate(classes.tolist()):
        steps = 1e-6 * torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
        with torch.no_grad():
            slopes = (network(inputs[row] + steps) - network(inputs[row] - steps))[:, index] / 2e-6
        assert found[row].item() == pytest.approx(float(slopes.square().sum()), rel=1e-6)
    assert not network._forward_pre_hooks
    (slope,) = torch.autograd.grad(found.sum(), [find_head(network, 4).weight])
    assert slope.abs().max() > 0  # it can itself be made smaller


@pytest.mark.parametrize(("forgotten", "others"), [((1,), (0, 2, 3)), ((1, 2), (0, 3))])
def test_mu_mis_shrinks_the_own_logit_of_a_linear_model_and_stretches_another_drawn_at_random(
    toy: Toy, forgotten: tuple[int, ...], others: tuple[int, ...]
) -> None:
    model, rate = linear(), 0.01
    request = Request(classes=forgotten)
    new = run(MuMis(epochs=1, batch_size=1000, lr=rate), model, toy, request)
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    # the sensitivity of a logit is the squared length of its weights, whatever the input: its slope is twice these
    factors = (new.get_parameter("1.weight") / layer.weight).detach()
    torch.testing.assert_close(factors, factors[:, :1].expand(4, 64), rtol=1e-4, atol=0)
    moved = (factors[:, 0] - 1) / (2 * rate * NESTEROV)
    labels = split(toy.data, request)["forget"].labels
    for index in forgotten:
        assert moved[index].item() == pytest.approx(-(labels == index).mean(), rel=1e-3)
    shares = moved[list(others)]
    assert shares.sum().item() == pytest.approx(1, rel=1e-3)
    assert (shares - 1 / len(others)).abs().max() < 0.2


def test_mu_mis_refuses_a_layer_that_pytorch_does_not_differentiate_twice(toy: Toy) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Hardsigmoid(), nn.Linear(64, 4))
    with pytest.raises(
        ModelError, match=r"differentiates twice, got one .*hardsigmoid_backward.*: choose another method"
    ):
        run(MuMis(), model, toy, Request(classes=(1,)))


def test_mu_mis_lowers_how_much_more_sensitive_the_own_class_is(toy: Toy) -> None:
    rows = toy.split(1)["forget"]
    new = run(MuMis(), toy.model, toy, Request(classes=(1,)))
    inputs, _ = rows.batch(np.arange(len(rows)))
    differences = []
    for model in (copy.deepcopy(toy.model).eval(), copy.deepcopy(new).eval()):
        slopes = torch.func.vmap(torch.func.jacrev(lambda row, model=model: model(row[None])[0]))(inputs)
        squares = slopes.flatten(2).square().sum(dim=2).mean(dim=0)
        differences.append(float((squares[1] - squares[[0, 2, 3]].mean()).detach()))
    assert differences[0] > 0
    assert differences[1] < 0.5 * differences[0]


@pytest.mark.parametrize("method", [Delete(), BoundaryShrink(), BoundaryExpand(), Jit(samples=2), MuMis()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_transformer_forgets_too(toy: Toy, method: Any, dtype: torch.dtype) -> None:
    small = {"patch_size": 4, "embed_dim": 24, "num_heads": 3, "depth": 2}
    with toy.runtime.seeded("transformer"):
        model = Network(name="vit_tiny_patch16_224", args=small).build(toy.data).to(dtype)
    new = run(method, model, toy, Request(classes=(1,)))
    moved = [name for name, value in new.state_dict().items() if (value != model.state_dict()[name]).any()]
    assert len(moved) > 10
    assert all(value.dtype == dtype and value.isfinite().all() for value in new.state_dict().values())
