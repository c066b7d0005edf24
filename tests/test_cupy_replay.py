"""nnx.capture on cupy against eager steps: on a stand-in, and on a GPU where there is one."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, model, trainer
from cupy_tools import OPTIMIZERS, host, repeated, trained

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replay_equals_eager_steps(device: Any, name: str) -> None:
    eager, _ = trained(lambda f: f, OPTIMIZERS[name], 300, L.Dropout(0.5))
    replayed, _ = trained(capture, OPTIMIZERS[name], 300, L.Dropout(0.5))
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_numpy_arguments_are_moved_while_the_step_before_runs(device: Any) -> None:
    """Nothing is read back in between, so that copies and launches wait in their streams."""

    def run(wrap: Callable[..., Any], p: float = 0.5) -> list[Any]:
        net = model(L.Dropout(p))
        opt = optim.Adam(net.parameters(), lr=0.01)
        step = wrap(trainer(net, opt))
        losses = [step(x, t) for x, t in batches(50)]
        return [nnx.to_numpy(a) for a in (*losses, *(p.data for p in net.parameters()))]

    def moving(step: Any) -> Any:
        return lambda x, t: step(nnx.asarray(x), nnx.asarray(t))

    nnx.set_backend("numpy")
    on_host = run(lambda f: f, p=0.0)  # masks are the device's own
    with nnx.use_backend("cupy"):
        undropped, eager = run(moving, p=0.0), run(moving)
        with nnx.transfers() as log:
            replayed = run(lambda f: capture(f, backend="cupy"))
    moves = [t for t in log.log if t.arrays == 2]
    assert len(moves) == 50 and {t.nbytes for t in moves} == {16 * (12 * 4 + 8)}
    for a, b in [*zip(on_host, undropped, strict=True), *zip(eager, replayed, strict=True)]:
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [lambda a: a, nnx.asarray], ids=["numpy", "device"])
def test_arguments_of_no_entries(device: Any, given: Callable[[Any], Any]) -> None:
    step = capture(lambda x, y: nnx.add(nnx.sum(x), nnx.sum(y)), backend="cupy")
    x, y = np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)
    found = [float(step(given(x), given(y * i))) for i in range(5)]
    assert found == [0, 6, 12, 18, 24]


def test_the_precision_is_the_plans(device: Any) -> None:
    rng = np.random.default_rng(0)
    x = nnx.asarray(rng.standard_normal((20, 30)).astype(np.float32))
    step = capture(lambda x: nnx.matmul(x, nnx.matrix_transpose(x)))
    exact = host(x).astype("f8") @ host(x).T
    try:
        for name, low, high in (("float32", 0, 1e-6), ("tf32", 1e-5, 1e-3), ("bfloat16", 1e-4, 1)):
            nnx.set_matmul_precision(name)
            for _ in range(3):
                y = host(step(x))
            error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
            assert low <= error < high, name
    finally:
        nnx.set_matmul_precision("float32")


def test_literals_and_constants(device: Any) -> None:
    def shifted(x: Any) -> Any:
        return nnx.Tensor(x) * nnx.Tensor([1.0, 2.0, 3.0]) + nnx.Tensor(2.0)

    repeated(shifted, np.ones((2, 3), np.float32))


def test_views_of_results_and_arguments(device: Any) -> None:
    def turned(x: Any) -> Any:
        y = nnx.exp(nnx.permute_dims(nnx.Tensor(x)[:, ::-1, 1:], axes=(2, 0, 1)))
        return nnx.concat(y, y, axis=1)[1:] * 2.0

    repeated(turned, np.random.default_rng(0).standard_normal((2, 3, 4)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_many_arrays_joined(device: Any, axis: int) -> None:
    def joined(x: Any) -> Any:
        parts = [nnx.multiply(x, float(i)) for i in range(10)]
        return nnx.concat(*parts[:9], axis=axis), nnx.stack(*parts, axis=axis)

    step = capture(joined)
    for i in range(4):
        x = nnx.asarray(np.arange(6.0).reshape(2, 3) + i)
        for got, expected in zip(step(x), joined(x), strict=True):
            np.testing.assert_array_equal(host(got), host(expected))


def test_fills(device: Any) -> None:
    """Large ones are made anew in each replay, small ones are kept."""

    def step(x: Any) -> Any:
        return nnx.sum(nnx.Tensor(x) * 0.0 + 1.0, axis=1)

    repeated(step, np.ones((3, 4)))
    big = nnx.asarray(np.zeros((600, 600)))
    grad = capture(lambda x: nnx.grad(lambda v: nnx.sum(nnx.exp(v)))(x))
    for _ in range(4):
        np.testing.assert_array_equal(host(grad(big)), np.ones((600, 600)))


def test_what_is_returned_stays(device: Any) -> None:
    step = capture(lambda x: nnx.multiply(x, 2.0))
    results = [step(nnx.asarray(np.full(3, float(i)))) for i in range(6)]
    assert [float(host(y)[0]) for y in results] == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("name", ["batch norm", "convolution", "accumulated", "inference"])
def test_models(device: Any, name: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 2, 6, 6)).astype(np.float32)
    labels = rng.integers(0, 5, 4)

    def run(wrap: Any) -> list[Any]:
        nnx.seed(3)
        if name == "batch norm":
            net = L.Sequential(L.Flatten(), L.Linear(72, 8), L.BatchNorm1d(8), L.Linear(8, 5))
        elif name == "convolution":
            net = L.Sequential(
                L.Conv2d(2, 3, 3), L.Relu(), L.MaxPool2d(2), L.Flatten(), L.Linear(12, 5)
            )
        else:
            net = L.Sequential(L.Flatten(), L.Linear(72, 5))
        opt = optim.SGD(net.parameters(), lr=0.05)

        def step(x: Any, t: Any) -> Any:
            if name == "inference":
                return net(nnx.Tensor(x))
            if name != "accumulated":
                opt.zero_grad()
            loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
            loss.backward()
            opt.step()
            return loss

        called = wrap(step)
        found = [called(nnx.asarray(images * (1 + i)), nnx.asarray(labels)) for i in range(6)]
        found += [t.data for _, t in net.named_parameters()] if name != "inference" else []
        assert wrap is not capture or "one CUDA graph: " in called.plan().code
        return [host(a) for a in (*found, *(b.data for b in net.buffers()))]

    for a, b in zip(run(lambda f: f), run(capture), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_check_compares_with_eager_steps(device: Any) -> None:
    flag = [1.0]
    step = capture(lambda x: nnx.exp(x) if flag[0] > 0 else nnx.log(x), check=True)
    x = nnx.asarray(np.ones(3))
    for _ in range(4):
        step(x)
    flag[0] = -1.0
    with pytest.raises(nnx.CaptureError, match=r"came to|is given the Python value"):
        step(x)


def test_changing_an_array_outside_nnx_is_found(device: Any) -> None:
    x = nnx.asarray(np.arange(5000.0) / 5000)

    def step() -> Any:
        y = nnx.exp(x)
        x[4321] = 7.0
        return y

    with pytest.raises(nnx.CaptureError, match="changed in place outside nnx"):
        capture(step)()


def test_the_least_used_plan_is_dropped(device: Any) -> None:
    W = nnx.asarray(np.ones((3, 3)))
    step = capture(lambda x: nnx.matmul(x, W), max_plans=2)
    for i, rows in enumerate((1, 2, 3, 1, 2)):
        x = nnx.asarray(np.arange(3.0 * rows).reshape(rows, 3))
        for _ in range(3):
            np.testing.assert_allclose(host(step(x)), host(x) @ np.ones((3, 3)))
        assert len(step._plans) == min(2, i + 1)


def test_freeing_memory_leaves_plans_alone(device: Any) -> None:
    rng = np.random.default_rng(0)
    W = nnx.asarray(rng.standard_normal((4, 4)))
    step = capture(lambda x: nnx.softmax(nnx.matmul(x, W)))
    for i in range(6):
        x = nnx.asarray(rng.standard_normal((3, 4)))
        np.testing.assert_allclose(host(step(x)), host(nnx.softmax(nnx.matmul(x, W))), rtol=1e-9)
        nnx.get_backend().free_memory()
        held = [nnx.asarray(np.full((3, 4), np.nan)) for _ in range(i)]
    assert len(held) == 5


def test_threads_with_streams_of_their_own(device: Any) -> None:
    """One captured function, called in two threads in turn."""
    net = model()
    step = capture(trainer(net, optim.SGD(net.parameters(), lr=0.1)))
    single = model()
    eager = trainer(single, optim.SGD(single.parameters(), lr=0.1))
    data = batches(40)
    expected = [float(eager(nnx.asarray(x), nnx.asarray(t))) for x, t in data]
    losses: dict[int, Any] = {}
    turn, errors = threading.Condition(), list[BaseException]()

    def work(mine: int) -> None:
        try:
            with device.cuda.Stream(non_blocking=True):
                for i in range(mine, len(data), 2):
                    with turn:
                        assert turn.wait_for(lambda i=i: len(losses) == i, timeout=60)
                        x, t = (nnx.asarray(a) for a in data[i])
                        losses[i] = step(x, t)
                        turn.notify_all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    nnx.get_backend().synchronize()
    found = [float(losses[i]) for i in range(len(data))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_two_threads_capture_at_the_same_time(device: Any) -> None:
    rng = np.random.default_rng(0)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            W = nnx.asarray(rng.standard_normal((8, 8)))
            repeated(lambda x: nnx.tanh(nnx.matmul(x, W)), np.full((4, 8), seed / 10), calls=20)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_plan_that_goes_gives_its_memory_back(device: Any) -> None:
    """What is still held then is what was held before: parameters, and the optimizer's state."""
    gc.collect()  # what other tests left in cycles does not go in between
    net = model(L.Dropout(0.5), hidden=500)
    opt = optim.Adam(net.parameters())
    pool = device.get_default_memory_pool()

    def train() -> int:
        step = capture(trainer(net, opt), backend="cupy")
        for x, t in batches(4):
            step(x, t)
        nnx.get_backend().synchronize()
        return int(pool.used_bytes())

    train()
    opt.zero_grad()
    before = pool.used_bytes()
    for _ in range(3):
        assert train() > before
        opt.zero_grad()
        assert pool.used_bytes() == before


def test_results_are_the_same_to_the_last_bit_each_time(device: Any) -> None:
    """Where no kernel adds atomically."""
    first, _ = trained(capture, OPTIMIZERS["adamw"], 30, L.Dropout(0.5))
    again, _ = trained(capture, OPTIMIZERS["adamw"], 30, L.Dropout(0.5))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_that_is_full(device: Any) -> None:
    net = model()
    opt = optim.SGD(net.parameters(), lr=0.1)
    step = capture(trainer(net, opt))
    x, t = (nnx.asarray(a) for a in batches(1)[0])
    losses = [float(step(x, t)) for _ in range(3)]
    with pytest.raises(nnx.DeviceMemoryError, match="device 0 has no memory left"):
        nnx.get_backend().zeros((1 << 50,), "float32")
    losses += [float(step(x, t)) for _ in range(3)]
    assert losses[-1] < losses[0]
