"""Data, Request, Split and Access: what may be asked, who sees what, and that every read is counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import Toy
from expunge.access import Access
from expunge.data import Data, choose, split, subset
from expunge.errors import AccessError, DataError, RequestError
from expunge.forgetting import run_method
from expunge.network import rebuild
from expunge.request import Request, parse_request
from expunge.rows import JoinedRows, TakenRows, TensorRows, as_rows
from expunge.runtime import Runtime


def rows(*labels: int) -> TensorRows:
    return TensorRows(torch.arange(len(labels), dtype=torch.float32)[:, None], torch.tensor(labels))


def data(names: tuple[str, ...] = ("cat", "dog", "ship")) -> Data:
    return Data(train=rows(0, 1, 2, 0, 1), test=rows(0, 1, 2, 2), label_names=names, input_size=(1,))


def test_a_request_of_classes_splits_both_halves() -> None:
    parts = split(data(), Request(classes=("ship", 0)))
    assert parts.request.classes == (0, 2)
    assert {part: rows.batch(np.arange(len(rows)))[0].ravel().tolist() for part, rows in parts.parts.items()} == {
        "retain": [1, 4],
        "forget": [0, 2, 3],
        "retain_test": [1],
        "forget_test": [0, 2, 3],
    }


def test_a_request_of_rows_leaves_the_test_rows() -> None:
    parts = split(data(), Request(rows=(4, 0)))
    assert [len(rows) for rows in parts.parts.values()] == [3, 2, 4, 0]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda: Request(), "expected either classes or rows to forget, got none"),
        (lambda: Request(classes=(0,), rows=(1,)), "expected either classes or rows to forget, got both"),
        (lambda: Request(classes=(0, 0)), r"expected each class once, got \[0, 0\]"),
        (lambda: Request(classes=("cat", 0)), r"expected each class once, got \['cat', 0\]"),
        (lambda: Request(classes=("shp",)), r"expected a class of the data, got 'shp' \(did you mean 'ship'\?\)"),
        (lambda: Request(classes=(7,)), r"expected a class of the data, got 7 \(indices: 0 to 2\)"),
        (lambda: Request(classes=(-1,)), r"expected a class of the data, got -1"),
        (lambda: Request(classes=(0, 1, 2)), "expected at least one class to retain, got all 3 to forget"),
        (lambda: Request(rows=(0, 9)), "expected training rows from 0 to 4, got 0 to 9"),
        (lambda: Request(rows=(0, 1, 2, 3, 4)), "expected rows to retain, got all 5"),
        (lambda: parse_request(["1,,2"], None), "expected classes separated by commas, got '1,,2'"),
        (lambda: parse_request([], "1,,2"), "expected rows separated by commas, got '1,,2'"),
        (
            lambda: parse_request([], "@no/such"),
            "expected a row on each line of no/such, got: No such file or directory",
        ),
        (lambda: split(data(), parse_request([], "1,x")), "expected rows of these data by number, .* got 'x'"),
    ],
)
def test_a_request_that_cannot_be_honoured_is_refused(request_: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        split(data(), request_())  # type: ignore[operator]


def test_a_class_without_training_rows_is_refused() -> None:
    with pytest.raises(RequestError, match=r"expected a class with training rows, got class 3 \('bird'\) with none"):
        split(data(("cat", "dog", "ship", "bird")), Request(classes=("bird",)))


def test_a_name_that_is_another_class_index_must_be_made_plain() -> None:
    names = ("1", "0", "2")
    with pytest.raises(RequestError, match=r"write #0 \('1'\) or #1 \('0'\)"):
        split(data(names), parse_request(["1"], None))
    assert split(data(names), parse_request(["#1"], None)).request.classes == (1,)
    assert split(data(names), parse_request(["2"], None)).request.classes == (2,)


def test_a_name_that_has_commas_is_put_together_again() -> None:
    names = ("tench, Tinca tinca", "cat", "crane,bird, crane")
    for words, wanted in (
        ("tench, Tinca tinca", (0,)),
        ("cat,crane, bird,crane", (1, 2)),
        ("0,cat", (0, 1)),
        ("crane,bird, crane,#1", (1, 2)),
    ):
        assert split(data(names), parse_request([words], None)).request.classes == wanted
    assert split(data(names), Request(classes=("tench, Tinca tinca",))).request.classes == (0,)
    assert split(data(("cat", "ship", "cat,ship")), parse_request(["cat,ship"], None)).request.classes == (0, 1)
    with pytest.raises(RequestError, match="expected a class of the data, got 'tench'"):
        split(data(names), parse_request(["tench,Tinca"], None))


def test_labels_outside_the_names_are_refused() -> None:
    with pytest.raises(DataError, match="expected train labels from 0 to 1, got 0 to 2"):
        data(("cat", "dog"))


def access(*reads: str) -> Access:
    return Access(split(data(), Request(classes=(0,))), reads, lambda: nn.Linear(1, 3))  # type: ignore[arg-type]


def test_counts_stand_in_one_order_whatever_the_order_of_what_is_declared() -> None:
    assert list(access("retain", "forget").counted) == list(access("forget", "retain").counted) == ["forget", "retain"]


def test_an_undeclared_part_is_out_of_reach() -> None:
    guard = access("retain")
    with pytest.raises(AccessError, match=r"expected a part among \['retain'\] that the method declares, got 'forget'"):
        guard["forget"]
    assert set(guard.counted) == {"retain"}  # no path leads to the others


def test_every_read_is_counted_and_distinct_rows_too() -> None:
    guard = access("retain", "forget")
    guard["retain"].batch(np.array([0, 1]))
    taken = TakenRows(guard["retain"], np.array([1, 1]))
    taken.batch(np.array([0, 1]))
    JoinedRows(taken, rows(0)).batch(np.array([2, 0]))
    counts = guard.counts()
    assert (counts["retain"].rows, counts["retain"].reads) == (2, 5)
    assert (counts["forget"].rows, counts["forget"].reads) == (0, 0)
    assert (counts["forget_test"].rows, counts["forget_test"].reads) == (0, 0)


class Cheat:
    """Declares retained rows and reads forgotten ones."""

    reads = frozenset({"retain"})

    def __call__(self, model: nn.Module, access: Access, runtime: Runtime) -> nn.Module:
        access["forget"].batch(np.array([0]))
        return model


def test_a_method_that_reads_what_it_did_not_declare_is_stopped(toy: Toy) -> None:
    with pytest.raises(AccessError, match="forgetting 'shape-1': expected a part among"):
        run_method(Cheat(), toy.model, toy.split(1), toy.runtime, rebuild(toy.model))  # type: ignore[arg-type]


def test_whole_classes_are_refused_where_rows_were_asked_for() -> None:
    parts = split(data(), Request(rows=(0,)))
    with pytest.raises(RequestError, match="expected a request of whole classes, got 1 single rows"):
        Access(parts, (), lambda: nn.Linear(1, 3)).classes()


def test_a_subset_has_as_many_rows_of_every_class() -> None:
    many = rows(*[0] * 50, *[1] * 3, *[2] * 20)
    chosen = subset(many, 10, torch.Generator().manual_seed(0))
    assert np.bincount(chosen.labels).tolist() == [10, 3, 10]
    assert len(set(chosen.batch(np.arange(len(chosen)))[0].ravel().tolist())) == 23


def test_the_choice_is_the_first_rows_of_every_class_in_a_random_order() -> None:
    labels = np.random.default_rng(0).integers(0, 300, size=2000) * 2  # every second class is missing
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(7)).tolist()
    taken: dict[int, list[int]] = {}
    for row in order:
        taken.setdefault(labels[row], []).append(row)
    slow = sorted(row for found in taken.values() for row in found[:5])
    assert choose(labels, 5, torch.Generator().manual_seed(7)).tolist() == slow


def test_any_map_style_data_become_rows() -> None:
    inputs, labels = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    tensors = TensorDataset(inputs, labels)
    for source in (tensors, DataLoader(tensors, batch_size=4), as_rows(tensors)):
        found = as_rows(source)
        assert found.labels.tolist() == labels.tolist()
        assert torch.equal(found.batch(np.array([4, 0]))[0], inputs[[4, 0]])


def test_given_labels_keep_rows_unread() -> None:
    class Untouchable(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            raise AssertionError("read")

    found = as_rows(Untouchable(torch.zeros(3, 1), torch.zeros(3)), labels=[2, 0, 1])
    assert found.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            lambda index: torch.zeros(2 + index),
            r"make one tensor, got: stack expects .* equal size.*: add a transform$",
        ),
        (lambda _: object(), r"make one tensor, got: default_collate: batch must contain .*: add a transform$"),
        (lambda _: {"pixels": torch.zeros(2)}, "expected inputs that are tensors, got dict: add a transform"),
    ],
)
def test_inputs_that_make_no_tensor_are_refused(row: Callable[[int], Any], message: str) -> None:
    class Made(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            return row(index), 0

    rows = as_rows(Made(torch.zeros(3, 1)), labels=[0, 1, 0])
    with pytest.raises(DataError, match=message):
        rows.batch(np.arange(3))


def test_rows_with_other_numbers_of_labels_are_refused() -> None:
    with pytest.raises(DataError, match="expected as many labels as inputs, got 2 for 3"):
        TensorRows(torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))
