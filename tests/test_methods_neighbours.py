"""Methods beside UNSIR's: adapters, projections and distillation without data; each one's own mechanism at work."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from conftest import Toy
from expunge.access import Access, Count
from expunge.data import PARTS, Data, Split, split
from expunge.errors import DivergedError, ModelError, RequestError
from expunge.forgetting import run_method
from expunge.methods import gated_knowledge_transfer, prune_lora
from expunge.methods._adapters import adapt, adaptable_layers
from expunge.methods._subspaces import find_layers, input_grams
from expunge.methods.gated_knowledge_transfer import GatedKnowledgeTransfer, Transfer, passes
from expunge.methods.projected_gradient import ProjectedGradient, core
from expunge.methods.prune_lora import PruneLora, choose_layers, prune_filters
from expunge.methods.residual_feature_alignment import Alignment, ResidualFeatureAlignment, mean_features
from expunge.request import Request
from expunge.rows import JoinedRows, TensorRows
from expunge.training import Training, fit, predict

SIZE = (1, 16, 16)


def images(seed: int = 0, rows: int = 24, size: tuple[int, ...] = SIZE) -> Data:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    inputs = torch.randn(rows, *size, generator=generator) + labels.reshape(-1, *[1 for _ in size])
    data = TensorRows(inputs, labels)
    return Data(train=data, test=data, label_names=("0", "1", "2"), input_size=size)


def grouped() -> nn.Module:
    """A network whose second convolution has groups, so that no adapter can be merged into it."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def timm_vit() -> nn.Module:
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, in_chans=1, depth=2, embed_dim=24, num_heads=2, num_classes=3
    )
    return model


def torchvision_vit() -> nn.Module:
    model = torchvision.models.VisionTransformer(16, 8, 2, 2, 24, 48, num_classes=3)
    nn.init.normal_(model.heads[-1].weight)
    return nn.Sequential(Coloured(), model)


