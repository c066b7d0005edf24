"""Loaders: batches, orders, and the backend that a loader keeps whichever thread iterates."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnx import backend
from nnx.backend import get_backend, load_backend, use_backend
from nnx.data import ArrayDataset, DataLoader
from nnx.errors import OptionError, UnknownBackendError
from nnx.random import generator, seed
from nnx_numpy import NumpyBackend


def rows(n: int, **options: Any) -> ArrayDataset:
    """A data set whose row i is [i], of class i."""
    return ArrayDataset(np.arange(n, dtype=np.float32)[:, None], np.arange(n), **options)


def ids(loader: DataLoader) -> list[list[int]]:
    return [t.tolist() for _, t in loader]


def test_in_order_with_and_without_the_last_batch() -> None:
    loader = DataLoader(rows(7), 3)
    assert len(loader) == 3
    assert ids(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    loader = DataLoader(rows(7), 3, drop_last=True)
    assert len(loader) == 2
    assert ids(loader) == [[0, 1, 2], [3, 4, 5]]
    assert len(DataLoader(rows(6), 3)) == len(DataLoader(rows(6), 3, drop_last=True)) == 2
    assert ids(DataLoader(rows(2), 3)) == [[0, 1]]
    assert ids(DataLoader(rows(0), 3)) == []


@pytest.mark.parametrize("given", [(np.ones((4, 2)), np.ones(4)), [1, 2], np.ones((4, 2))])
def test_what_is_no_data_set(given: Any) -> None:
    """The rows of an array of two columns would be taken for inputs and targets."""
    with pytest.raises(OptionError, match=r"the data set is a .*, expected .*ArrayDataset\(x, t\)"):
        DataLoader(given, 2)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (10, 3), (9, 3), (2, 5)])
def test_every_row_once_with_its_target(
    n: int,
    batch_size: int,
    shuffle: bool,
    drop_last: bool,
) -> None:
    loader = DataLoader(rows(n), batch_size, shuffle, 0, drop_last)
    batches = list(loader)
    assert len(batches) == len(loader)
    seen = [int(i) for _, t in batches for i in t]
    assert len(set(seen)) == len(seen) == (n - n % batch_size if drop_last else n)
    for x, t in batches:
        assert x[:, 0].tolist() == t.tolist()


def test_the_order_follows_from_seed_and_epoch() -> None:
    loader = DataLoader(rows(50), 50, shuffle=True, seed=3)
    first, second = ids(loader), ids(loader)
    assert first != second
    assert sorted(first[0]) == sorted(second[0]) == list(range(50))
    again = DataLoader(rows(50), 50, shuffle=True, seed=3)
    again.epoch = 1
    assert ids(again) == second
    again.epoch = 0
    assert ids(again) == first
    assert ids(DataLoader(rows(50), 50, shuffle=True, seed=4)) != first


def test_the_order_never_changes_between_versions() -> None:
    """Written down once: a run that stopped goes on in the same order with a later nnx."""
    assert ids(DataLoader(rows(8), 8, shuffle=True, seed=0)) == [[5, 3, 0, 1, 2, 4, 7, 6]]


def test_an_epoch_left_early_counts() -> None:
    loader = DataLoader(rows(50), 10, shuffle=True, seed=3)
    next(iter(loader))
    assert loader.epoch == 1
    whole = DataLoader(rows(50), 10, shuffle=True, seed=3)
    list(whole)
    assert ids(loader) == ids(whole)


def test_without_a_seed_nnx_seed_fixes_the_order() -> None:
    seed(5)
    first = ids(DataLoader(rows(50), 50, shuffle=True))
    other = ids(DataLoader(rows(50), 50, shuffle=True))
    seed(5)
    assert ids(DataLoader(rows(50), 50, shuffle=True)) == first
    assert other != first


def test_a_loader_with_a_seed_leaves_the_random_numbers_alone() -> None:
    seed(5)
    expected = generator().random()
    seed(5)
    list(DataLoader(rows(50), 10, shuffle=True, seed=0))
    list(DataLoader(rows(50), 10))
    assert generator().random() == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_is_given_to_floats_alone(dtype: str) -> None:
    ds = ArrayDataset(np.ones((2, 1), np.float64), np.zeros((2, 3), np.float32))
    ((x, t),) = DataLoader(ds, 2, dtype=dtype)
    assert (x.dtype, t.dtype) == (np.dtype(dtype), np.dtype(dtype))
    ((_, t),) = DataLoader(rows(2), 2, dtype=dtype)
    assert t.dtype == np.int64


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_has_memory_of_its_own(shuffle: bool) -> None:
    ds = rows(4)
    for x, t in DataLoader(ds, 4, shuffle, 0):
        x[...] = -1
        t[...] = -1
    assert ds.x[:, 0].tolist() == ds.t.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0, expected an int of 1 or more"),
        ({"batch_size": -1}, "batch_size=-1, expected an int of 1 or more"),
        ({"batch_size": 2.0}, r"batch_size=2\.0, expected an int"),
        ({"batch_size": True}, "batch_size=True, expected an int"),
        ({"batch_size": 2, "seed": -1}, "seed=-1, expected an int of 0 or more"),
        ({"batch_size": 2, "seed": "a"}, "seed='a', expected an int of 0 or more"),
        ({"batch_size": 2, "dtype": "int8"}, "dtype='int8', expected one of float16, float32"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DataLoader(rows(4), **options)


def test_an_unknown_backend() -> None:
    with pytest.raises(UnknownBackendError, match="nowhere"):
        DataLoader(rows(4), 2, backend="nowhere")


# Backends and threads


class Marked(np.ndarray):
    """Arrays that can be told from NumPy's own."""


