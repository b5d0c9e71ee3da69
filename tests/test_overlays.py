"""Claims about what is drawn only if asked for: where networks look, and maps by UMAP."""

import base64
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cases import featured_case
from conftest import Toy
from examples import example_result, example_views
from expunge.case import Case, open_case
from expunge.data import Part
from expunge.network import copy_of
from expunge.outputs import drop_outputs
from expunge.overlays import EXAMPLES, grad_cam, last_convolution
from expunge.report import render
from expunge.result import Overlay, Result, from_json
from expunge.views import look, neighbourly
from test_cli import SHAPES, call

os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than these few rows
pytest.importorskip("captum", reason="captum is not installed: pip install 'expunge[look]'")
pytest.importorskip("umap", reason="umap-learn is not installed: pip install 'expunge[look]'")


def toy_case(toy: Toy, unlearned: nn.Module | None = None) -> Case:
    parts = toy.split(3)
    return open_case(parts, toy.model, unlearned or copy_of(toy.model), [copy_of(toy.model)], toy.runtime)


def opened(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png)))


def test_heat_is_the_sum_of_channels_by_their_mean_gradients() -> None:
    convolution, head = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, 2)
    model = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        head.weight.copy_(torch.tensor([[3.0, 1.0], [0.0, 1.0]]))
    image = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    images, labels = image.repeat(2, 1, 1, 1), torch.tensor([0, 1])
    assert last_convolution(model, image) is convolution
    heat = grad_cam(model, convolution, images, labels)
    # of class 0: (3 * 1 + 1 * -2) / 4 = 1/4 of the image; of class 1: (0 * 1 + 1 * -2) / 4, below nothing everywhere
    enlarged = nn.functional.interpolate(image / 4, size=heat.shape[-2:], mode="bilinear")
    torch.testing.assert_close(heat[0], enlarged[0, 0])
    assert heat[1].max() == 0


def test_an_activation_in_place_after_the_convolution_changes_nothing() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)]
    plain, within = nn.Sequential(*layers), nn.Sequential(layers[0], nn.ReLU(inplace=True), *layers[2:])
    images, labels = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 0])
    heats = [grad_cam(model.eval(), layers[0], images, labels) for model in (plain, within)]
    assert heats[0].equal(heats[1])
    assert heats[0].max() == 1


def test_forgotten_and_kept_examples_are_shown_for_three_models_that_are_left_as_they_were(toy: Toy) -> None:
    case = toy_case(toy)
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    shown = look(case, ["gradcam"]).overlays
    assert [one.forgotten for one in shown] == [True] * EXAMPLES + [False] * EXAMPLES
    assert {one.label for one in shown[:EXAMPLES]} == {"shape-3"}
    assert "shape-3" not in {one.label for one in shown[EXAMPLES:]}
    for one in shown:
        assert one.original == one.unlearned == one.retrained  # here they are one model
        assert opened(one.image).size == opened(one.original).size == (96, 96)
    assert any(one.image != one.original for one in shown)
    assert all(before[name].equal(value) for name, value in toy.model.state_dict().items())
    assert shown == look(case, ["gradcam"]).overlays


def test_what_cannot_be_shown_is_said_with_the_reason(toy: Toy) -> None:
    assert look(featured_case(), ["gradcam"]).left_out == (
        "Grad-CAM: the rows are no images of one or three channels, but of shape (3,).",
    )
    dropped = toy_case(toy, drop_outputs(toy.model, (3,), 4))
    assert look(dropped, ["gradcam"]).left_out == ("Grad-CAM: a network has no output of a forgotten class.",)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    (reason,) = look(toy_case(toy, flat), ["gradcam"]).left_out
    assert reason == "Grad-CAM: a network has no convolution with more than one position."
    told = replace(example_views(), left_out=(reason,))
    assert f"Asked for and left out. {reason}" in render(example_result(views=told))


def test_nothing_is_shown_unless_asked_for(toy: Toy) -> None:
    views = look(toy_case(toy))
    assert (views.overlays, views.neighbours, views.left_out) == ((), None, ())


def test_umap_keeps_neighbours_together_and_repeats() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 8)
    features = 20 * np.eye(3, 6)[groups] + generator.normal(size=(24, 6))
    threads = torch.get_num_threads()
    points, spread = neighbourly(features, 7)
    assert torch.get_num_threads() == threads  # or whatever is trained afterwards ends with other last bits
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(24)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    assert spread is None
    assert np.array_equal(points, neighbourly(features, 7)[0])


def test_a_map_by_umap_shows_the_rows_of_the_other_map() -> None:
    few: dict[Part, int] = {"retain": 9, "forget": 6, "retain_test": 6, "forget_test": 4}
    views = look(featured_case(1, few), ["umap"])
    assert views.features is not None
    assert views.neighbours is not None
    assert views.neighbours.labels == views.features.labels
    page = render(example_result(views=replace(example_views(), neighbours=views.neighbours)))
    assert page.count('class="plot linked"') == 6
    assert "The same rows by UMAP" in page


def test_an_overlay_that_is_no_png_is_not_shown() -> None:
    bad = "x' onerror='alert(1)"
    one = Overlay(label="<b>3</b>", forgotten=True, image=bad, original=bad, unlearned=bad, retrained=None)
    page = render(example_result(views=replace(example_views(), overlays=(one,))))
    assert "onerror" not in page
    assert "<bdi><b>" not in page
    assert "&lt;b&gt;3&lt;/b&gt;" in page
    assert page.count("cannot be read") == 3


def test_an_audit_asks_what_it_is_told_to_and_shows_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [*SHAPES, "--seed", "0"]
    assert call(capsys, "train", *data, "--set", "epochs=1", "--out", "original")[0] == 0
    asked = ["audit", "original", "original", *data, "--classes", "1", "--out", "result.json"]
    asked += ["--audits", "accuracy, head", "--views", "gradcam"]
    code, _, err = call(capsys, *asked)
    assert (code, err) == (0, "")
    result = from_json(Result, Path("result.json").read_text(), "result.json")
    assert {finding.name.split("/")[0] for finding in result.findings} == {"accuracy", "head"}
    assert result.experiment["views"] == ["gradcam"]
    assert result.views is not None
    assert len(result.views.overlays) == 2 * EXAMPLES
    assert len(render(result)) < 8_000_000
    monkeypatch.setattr("expunge.views.find_spec", lambda name: None)
    code, out, err = call(capsys, *asked, "--overwrite")
    assert (code, out) == (2, "")
    assert err == "expunge: expected captum for the view gradcam, got none: pip install captum\n"
    code, _, err = call(capsys, *asked[:-1], "gradcan")
    assert code == 2
    assert "gradcan" in err
    assert json.loads(Path("result.json").read_text())["level"] == result.level
