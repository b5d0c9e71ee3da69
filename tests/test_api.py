"""The Python interface: any network, any data, nothing of the caller's changed."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from conftest import TRAINING, Toy
from expunge import ExpungeError, Forgotten, audit, forget, render
from expunge.errors import DataError, ModelError, RequestError, SettingsError
from expunge.methods.retrain import Retrain
from expunge.methods.unsir import Unsir


class Plain(nn.Module):
    """A network that timm knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(inputs)
        return logits


def tensors(toy: Toy, half: str) -> TensorDataset:
    rows = getattr(toy.data, half)
    return TensorDataset(*rows.batch(np.arange(len(rows))))


@pytest.fixture(scope="module")
def plain(toy: Toy) -> Plain:
    torch.manual_seed(0)
    model = Plain()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(20):
        for inputs, labels in DataLoader(tensors(toy, "train"), batch_size=32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model.zero_grad()
    return model


def accuracy(model: nn.Module, data: TensorDataset, index: int) -> float:
    inputs, labels = data.tensors
    with torch.no_grad():
        guesses = model.eval()(inputs[labels == index]).argmax(1)
    return float((guesses == index).double().mean())


def test_a_stranger_forgets_a_class_from_a_loader(toy: Toy, plain: Plain) -> None:
    before = copy.deepcopy(plain)
    method = Unsir(impair_epochs=4)  # thirty rows a step of a network without normalisation: one pass is too short
    made = forget(plain, DataLoader(tensors(toy, "train"), batch_size=8), classes=[2], method=method, device="cpu")
    assert isinstance(made, Forgotten)
    assert made.access["forget"].reads == 0
    assert accuracy(plain, tensors(toy, "test"), 2) > 0.8
    assert accuracy(made.model, tensors(toy, "test"), 2) <= 0.1
    for key, value in before.state_dict().items():
        assert torch.equal(plain.state_dict()[key], value), key


def test_a_stranger_is_audited_beside_retrained_models(toy: Toy, plain: Plain) -> None:
    train, test = tensors(toy, "train"), tensors(toy, "test")
    names = ["ant", "bee", "cow", "dog"]
    made = forget(plain, train, classes=["cow"], label_names=names, device="cpu")
    retrain = Retrain(training=TRAINING)
    retrained = [
        forget(plain, train, classes=["cow"], label_names=names, method=retrain, seed=seed, device="cpu").model
        for seed in (1, 2, 3)
    ]
    result = audit(
        plain, made, train, test, classes=["cow"], label_names=names, retrained=retrained, device="cpu"
    )  # fmt: skip
    assert result.experiment["method"]["name"] == "unsir"
    assert result.access is not None
    assert result.access["forget"]["reads"] == 0
    assert result.experiment["references"] == 3
    by_name = {finding.name: finding for finding in result.findings}
    assert by_name["accuracy/forget_test"].retrained == 0
    assert "cow" in render(result)
    alone = audit(plain, made.model, train, test, classes=[2], device="cpu")
    assert alone.level == "none"
    assert alone.cost is None


def test_a_network_that_cannot_start_afresh_needs_a_builder(toy: Toy) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(64, 4))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.flatten(1) @ self.weight

    method = Retrain(training=TRAINING)
    with pytest.raises(ModelError, match=r"expected modules that can be re-initialised, got Odd \(the model\)"):
        forget(Odd(), tensors(toy, "train"), classes=[1], method=method, device="cpu")
    made = forget(Odd(), tensors(toy, "train"), classes=[1], method=method, build=Odd, device="cpu")
    assert made.model.state_dict()["weight"].abs().sum() > 0


