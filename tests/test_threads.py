"""Threads of matrix products: how many by size, and that they are put back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, equal, model, train, values
from threadpoolctl import threadpool_info, threadpool_limits

import nnx
import nnx_numpy.table as table
from nnx import optim, threads
from nnx.capture import capture


def pools() -> list[int]:
    """Threads of the BLAS that NumPy calls; those of other libraries stay as they are."""
    found = [p for p in threadpool_info() if p["user_api"] == "blas"]
    own = [p for p in found if "numpy" in p["filepath"]]
    return [p["num_threads"] for p in own or found]


pytestmark = pytest.mark.skipif(not pools(), reason="NumPy has a BLAS that cannot be asked")


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    before = nnx.get_num_threads()
    nnx.set_num_threads(2)
    yield
    nnx.set_num_threads(before)


def test_the_limit_is_that_of_the_blas() -> None:
    for n in (1, 2):
        nnx.set_num_threads(n)
        assert nnx.get_num_threads() == n and set(pools()) == {n}
    with threadpool_limits(1):
        assert nnx.get_num_threads() == 1


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True, None])
def test_what_is_no_number_of_threads(n: Any) -> None:
    with pytest.raises(nnx.OptionError, match=r"set_num_threads\(.*\): expected an int of"):
        nnx.set_num_threads(n)
    assert nnx.get_num_threads() == 2


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Floating-point operations and threads of each product."""
    found: list[tuple[int, int]] = []
    multiply = np.matmul

    def noted(a: Any, b: Any, out: Any) -> Any:
        found.append((2 * a.shape[0] * a.shape[1] * b.shape[1], max(pools())))
        return multiply(a, b, out)

    monkeypatch.setattr(table, "matmul", noted)
    return found


def product(n: int, k: int, m: int) -> Any:
    return nnx.affine(np.ones((n, k), "f4"), np.ones((k, m), "f4"))


def test_small_products_run_on_one_thread_large_ones_on_all(used: list[Any]) -> None:
    product(100, 784, 100)  # 16 MFLOP
    product(128, 784, 512)  # 103 MFLOP
    product(100, 100, 10)  # so small that the BLAS itself stays on one: not set
    assert used == [(2 * 100 * 784 * 100, 1), *[(128 * 784 * 512, 1)] * 2]
    assert set(pools()) == {2}


def test_a_count_that_others_have_set_is_put_back(used: list[Any]) -> None:
    with threadpool_limits(1):
        product(100, 784, 100)
        product(128, 784, 512)
        assert set(pools()) == {1}
    assert used == [(2 * 100 * 784 * 100, 1), (2 * 128 * 784 * 512, 1)] and set(pools()) == {2}


def test_threads_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(table, "matmul", broken)
    with pytest.raises(MemoryError):
        product(100, 784, 100)
    assert set(pools()) == {2}
    assert threads._lock.acquire(blocking=False)
    threads._lock.release()


def test_a_replay_sets_them_once_for_all_its_small_products() -> None:
    net = model(n_in=784, hidden=100)
    opt = optim.SGD(net.parameters(), lr=0.1)
    step = capture(lambda x: predict_and_step(net, opt, x))
    data = batches(3, rows=100, n_in=784)
    for x, _ in data:
        step(x)
    lines = [line.strip() for line in step.plan().code.splitlines()]
    assert lines.count("begun = alone()") == lines.count("together(begun)") == 1
    assert lines.index("try:") < lines.index("finally:")
    assert set(pools()) == {2}


def predict_and_step(net: Any, opt: Any, x: Any) -> Any:
    opt.zero_grad()
    loss = nnx.mean(net(nnx.Tensor(x)) ** 2)
    loss.backward()
    opt.step()
    return loss


@pytest.mark.parametrize("wrap", [lambda f: f, capture], ids=["eager", "replay"])
def test_two_trainers_in_two_threads_train_as_each_alone(wrap: Any) -> None:
    """The count of one is never that of the other: results are the same to the last bit."""
    sizes = ((784, 100), (1000, 600))  # products on one thread, and on two

    def run(k: int, out: list[Any]) -> None:
        net, n_in = nets[k], sizes[k][0]
        opt = optim.SGD(net.parameters(), lr=0.01)
        _, losses = train(wrap, net, opt, batches(6, rows=100, n_in=n_in))
        out.append((losses, values(net)))

    alone: list[Any] = []
    nets = [model(n_in=n, hidden=h) for n, h in sizes]
    for k in range(2):
        run(k, alone)
    nets = [model(n_in=n, hidden=h) for n, h in sizes]
    together: list[list[Any]] = [[], []]
    started = [threading.Thread(target=run, args=(k, together[k])) for k in range(2)]
    for t in started:
        t.start()
    for t in started:
        t.join()
    for (losses, expected), ((found, got),) in zip(alone, together, strict=True):
        assert losses == found and equal(expected, got)
    assert set(pools()) == {2}