class Coloured(nn.Module):
    """Three channels of one, for networks that take no other number."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.expand(-1, 3, -1, -1)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.LayerNorm(10), nn.ReLU(), nn.Linear(10, 3))


def fresh(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build()


def world(toy: Toy, model: nn.Module) -> tuple[Toy, Split]:
    data = images()
    return Toy(data, model, toy.runtime), split(data, Request(classes=(1,)))


def zero_filters(weight: Tensor) -> set[int]:
    return set(np.flatnonzero((weight.detach().flatten(1) == 0).all(dim=1).numpy()).tolist())


def test_pruning_puts_the_half_of_the_filters_with_the_smallest_norms_to_zero() -> None:
    layer = nn.Conv2d(2, 5, 3)
    before = layer.weight.detach().clone()
    order = sorted(range(5), key=lambda index: float((before[index] ** 2).sum()))
    prune_filters(layer, 0.4)
    assert zero_filters(layer.weight) == set(order[:2])
    assert torch.equal(layer.weight[order[2:]], before[order[2:]])
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight"]


@pytest.mark.parametrize(
    ("build", "pruned", "adapted"),
    [
        (grouped, ["0", "2", "4"], ["4"]),
        (timm_vit, ["blocks.1.attn.proj", "head"], ["blocks.1.attn.proj"]),
        # its attention never calls its own projection: the last layer before the head that is called
        (torchvision_vit, ["1.encoder.layers.encoder_layer_1.mlp.3", "1.heads.head"], None),
        (mlp, ["1"], ["1"]),
    ],
)
def test_each_kind_of_network_is_pruned_and_adapted_where_it_acts(
    toy: Toy, build: Callable[[], nn.Module], pruned: list[str], adapted: list[str] | None
) -> None:
    model = fresh(build)
    there, parts = world(toy, model)
    access = there.access(parts, PruneLora.reads)
    head = prune_lora.head_name(model, access)
    assert choose_layers(model, head, access) == (pruned, pruned[:-1] if adapted is None else adapted)


@pytest.mark.parametrize("build", [grouped, timm_vit, torchvision_vit, mlp])
def test_prune_lora_leaves_zeros_plus_a_low_rank_update_and_trains_the_head_alone(
    toy: Toy, build: Callable[[], nn.Module]
) -> None:
    model = fresh(build)
    there, parts = world(toy, model)
    method = PruneLora(rank=2, epochs=2, batch_size=4, lr=0.01)
    access = there.access(parts, method.reads)
    head = prune_lora.head_name(model, access)
    pruned, adapted = choose_layers(model, head, access)
    new = method(model, there.access(parts, method.reads), toy.runtime.fresh())
    for name, weight in model.named_parameters():
        layer = name.removesuffix(".weight")
        after = new.get_parameter(name).detach()
        expected = weight.detach().clone()
        if layer in pruned and name != layer:
            norms = expected.flatten(1).norm(dim=1)
            expected[norms.argsort()[: round(len(norms) / 2)]] = 0
            assert len(zero_filters(expected)) == round(len(norms) / 2)
        if layer in adapted:
            update = (after - expected).flatten(1).double()
            assert torch.linalg.matrix_rank(update, atol=1e-5) == 2
        elif name.startswith(f"{head}."):
            assert not torch.equal(after, expected)
        else:
            assert torch.equal(after, expected), name


def test_an_adapter_goes_only_where_a_forward_pass_calls_the_layer() -> None:
    model = fresh(torchvision_vit)
    names = adaptable_layers(model, SIZE)
    assert "1.conv_proj" in names
    assert "1.encoder.layers.encoder_layer_0.mlp.0" in names
    assert not [name for name in names if "self_attention" in name]
    assert adaptable_layers(fresh(grouped), SIZE) == ["0", "4", "8"]


def test_a_network_that_is_its_head_has_nothing_to_prune(toy: Toy) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    there, parts = world(toy, model)
    with pytest.raises(ModelError, match="expected layers before the head to prune, got none in Sequential: use"):
        PruneLora()(model, there.access(parts, PruneLora.reads), toy.runtime.fresh())


@pytest.mark.parametrize("build", [grouped, timm_vit, torchvision_vit, mlp])
def test_residual_feature_alignment_without_its_adapters_is_the_original(
    toy: Toy, build: Callable[[], nn.Module]
) -> None:
    model = fresh(build)
    there, parts = world(toy, model)
    method = ResidualFeatureAlignment(rank=2, epochs=3, batch_size=8, lr=0.01)
    adapted = method.align(model, there.access(parts, method.reads), toy.runtime.fresh())
    for name, value in adapted.model.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, model.state_dict()[name.replace("base_layer.", "")]), name
    adapted.disable_adapter_layers()
    before, off = (predict(one, parts["retain"], toy.runtime)[0] for one in (model, adapted))
    assert torch.equal(before, off)
    adapted.enable_adapter_layers()
    on, _ = predict(adapted, parts["forget"], toy.runtime)
    assert not torch.allclose(predict(model, parts["forget"], toy.runtime)[0], on, rtol=0, atol=1e-4)
    new = method(model, there.access(parts, method.reads), toy.runtime.fresh())
    torch.testing.assert_close(predict(new, parts["forget"], toy.runtime)[0], on, rtol=1e-4, atol=1e-4)


def test_residuals_and_shifts_are_those_of_the_weights(toy: Toy) -> None:
    first, second = nn.Linear(6, 5), nn.Linear(5, 3)
    model = nn.Sequential(first, nn.ReLU(), second)
    rows = TensorRows(torch.randn(9, 6), torch.zeros(9, dtype=torch.int64))
    adapted = adapt(model, ["0", "2"], toy.runtime, rank=2, scale=3.0, dropout=0.0, stream="by hand")
    means = mean_features(adapted, rows, toy.runtime.fresh())
    inputs, _ = rows.batch(np.arange(9))
    torch.testing.assert_close(means, [first(inputs).mean(0), model(inputs).mean(0)])
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    inside = {name: weight.detach() for name, weight in adapted.named_parameters() if "lora_" in name}
    low, high = (
        3 * inside[f"model.{layer}.lora_B.default.weight"] @ inside[f"model.{layer}.lora_A.default.weight"]
        for layer in ("0", "2")
    )
    middle = first(inputs) + inputs @ low.T
    out = second(functional.relu(middle)) + functional.relu(middle) @ high.T
    size = ((inputs @ low.T) ** 2).mean(1) + ((functional.relu(middle) @ high.T) ** 2).mean(1)
    off = ((middle - means[0]) ** 2).mean(1) + ((out - means[1]) ** 2).mean(1)
    found = Alignment(adapted, means)(inputs)
    torch.testing.assert_close(found, torch.stack([size, off], dim=1) / 2)
    marks = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 1])
    loss = ResidualFeatureAlignment(weight=0.5).misalignment(found, marks, inputs)
    # halves of nine rows are four and a half, whatever there are of each kind
    torch.testing.assert_close(loss, (size[marks == 0].sum() / 2 + 0.5 * off[marks == 1].sum() / 2) / 4.5)


def test_retained_answers_stay_and_features_of_the_others_go_to_the_average(toy: Toy) -> None:
    parts = toy.split(1)
    method = ResidualFeatureAlignment(epochs=10, batch_size=8, lr=0.005)
    adapted = method.align(toy.model, toy.access(parts, method.reads), toy.runtime.fresh())
    names = ["trunk.0.0", "trunk.1.0", "trunk.2.0", "head"]
    assert adaptable_layers(toy.model, toy.data.input_size) == names
    untouched = adapt(toy.model, names, toy.runtime, rank=1, scale=1.0, dropout=0.0, stream="untouched")
    wanted = mean_features(untouched, parts["retain"], toy.runtime.fresh())
    kept, lost = (parts[part].batch(np.arange(len(parts[part])))[0] for part in PARTS[:2])
    with torch.no_grad():
        moved = [(adapted.eval()(inputs) - toy.model.eval()(inputs)).square().mean().item() for inputs in (kept, lost)]
        before, after = (Alignment(one, wanted)(lost).mean(0) for one in (untouched, adapted))
    assert moved[0] < moved[1] / 10, moved
    assert before[0] == 0
    assert after[1] < before[1] / 5, (before, after)


class Noting(nn.Module):
    """A small network for four numbers that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.detach().clone())
        logits: Tensor = self.layers(inputs)
        return logits