def test_what_is_wrong_is_said_with_method_and_request(toy: Toy, plain: Plain) -> None:
    with pytest.raises(RequestError, match="expected a class of the data, got 9"):
        forget(plain, tensors(toy, "train"), classes=[9], device="cpu")
    with pytest.raises(ModelError, match="expected 5 outputs, one per class, got 4"):
        forget(plain, tensors(toy, "train"), classes=[0], label_names=list("abcde"), device="cpu")
    with pytest.raises(ModelError, match=r"expected a model that takes inputs \(1, 1, 8, 8\), got: "):
        forget(nn.Linear(3, 4), tensors(toy, "train"), classes=[0], device="cpu")
    broken = copy.deepcopy(plain)
    with torch.no_grad():
        broken.layers[1].weight[0, 0] = float("nan")  # type: ignore[operator]
    with pytest.raises(
        ModelError, match="expected finite weights in the original model, got NaN or infinity in 'layers"
    ):
        forget(broken, tensors(toy, "train"), classes=[0], device="cpu")
    with pytest.raises(ExpungeError, match="unsir, forgetting 3 rows: expected a request of whole classes"):
        forget(plain, tensors(toy, "train"), rows=[1, 2, 3], device="cpu")


def test_a_model_that_is_nothing_but_its_head_loses_outputs() -> None:
    torch.manual_seed(0)
    model, data = nn.Linear(6, 4), TensorDataset(torch.randn(40, 6), torch.arange(40) % 4)
    made = forget(model, data, classes=[1], method="head_mask", head="drop", device="cpu")
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(made.model(inputs), model(inputs)[:, [0, 2, 3]])


def test_one_class_or_row_needs_no_list(toy: Toy, plain: Plain) -> None:
    names = ("ant", "bee", "cow", "dog")
    train = tensors(toy, "train")
    every: list[Any] = [2, "cow", np.int64(2), [2]]
    for classes in every:
        made = forget(plain, train, classes=classes, label_names=names, method="head_mask", device="cpu")
        hidden = made.model(train[:][0]).argmin(1)
        assert (hidden == 2).all(), classes
    with pytest.raises(RequestError, match=r"expected a class, a row or a list of them to forget, got 2\.5"):
        forget(plain, train, classes=2.5, device="cpu")  # type: ignore[arg-type]


def test_weights_in_the_place_of_a_network_are_refused(toy: Toy, plain: Plain) -> None:
    train = tensors(toy, "train")
    with pytest.raises(ModelError, match=r"got OrderedDict: load it into its network first$"):
        forget(plain.state_dict(), train, classes=2, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"^expected a network \(torch.nn.Module\), got str$"):
        audit(plain, "runs/x", train, train, classes=2, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"whose modules can be changed, got one that torch\.jit has compiled$"):
        forget(torch.jit.ScriptModule(), train, classes=2, device="cpu")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": 1, "label": 2}], r"rows \(input, label\), got a dict of image, label: wrap it in one that returns"),
        ([torch.randn(6)], r"expected a data set of rows \(input, label\), got a Tensor: wrap it"),
        ([(torch.randn(6), 1.5)], r"expected labels that are class indices, got 1\.5"),
        (
            [(torch.randn(6), torch.eye(3)[0])],
            "expected labels that are class indices, got only one element tensors can be",
        ),
    ],
)
def test_rows_that_are_no_pairs_with_a_class_are_refused(rows: list[Any], message: str) -> None:
    class Listed(Dataset[Any]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> Any:
            return rows[index]

    with pytest.raises(DataError, match=message):
        forget(nn.Linear(6, 4), Listed(), classes=[1], device="cpu")


def test_arguments_that_mean_nothing_are_refused() -> None:
    model, data = nn.Linear(6, 4), TensorDataset(torch.randn(40, 6), torch.zeros(40))
    labels = [0, 1, 2, 3] * 10
    with pytest.raises(SettingsError, match="expected a head to keep or drop, got 'cut'"):
        forget(model, data, labels=labels, classes=[1], head="cut", device="cpu")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected labels that are class indices, got Python int too large"):
        forget(model, data, labels=[10**30, *labels[1:]], classes=[1], device="cpu")
    with pytest.raises(DataError, match=f"expected labels that are class indices below 1048576, got {2**40}"):
        forget(model, data, labels=[2**40, *labels[1:]], classes=[1], device="cpu")
