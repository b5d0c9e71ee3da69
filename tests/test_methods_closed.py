"""Closed-form methods: which directions are gone, and what is left, by hand and against numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Toy
from expunge.data import split
from expunge.errors import RequestError, SettingsError
from expunge.methods import esc, null_space, svd
from expunge.methods._subspaces import find_layers, inputs_of, matrix_of
from expunge.methods.damp import Damp, Moments, own_projection, separability
from expunge.methods.esc import Esc
from expunge.methods.null_space import NullSpace, pseudo_labels, retained_subspaces
from expunge.methods.pour import Pour, without
from expunge.methods.svd import Svd
from expunge.request import Request
from expunge.rows import Rows, TakenRows
from test_subspaces import seen_by_layers

TETRAHEDRON = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
"""The corners of a regular simplex of four classes."""


def images_of(rows: Rows) -> Tensor:
    return rows.batch(np.arange(len(rows)))[0]


def head_of(model: nn.Module) -> nn.Linear:
    (head,) = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 4]
    return head


def with_head(weights: Tensor) -> nn.Module:
    """Return a network whose head has these weights."""
    head = nn.Linear(weights.shape[1], len(weights))
    with torch.no_grad():
        head.weight.copy_(weights)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, weights.shape[1]), head)


@pytest.mark.parametrize("centre", [True, False])
def test_pour_leaves_a_simplex_of_the_others(toy: Toy, centre: bool) -> None:
    parts, method = toy.split(0), Pour(centre=centre)
    model = with_head(TETRAHEDRON + torch.tensor([0.0, 5, 2]) * centre)  # what all classes share is no class's
    new = head_of(method(model, toy.access(parts, method.reads), toy.runtime.fresh()))
    # (1, -1, -1) without its part along (1, 1, 1) / 3 is (4, -2, -2) / 3, and so for the others
    wanted = torch.tensor([[0.0, 0, 0], [4, -2, -2], [-2, 4, -2], [-2, -2, 4]]) / 3
    torch.testing.assert_close(new.weight.detach(), wanted)
    corners = new.weight.detach()[1:]
    angles = torch.nn.functional.cosine_similarity(corners[:, None], corners[None], dim=2)
    torch.testing.assert_close(angles, 1.5 * torch.eye(3) - 0.5)  # a triangle: -1 / (3 - 1)
    bias = head_of(model).bias.detach()
    torch.testing.assert_close(new.bias[1:].detach(), bias[1:])
    torch.testing.assert_close(new.bias[0].item(), bias[1:].mean().item() if centre else 0.0)


@pytest.mark.parametrize("classes", [(1,), (0, 3)])
def test_pour_makes_the_head_blind_along_the_classes_and_nowhere_else(toy: Toy, classes: tuple[int, ...]) -> None:
    new = head_of(Pour()(toy.model, toy.access(toy.split(*classes), Pour.reads), toy.runtime.fresh()))
    before = head_of(toy.model).weight.detach()
    before = before - before.mean(0)
    gone = before[list(classes)]
    kept = [index for index in range(4) if index not in classes]
    assert (new.weight @ gone.T).abs().max() < 1e-5
    across, _ = torch.linalg.qr(torch.cat([gone, torch.randn(5, before.shape[1])]).T)
    across = across[:, len(classes) :]  # at right angles to the classes
    torch.testing.assert_close((new.weight @ across)[kept], (before @ across)[kept], rtol=1e-4, atol=1e-5)
    projection = without(gone)
    torch.testing.assert_close(projection @ projection, projection)
    assert projection.trace().item() == pytest.approx(before.shape[1] - len(classes))


def test_pour_gives_a_forgotten_class_the_mean_of_the_others_logits(toy: Toy) -> None:
    parts = toy.split(0, 3)
    new = Pour()(toy.model, toy.access(parts, Pour.reads), toy.runtime.fresh())
    with torch.no_grad():
        logits = new.eval()(images_of(parts["forget"]))
    mean = logits[:, [1, 2]].mean(1, keepdim=True)
    torch.testing.assert_close(logits[:, [0, 3]], mean.expand(-1, 2), rtol=1e-4, atol=1e-4)


def test_pour_refuses_single_rows(toy: Toy) -> None:
    parts = split(toy.data, Request(rows=(1, 2)))
    with pytest.raises(RequestError, match="expected a request of whole classes"):
        Pour()(toy.model, toy.access(parts, Pour.reads), toy.runtime.fresh())


@pytest.mark.parametrize(("percent", "erased"), [(3.0, 1), (10.0, 3), (50.0, 16)])
def test_esc_takes_the_strongest_singular_vectors_from_the_features(toy: Toy, percent: float, erased: int) -> None:
    parts, method = toy.split(1), Esc(percent=percent)
    new = head_of(method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh()))
    head = head_of(toy.model)
    features = seen_by_layers(toy.model, images_of(parts["forget"]))["head"].numpy()
    vectors, sizes, _ = np.linalg.svd(features.T, full_matrices=False)
    gone = torch.from_numpy(vectors[:, :erased])
    assert features.shape[1] == 32
    assert sizes[erased - 1] > sizes[erased] * 1.001  # so that the strongest are well defined
    wanted = head.weight - head.weight @ gone @ gone.T
    torch.testing.assert_close(new.weight, wanted, rtol=1e-3, atol=1e-4)
    assert (new.weight @ gone).abs().max() < 1e-4
    assert torch.equal(new.bias, head.bias)
    # what the head sees of the forgotten rows is at right angles to what was erased
    seen = features - features @ vectors[:, :erased] @ vectors[:, :erased].T
    logits = torch.from_numpy(seen) @ head.weight.T + head.bias
    torch.testing.assert_close(torch.from_numpy(features) @ new.weight.T + new.bias, logits, rtol=1e-3, atol=1e-3)


def test_esc_erases_as_many_of_512_directions_as_its_code_does(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    erased: list[int] = []
    real = esc.erasing

    def erasing(grams: Tensor, directions: int) -> Tensor:
        erased.append(directions)
        return real(grams, directions)

    monkeypatch.setattr(esc, "erasing", erasing)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 4))
    Esc()(model, Toy(toy.data, model, toy.runtime).access(toy.split(1), Esc.reads), toy.runtime.fresh())
    assert erased == [7]  # prune_k = int(512 * args.p / 100), p being 1.5


def test_esc_erases_a_direction_for_every_class_and_leaves_some(toy: Toy) -> None:
    parts = toy.split(0, 3)
    new = Esc()(toy.model, toy.access(parts, Esc.reads), toy.runtime.fresh())
    change = (head_of(new).weight - head_of(toy.model).weight).detach()
    assert torch.linalg.matrix_rank(change, atol=1e-4) == 2
    with pytest.raises(SettingsError, match="expected fewer directions than the 3 features, got 3"):
        Esc(percent=1)(with_head(TETRAHEDRON), toy.access(toy.split(0, 1, 2), Esc.reads), toy.runtime.fresh())


def given_to(model: nn.Module, rows: Rows) -> dict[str, np.ndarray]:
    """Return, for each layer, all patches or features of all rows, one in each line, in double precision."""
    layers = find_layers(model)
    seen = seen_by_layers(model, images_of(rows))
    return {name: inputs_of(layers[name], given)[0].double().numpy() for name, given in seen.items()}


def scaled(inputs: np.ndarray, alpha: float) -> np.ndarray:
    """Return step 2 of svd from the singular values of all inputs."""
    vectors, sizes, _ = np.linalg.svd(inputs.T, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    found: np.ndarray = vectors @ np.diag(alpha * shares / ((alpha - 1) * shares + 1)) @ vectors.T
    return found


def test_svd_projects_every_layer_as_numpy_does(toy: Toy) -> None:
    parts, method = toy.split(1), Svd(alpha_r=(100.0,), alpha_f=(3.0,))
    new = find_layers(method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh()))
    retained, forgotten = given_to(toy.model, parts["retain"]), given_to(toy.model, parts["forget"])
    for name, layer in find_layers(toy.model).items():
        shared, own = scaled(retained[name], 100), scaled(forgotten[name], 3)
        apart = own - own @ shared
        before = matrix_of(layer)[0].detach().double().numpy()
        wanted = before @ (np.eye(len(apart)) - apart).T
        found = matrix_of(new[name])[0].detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4, err_msg=name)
        for key, value in layer.named_parameters():
            assert key == "weight" or torch.equal(new[name].get_parameter(key), value)
        # what the retained rows give the layer is answered almost as before, what the forgotten ones give is not
        changes = [
            np.linalg.norm(inputs @ (found - before).T) / np.linalg.norm(inputs @ before.T)
            for inputs in (retained[name], forgotten[name])
        ]
        assert changes[0] < changes[1], name
    assert changes[0] < changes[1] / 3, "at the head"


def test_svd_keeps_the_pair_with_the_highest_score_on_the_rows_it_reads(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []
    made: list[nn.Module] = []
    real = svd.project

    def project(model: nn.Module, *others: object) -> nn.Module:
        made.append(real(model, *others))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(svd, "project", project)
    parts = toy.split(0, 3)
    method = Svd(alpha_r=(3.0, 100.0), alpha_f=(1.0, 30.0, 3.0))
    access = toy.access(parts, method.reads)
    new = method(toy.model, access, toy.runtime.fresh())
    for candidate in made:
        seen.append((toy.accuracy(candidate, parts, "retain"), toy.accuracy(candidate, parts, "forget")))
    scores = [retained * (1 - forgotten) for retained, forgotten in seen]
    assert len(scores) == 6
    assert max(scores) > min(scores) + 0.1
    assert new is made[int(np.argmax(scores))]
    assert {part for part, count in access.counts().items() if count.reads} == {"retain", "forget"}


def test_svd_takes_as_many_rows_of_every_class(toy: Toy) -> None:
    chosen = svd.evenly(toy.split(1)["retain"], 60, torch.Generator().manual_seed(0))
    assert np.bincount(chosen.labels).tolist() == [20, 0, 20, 20]


def test_null_space_leaves_what_the_subspace_holds_of_the_retained_rows(toy: Toy) -> None:
    parts, method = toy.split(1), NullSpace(rows_per_class=1000)
    new = find_layers(method(toy.model, toy.access(parts, method.reads), toy.runtime.fresh()))
    retained, forgotten = given_to(toy.model, parts["retain"]), given_to(toy.model, parts["forget"])
    bases = retained_subspaces(toy.model, parts["retain"], toy.runtime.fresh(), 0.99)
    for name, layer in find_layers(toy.model).items():
        basis = bases[name][0].numpy()
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
        kept = retained[name] @ basis @ basis.T
        assert np.linalg.norm(kept) ** 2 >= 0.99 * np.linalg.norm(retained[name]) ** 2
        change = (matrix_of(new[name]) - matrix_of(layer))[0].detach().double().numpy()
        assert np.abs(kept @ change.T).max() < 1e-5, name
        assert np.abs(forgotten[name] @ change.T).max() > 1e-3 or basis.shape[0] == basis.shape[1], name
        for key, value in layer.named_parameters():
            if key != "weight":
                assert torch.equal(new[name].get_parameter(key), value)


def test_null_space_names_the_likeliest_class_that_is_kept(toy: Toy) -> None:
    for request in (Request(classes=(0, 3)), Request(rows=tuple(range(50)))):
        parts = split(toy.data, request)
        found = pseudo_labels(toy.model, toy.access(parts, NullSpace.reads), toy.runtime.fresh())
        with torch.no_grad():
            likely = toy.model.eval()(images_of(parts["forget"])).numpy()
        for row, own, label in zip(likely, parts["forget"].labels, found, strict=True):
            left = set(range(4)) - (set(request.classes) or {own})
            assert label == max(left, key=lambda index: row[index])


def test_null_space_trains_nothing_else_and_shows_no_retained_row(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Rows] = []
    monkeypatch.setattr(null_space, "fit", lambda model, rows, *others, **named: shown.append(rows))
    parts = toy.split(1)
    new = NullSpace()(toy.model, toy.access(parts, NullSpace.reads), toy.runtime.fresh())
    assert [len(rows) for rows in shown] == [len(parts["forget"])]
    assert 1 not in shown[0].labels
    for key, value in toy.model.state_dict().items():  # what was bound and not trained is what it was
        torch.testing.assert_close(new.state_dict()[key], value, rtol=1e-6, atol=1e-7)
    assert list(new.state_dict()) == list(toy.model.state_dict())


def test_damp_removes_what_no_retained_prototype_explains_by_hand() -> None:
    retained = torch.tensor([[[1.0, 1], [1, -1], [0, 0], [0, 0]]], dtype=torch.float64)
    forgotten = torch.tensor([[[5.0, 7], [2, 0], [3, 0], [4, 0]]], dtype=torch.float64)
    own = torch.tensor([0, 0, 0.6, 0.8], dtype=torch.float64)  # the second is explained whole
    torch.testing.assert_close(own_projection(forgotten, retained)[0], own[:, None] * own)


def test_damp_leaves_retained_prototypes_alone_where_residuals_depend_on_one_another() -> None:
    generator = torch.Generator().manual_seed(0)
    retained = torch.randn(20, 9, 8, dtype=torch.float64, generator=generator)  # one direction is left of nine
    forgotten = torch.randn(20, 9, 2, dtype=torch.float64, generator=generator)
    along = own_projection(forgotten, retained)
    torch.testing.assert_close(along @ retained, torch.zeros_like(retained), rtol=0, atol=1e-7)
    torch.testing.assert_close(along.diagonal(dim1=1, dim2=2).sum(1), torch.ones(20, dtype=torch.float64))
    residuals = forgotten - along @ forgotten  # what is left of the forgotten ones, the retained ones explain
    explained = retained @ torch.linalg.lstsq(retained, residuals).solution
    torch.testing.assert_close(explained, residuals)


def test_damp_measures_how_well_a_line_tells_two_normal_clouds_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([[2.0, 0], [1, 0.5]], dtype=torch.float64)
    apart = torch.tensor([1.5, 1.0], dtype=torch.float64)
    for distance in (0.0, 0.5, 1.0):
        clouds = [
            torch.randn(40000, 2, generator=generator, dtype=torch.float64) @ spread.T + shift * apart
            for shift in (0.0, distance)
        ]
        line = torch.linalg.solve(spread @ spread.T, apart)
        cut = distance * (line @ apart) / 2
        right = ((clouds[0] @ line <= cut).double().mean() + (clouds[1] @ line > cut).double().mean()) / 2
        moments = []
        for cloud in clouds:
            longer = torch.cat([cloud, torch.ones(len(cloud), 1, dtype=torch.float64)], dim=1)
            moments.append(Moments(prototypes=cloud.mean(0)[None, :, None], gram=(longer.T @ longer)[None]))
        found = separability(moments[0], moments[1]).item()
        wanted = 2 * right.item() - 1 if distance else 0.0
        assert found == pytest.approx(wanted, abs=0.02)


def test_damp_tells_nothing_apart_by_inputs_that_are_all_zero_or_all_the_same() -> None:
    """As those of a dead channel are, which a grouped convolution has for itself."""
    clouds = torch.zeros(2, 6, 3, dtype=torch.float64)
    clouds[1] = torch.tensor([0.1, 0.2, 0.3])
    longer = torch.cat([clouds, torch.ones(2, 6, 1, dtype=torch.float64)], dim=2)
    same = Moments(prototypes=clouds.mean(1)[:, :, None], gram=longer.mT @ longer)
    assert separability(same, same).tolist() == [0, 0]


def test_damp_edits_every_layer_along_its_residual_and_the_deeper_the_more(toy: Toy) -> None:
    parts = toy.split(1)
    new = find_layers(Damp()(toy.model, toy.access(parts, Damp.reads), toy.runtime.fresh()))
    layers, strengths = find_layers(toy.model), []
    for number, (name, layer) in enumerate(layers.items(), start=1):
        prototypes = [
            given_to(toy.model, TakenRows(toy.data.train, np.flatnonzero(toy.data.train.labels == label)))[name].mean(0)
            for label in range(4)
        ]
        others = np.stack([prototypes[index] for index in (0, 2, 3)], axis=1)
        residual = prototypes[1] - others @ np.linalg.lstsq(others, prototypes[1], rcond=None)[0]
        direction = residual / np.linalg.norm(residual)
        before, after = (matrix_of(one)[0].detach().double().numpy() for one in (layer, new[name]))
        along = before @ direction
        strengths.append(1 - (after @ direction @ along) / (along @ along))
        np.testing.assert_allclose(after, before - strengths[-1] * np.outer(along, direction), atol=1e-4, err_msg=name)
        assert 0 < strengths[-1] < number / 4 + 1e-6
    assert strengths == sorted(strengths)
    assert strengths[-1] > 0.9