def corners(toy: Toy) -> tuple[Noting, Split]:
    """Three classes about three corners, with a network that is sure of them."""
    labels = torch.arange(120) % 3
    spread = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    rows = TensorRows(0.4 * spread + 1.5 * torch.eye(4)[labels], labels)
    model = fresh(Noting)
    fit(model, rows, toy.runtime.fresh(), Training(epochs=60, batch_size=16), stage="corners")
    assert isinstance(model, Noting)
    data = Data(train=rows, test=rows, label_names=("0", "1", "2"), input_size=(4,))
    return model, split(data, Request(classes=(1,)))


def test_a_student_is_taught_without_a_row_and_sees_nothing_that_the_gate_holds_back(toy: Toy) -> None:
    model, parts = corners(toy)
    access = Access(parts, GatedKnowledgeTransfer.reads, Noting)
    method = GatedKnowledgeTransfer(
        rounds=40, student_steps=5, batch_size=64, threshold=0.01, noise=8, lr=0.01, generator_lr=1e-4
    )
    new = method(model, access, toy.runtime.fresh())
    assert set(access.counts().values()) == {Count(0, 0)}
    assert isinstance(new, Noting)
    assert len(new.seen) == 40 * 6
    with torch.no_grad():
        shown = model(torch.cat(new.seen)).softmax(dim=1)[:, 1]
        noise = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
        made = fresh(lambda: gated_knowledge_transfer.make_generator(8, (4,)))(noise)
        free = model(made).softmax(dim=1)[:, 1]
    assert shown.max() <= 0.01 + 1e-6
    assert (free > 0.01).double().mean() > 0.3, "the gate has something to hold back"
    wanted, answers = (predict(one, parts["retain"], toy.runtime)[0].argmax(1) for one in (model, new))
    assert (wanted == answers).double().mean() > 0.95
    assert (predict(new, parts["forget"], toy.runtime)[0].argmax(1) == 1).double().mean() < 0.1