class MarkedBackend(NumpyBackend):
    """Counts what is moved to it."""

    name = "marked"

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[str | None] = []

    def owns(self, array: object) -> bool:
        return isinstance(array, Marked)

    def asarray(self, data: Any, dtype: str | None = None) -> Any:
        self.moved.append(dtype)
        return super().asarray(data, dtype).view(Marked)


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> MarkedBackend:
    made = MarkedBackend()
    monkeypatch.setitem(backend._loaded, "marked", made)
    return made


def in_a_thread(function: Callable[[], Any]) -> Any:
    """The result of `function()` in a new thread, which starts with the process's backend."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_each_array_of_a_batch_is_moved_once(marked: MarkedBackend) -> None:
    batches = list(DataLoader(rows(5), 2, backend=marked))
    assert marked.moved == ["float32", None] * 3
    assert all(isinstance(a, Marked) for batch in batches for a in batch)


def test_a_backend_by_name_by_object_or_the_current_one(marked: MarkedBackend) -> None:
    assert DataLoader(rows(2), 2, backend="marked").backend is marked
    assert DataLoader(rows(2), 2, backend=marked).backend is marked
    with use_backend("marked"):
        loader = DataLoader(rows(2), 2)
        assert DataLoader(rows(2), 2, backend="numpy").backend is load_backend("numpy")
    assert loader.backend is marked
    assert DataLoader(rows(2), 2).backend is get_backend()


def test_a_loader_keeps_its_creators_backend_in_another_thread(marked: MarkedBackend) -> None:
    with use_backend("marked"):
        loader = DataLoader(rows(5), 2)

    def iterate() -> list[Any]:
        assert get_backend().name == "numpy"
        return list(loader)

    batches = in_a_thread(iterate)
    assert len(batches) == 3
    assert all(type(a) is Marked for batch in batches for a in batch)


def test_a_loader_made_before_a_block_keeps_its_backend_inside(marked: MarkedBackend) -> None:
    loader = DataLoader(rows(5), 2)
    with use_backend("marked"):
        assert all(type(a) is np.ndarray for batch in loader for a in batch)
    assert marked.moved == []


def test_every_backend_gives_the_same_order(marked: MarkedBackend) -> None:
    on_numpy = DataLoader(rows(30), 7, shuffle=True, seed=1)
    on_marked = DataLoader(rows(30), 7, shuffle=True, seed=1, backend=marked)
    assert ids(on_numpy) == ids(on_marked)


def test_two_loaders_in_two_threads(marked: MarkedBackend) -> None:
    """At once, on two backends over one data set: neither disturbs the other's order."""
    ds, barrier = rows(200), threading.Barrier(2, timeout=60)
    results: dict[str, Any] = {}

    def train(name: str, number: int) -> None:
        with use_backend(name):
            loader = DataLoader(ds, 7, shuffle=True, seed=number)
            barrier.wait()
            results[name] = [(type(t), t.tolist()) for _ in range(5) for _, t in loader]

    threads = [threading.Thread(target=train, args=args) for args in (("numpy", 0), ("marked", 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, number, kind in (("numpy", 0, np.ndarray), ("marked", 1, Marked)):
        alone = DataLoader(ds, 7, shuffle=True, seed=number)
        assert results[name] == [(kind, t.tolist()) for _ in range(5) for _, t in alone]