def test_a_student_starts_from_random_weights(toy: Toy) -> None:
    model, parts = corners(toy)
    method = GatedKnowledgeTransfer(rounds=1, student_steps=1, noise=8, lr=1e-9, threshold=0.5)
    runtime = toy.runtime.fresh()
    with runtime.seeded("gated_knowledge_transfer/start"):
        start = Noting()
    new = method(model, Access(parts, method.reads, Noting), runtime)
    for name, weight in new.named_parameters():
        torch.testing.assert_close(weight, start.get_parameter(name), rtol=0, atol=1e-7)
        assert not torch.allclose(weight, model.get_parameter(name), rtol=0, atol=1e-2)


def test_the_gate_lets_pass_what_is_no_forgotten_class_by_hand() -> None:
    probabilities = torch.tensor([[0.98, 0.01, 0.01], [0.9, 0.05, 0.05], [0.5, 0.002, 0.498], [0.5, 0.498, 0.002]])
    assert passes(probabilities.log(), (1,), 0.02).tolist() == [True, False, True, False]
    assert passes(probabilities.log(), (1, 2), 0.02).tolist() == [True, False, False, False]


def test_a_generator_that_makes_only_forgotten_classes_goes_back(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated_knowledge_transfer, "PATIENCE", 2)
    monkeypatch.setattr(gated_knowledge_transfer, "SAVED_EVERY", 2)
    passed = iter([True] * 5 + [False, False] + [True] * 2)
    found = []

    def scripted(transfer: Transfer, noise: Tensor) -> bool:
        weight = next(transfer.generator.network.parameters())
        found.append(weight.mean().item())
        with torch.no_grad():
            weight.fill_(len(found))
        return next(passed)

    monkeypatch.setattr(Transfer, "round", scripted)
    _, parts = corners(toy)
    GatedKnowledgeTransfer(rounds=7, noise=8)(fresh(Noting), Access(parts, (), Noting), toy.runtime.fresh())
    # kept after rounds 2 and 4: once two have passed nothing, back to the older of them
    assert found[1:] == [1, 2, 3, 4, 5, 6, 2, 8]


def test_a_gate_that_nothing_passes_is_told(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated_knowledge_transfer, "PATIENCE", 2)
    model, parts = fresh(Noting), corners(toy)[1]
    with torch.no_grad():
        model.get_parameter("layers.2.bias")[1] = 100
    with pytest.raises(DivergedError, match="got none in 2 batches, 4 times: raise threshold, or lower generator_lr"):
        GatedKnowledgeTransfer(rounds=9, noise=8)(model, Access(parts, (), Noting), toy.runtime.fresh())


def wide() -> nn.Module:
    """A network whose layers are wider than a few rows can fill, convolution with a stride and normalisation too."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 8, stride=8, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 64),
        nn.ReLU(),
        nn.Linear(64, 3),
    )


def few(rows: int = 9) -> Data:
    return images(rows=rows)


def test_no_layer_feels_the_steps_on_retained_rows_when_the_core_holds_all(toy: Toy) -> None:
    model = fresh(wide)
    parts = split(few(), Request(classes=(1,)))
    there = Toy(few(), model, toy.runtime)
    method = ProjectedGradient(share=1.0, lr=0.05)
    new = method(model, there.access(parts, method.reads), toy.runtime.fresh())
    for name, layer in find_layers(new).items():
        given: list[Tensor] = []
        old = model.get_submodule(name)
        handle = old.register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))  # noqa: B023
        with torch.no_grad():
            model.eval()(parts["retain"].batch(np.arange(6))[0])
            handle.remove()
            torch.testing.assert_close(layer(given[0]), old(given[0]), rtol=0, atol=1e-6, msg=name)
        assert not torch.allclose(layer.weight, model.get_parameter(f"{name}.weight"), rtol=0, atol=1e-3), name
    before, after = (predict(one, parts["forget"], toy.runtime)[0].softmax(dim=1)[:, 1] for one in (model, new))
    assert after.max() < before.min() / 2, (before, after)
    trained = {f"{name}.weight" for name in find_layers(new)}
    for name, value in new.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]) == (name not in trained), name


def test_what_is_left_of_all_rows_without_the_forgotten_ones_is_the_retained_rows(toy: Toy) -> None:
    model, parts = fresh(wide), split(few(), Request(rows=(0, 5)))
    retained, forgotten, whole = (
        input_grams(model, rows, toy.runtime.fresh(), stage="by hand")
        for rows in (parts["retain"], parts["forget"], JoinedRows(parts["retain"], parts["forget"]))
    )
    for name, gram in retained.items():
        down_dated = whole[name].values - forgotten[name].values
        torch.testing.assert_close(down_dated, gram.values, rtol=1e-5, atol=1e-3)
        bases = (core(values[0], 0.9) for values in (down_dated, gram.values))
        one, other = (basis @ basis.mT for basis in bases)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_a_second_request_needs_no_retained_row_where_the_first_has_kept_their_sums(toy: Toy) -> None:
    model, method = fresh(wide), ProjectedGradient(share=1.0, lr=0.05, keep=True)
    first = split(few(), Request(classes=(1,)))
    made = run_method(method, model, first, toy.runtime, lambda: fresh(wide))
    assert (made.access["retain"].reads, made.access["forget"].rows) == (6, 3)
    assert set(made.statistics) == {"rows", "gram/0", "gram/4", "gram/6"}
    second = split(replace(few(), earlier=(first.request,)), Request(classes=(2,)))
    again = run_method(method, made.model, second, toy.runtime, lambda: fresh(wide), statistics=made.statistics)
    assert again.access["retain"].reads == 0
    assert again.statistics["rows"] == len(second["retain"]) == 3
    anew = run_method(method, made.model, second, toy.runtime, lambda: fresh(wide))
    assert anew.access["retain"].reads == 3
    for name, values in anew.statistics.items():
        torch.testing.assert_close(again.statistics[name], values, rtol=1e-4, atol=1e-4, msg=name)
    inputs = second["retain"].batch(np.arange(3))[0]
    before, after, other = (one.model.eval()(inputs) for one in (made, again, anew))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)  # as if retained rows had been read
    torch.testing.assert_close(other, before, rtol=0, atol=1e-4)
    forgotten, answers = second["forget"].batch(np.arange(3))[0], []
    for one in (made, again):
        answers.append(one.model(forgotten).softmax(dim=1)[:, 2])
    assert answers[1].max() < answers[0].min() / 2

    more = split(replace(few(12), earlier=(first.request,)), Request(classes=(2,)))
    with pytest.raises(RequestError, match="expected the 6 training rows that the kept Gram matrices are of, got 8"):
        run_method(method, made.model, more, toy.runtime, lambda: fresh(wide), statistics=made.statistics)
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    with pytest.raises(RequestError, match="expected Gram matrices of the layers of this network"):
        run_method(method, narrow, second, toy.runtime, lambda: narrow, statistics=made.statistics)
    plain = ProjectedGradient(share=1.0, lr=0.05)
    made = run_method(plain, made.model, second, toy.runtime, lambda: fresh(wide), statistics=made.statistics)
    assert (made.access["retain"].reads, dict(made.statistics)) == (3, {})


def test_the_core_takes_the_fewest_of_the_longest_directions_by_hand() -> None:
    values = torch.diag(torch.tensor([16.0, 0.0, 4.0, 1.0, 1e-9], dtype=torch.float64))  # lengths 4, 0, 2, 1, and noise
    for share, kept in ((0.5, [0]), (0.6, [0, 2]), (6 / 7 + 1e-6, [0, 2, 3]), (1.0, [0, 2, 3])):
        basis = core(values, share)
        torch.testing.assert_close((basis @ basis.mT).diagonal(), torch.eye(5).double()[kept].sum(0))


def test_the_unlearning_loss_is_that_of_the_code_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], dtype=torch.float64).log()
    loss = ProjectedGradient(offset=0.05, entropy=0.2).unlearning(logits, torch.tensor([0, 2]), logits)
    pushed = (-np.log(0.55) - np.log(0.45)) / 2
    spread = (0.5 * np.log(2) + 0.5 * np.log(4) - 0.4 * np.log(0.2) - 0.6 * np.log(0.6)) / 2
    assert loss.item() == pytest.approx(pushed - 0.2 * spread)
