"""nnx.capture on cupy: one graph launch a step, against eager steps on the same stand-in."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_cublaslt
import fake_cupy
import numpy as np
import plugin_dirs
import pytest
from capture_tools import batches, model, trainer
from fake_cublaslt import CublasLt
from fake_cupy import FakeCupy

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture
from nnx.op import op


@pytest.fixture(autouse=True)
def registered(tmp_path: Path) -> Iterator[None]:
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        yield


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    made = fake_cupy.install(monkeypatch, FakeCupy())
    nnx.set_backend("cupy")
    return made


@pytest.fixture
def lt(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> CublasLt:
    return fake_cublaslt.install(monkeypatch, cupy)


def trained(
    wrap: Callable[..., Any], optimizer: Any, steps: int, *between: L.Layer, **options: Any
) -> Any:
    """Parameters, gradients and losses of a training, as NumPy arrays."""
    net = model(*between)
    opt = optimizer(net.parameters())
    step = wrap(trainer(net, opt), **options)
    losses = []
    for i, (x, t) in enumerate(batches(steps)):
        opt.lr = 0.01 / (1 + i // 10)
        losses.append(float(step(nnx.asarray(x), nnx.asarray(t))))
    found = [nnx.to_numpy(a) for p in net.parameters() for a in (p.data, p.grad)]
    return [np.array(losses), *found], step


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replay_equals_eager_steps(cupy: FakeCupy, lt: CublasLt, name: str) -> None:
    eager, _ = trained(lambda f: f, OPTIMIZERS[name], 300, L.Dropout(0.5))
    replayed, _ = trained(capture, OPTIMIZERS[name], 300, L.Dropout(0.5))
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    (graph,) = cupy.on.graphs
    assert graph.launches == 298


def test_numpy_arguments_are_moved_while_the_step_before_runs(cupy: FakeCupy, lt: CublasLt) -> None:
    """Nothing is read back in between, so that copies and launches wait in their streams."""

    def run(wrap: Callable[..., Any]) -> list[Any]:
        net = model(L.Dropout(0.5))
        opt = optim.Adam(net.parameters(), lr=0.01)
        step = wrap(trainer(net, opt))
        losses = [step(x, t) for x, t in batches(50)]
        return [nnx.to_numpy(a) for a in (*losses, *(p.data for p in net.parameters()))]

    def moving(step: Any) -> Any:
        return lambda x, t: step(nnx.asarray(x), nnx.asarray(t))

    nnx.set_backend("numpy")
    on_host = run(lambda f: f)
    with nnx.use_backend("cupy"):
        eager = run(moving)
        with nnx.transfers() as log:
            replayed = run(lambda f: capture(f, backend="cupy"))
    moves = [t for t in log.log if t.arrays == 2]
    assert len(moves) == 50 and {t.nbytes for t in moves} == {16 * (12 * 4 + 8)}
    for a, b, c in zip(on_host, eager, replayed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, c, rtol=1e-5, atol=1e-6)


def host(array: Any) -> np.ndarray[Any, Any]:
    return np.array(nnx.to_numpy(array))


def repeated(fn: Callable[..., Any], *arrays: Any, calls: int = 5, **options: Any) -> Any:
    """The captured function, after calls whose results equal the function's own."""
    step = capture(fn, **options)
    for i in range(calls):
        given = [nnx.asarray(a + a.dtype.type(i)) for a in arrays]
        expected, got = fn(*given), step(*given)
        np.testing.assert_allclose(host(got), host(expected), rtol=1e-5, atol=1e-6)
    return step


# What a replay does


def test_a_step_is_one_launch(cupy: FakeCupy, lt: CublasLt) -> None:
    net = model(L.Dropout(0.5))
    step = capture(trainer(net, optim.Adam(net.parameters())), backend="cupy")
    data = batches(5)
    for x, t in data[:4]:
        step(x, t)
    before = cupy.calls
    step(*data[4])
    (graph,) = cupy.on.graphs
    assert cupy.calls == before and graph.launches == 3
    assert "one CUDA graph: " in step.plan().code and "launch()" in step.plan().code
    cupy.on.synchronize()
    assert lt.products == 3 * 5 + 5  # two forward, three backward; once before the capture


def test_the_plans_numbers_say_what_it_holds(cupy: FakeCupy, lt: CublasLt) -> None:
    rng = np.random.default_rng(0)
    W = nnx.asarray(rng.standard_normal((4, 4)))
    step = repeated(lambda x: nnx.add(nnx.exp(nnx.matmul(x, W)), 1.0), rng.standard_normal((3, 4)))
    report = step.plan()
    assert report.input_bytes == report.kept_bytes == 96 and report.planned_bytes < 2000


@pytest.mark.parametrize("shapes", [
    ((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3)), ((3, 0), (0, 5)),
    ((0, 4), (4, 5)),
])  # fmt: skip
@pytest.mark.parametrize("strides", ["plain", "turned", "every other"])
def test_products(cupy: FakeCupy, lt: CublasLt, shapes: Any, strides: str) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s) for s in shapes)

    def product(a: Any, b: Any) -> Any:
        a, b = nnx.Tensor(a), nnx.Tensor(b)
        if strides == "turned" and a.ndim > 1:
            a = nnx.matrix_transpose(nnx.exp(nnx.matrix_transpose(a)))
        if strides == "every other":
            a, b = (nnx.concat(x, x, axis=0)[::2] for x in (a, b)) if a.ndim == 1 else (a, b)
        return nnx.matmul(a, b)

    repeated(product, a, b)


def test_products_of_ints_are_cupys(cupy: FakeCupy, lt: CublasLt) -> None:
    repeated(nnx.matmul, np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2))
    assert lt.products == 0


def test_the_precision_is_the_plans(cupy: FakeCupy, lt: CublasLt) -> None:
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


def test_literals_and_constants(cupy: FakeCupy) -> None:
    def shifted(x: Any) -> Any:
        return nnx.Tensor(x) * nnx.Tensor([1.0, 2.0, 3.0]) + nnx.Tensor(2.0)

    repeated(shifted, np.ones((2, 3), np.float32))


def test_views_of_results_and_arguments(cupy: FakeCupy) -> None:
    def turned(x: Any) -> Any:
        y = nnx.exp(nnx.permute_dims(nnx.Tensor(x)[:, ::-1, 1:], axes=(2, 0, 1)))
        return nnx.concat(y, y, axis=1)[1:] * 2.0

    repeated(turned, np.random.default_rng(0).standard_normal((2, 3, 4)))


def test_what_is_returned_stays(cupy: FakeCupy) -> None:
    step = capture(lambda x: nnx.multiply(x, 2.0))
    results = [step(nnx.asarray(np.full(3, float(i)))) for i in range(6)]
    assert [float(host(y)[0]) for y in results] == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("name", ["batch norm", "convolution", "accumulated", "inference"])
def test_models(cupy: FakeCupy, lt: CublasLt, name: str) -> None:
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
        assert wrap is not capture or (cupy.on.graphs and called.plan())
        return [host(a) for a in (*found, *(b.data for b in net.buffers()))]

    for a, b in zip(run(lambda f: f), run(capture), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_check_compares_with_eager_steps(cupy: FakeCupy) -> None:
    flag = [1.0]
    step = capture(lambda x: nnx.exp(x) if flag[0] > 0 else nnx.log(x), check=True)
    x = nnx.asarray(np.ones(3))
    for _ in range(4):
        step(x)
    flag[0] = -1.0
    with pytest.raises(nnx.CaptureError, match=r"came to|is given the Python value"):
        step(x)


def test_changing_an_array_outside_nnx_is_found(cupy: FakeCupy) -> None:
    x = nnx.asarray(np.arange(5000.0) / 5000)

    def step() -> Any:
        y = nnx.exp(x)
        x[4321] = 7.0
        return y

    with pytest.raises(nnx.CaptureError, match="changed in place outside nnx"):
        capture(step)()


# Memory, plans, threads, streams


def test_a_plan_that_goes_frees_its_graph_and_its_memory(cupy: FakeCupy, lt: CublasLt) -> None:
    net = model(L.Dropout(0.5))
    opt = optim.Adam(net.parameters())
    data = batches(4)

    def train() -> None:
        step = capture(trainer(net, opt), backend="cupy")
        for x, t in data:
            step(x, t)
        cupy.on.synchronize()

    train()
    opt.zero_grad()
    nnx.get_backend().free_memory()
    live, taken, descriptors = len(cupy.on.graphs), cupy.on.memory.taken, len(lt.live)
    assert live == 0 and descriptors == 0
    for _ in range(3):
        train()
        opt.zero_grad()
    nnx.get_backend().free_memory()
    assert cupy.on.memory.taken <= taken and not cupy.on.memory.pinned


def test_the_least_used_plan_is_dropped(cupy: FakeCupy, lt: CublasLt) -> None:
    W = nnx.asarray(np.ones((3, 3)))
    step = capture(lambda x: nnx.matmul(x, W), max_plans=2)
    for rows in (1, 2, 3, 1, 2):
        x = nnx.asarray(np.arange(3.0 * rows).reshape(rows, 3))
        for _ in range(3):
            np.testing.assert_allclose(host(step(x)), host(x) @ np.ones((3, 3)))
        assert len(cupy.on.graphs) == min(2, len(step._plans))


def test_freeing_memory_leaves_plans_alone(cupy: FakeCupy, lt: CublasLt) -> None:
    rng = np.random.default_rng(0)
    W = nnx.asarray(rng.standard_normal((4, 4)))
    step = capture(lambda x: nnx.softmax(nnx.matmul(x, W)))
    for i in range(6):
        x = nnx.asarray(rng.standard_normal((3, 4)))
        np.testing.assert_allclose(host(step(x)), host(nnx.softmax(nnx.matmul(x, W))), rtol=1e-9)
        nnx.get_backend().free_memory()
        held = [nnx.asarray(np.full((3, 4), np.nan)) for _ in range(i)]
    assert len(held) == 5


def test_threads_with_streams_of_their_own(cupy: FakeCupy, lt: CublasLt) -> None:
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
            with cupy.cuda.Stream(non_blocking=True):
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
    cupy.on.synchronize()
    found = [float(losses[i]) for i in range(len(data))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_two_threads_capture_at_the_same_time(cupy: FakeCupy, lt: CublasLt) -> None:
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


def test_the_second_device(cupy: FakeCupy, lt: CublasLt) -> None:
    nnx.set_backend("cupy:1")
    net = model(L.Dropout(0.5))
    nnx.set_backend("cupy")
    step = capture(trainer(net, optim.Adam(net.parameters())), backend="cupy:1")
    losses = [step(x, t) for x, t in batches(5)]
    assert losses[-1].data.device.id == 1 and cupy.current == 0
    assert np.isfinite(host(losses[-1]))


# Where there can be no graph


def test_without_nvmath_kernels_are_launched_one_by_one(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvmath", None)
    with pytest.warns(UserWarning, match=r"launch kernels one by one: .*pip install nvmath"):
        replayed, step = trained(capture, OPTIMIZERS["adam"], 20, L.Dropout(0.5))
    trained(capture, OPTIMIZERS["adam"], 5)  # says no more: warnings are errors here
    assert not cupy.on.graphs
    eager, _ = trained(lambda f: f, OPTIMIZERS["adam"], 20, L.Dropout(0.5))
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert "one by one: " in step.plan().code
    step = repeated(lambda x: nnx.add(nnx.exp(x), 1.0), np.ones(3))  # no product: a graph
    assert len(cupy.on.graphs) == 1 and step.plan().code.count("launch()") == 1


@op
def counted(xp: Any, x: Any) -> Any:
    return xp.sum(xp.nonzero(x)[0])  # this line


def test_what_a_graph_cannot_do_names_the_kernel_and_the_line(cupy: FakeCupy) -> None:
    def step(x: Any) -> Any:
        y = nnx.exp(x)
        return counted(y)

    step_of = capture(step)
    x = nnx.asarray(np.ones(3))
    step_of(x)
    for _ in range(2):
        with pytest.raises(nnx.CaptureError) as caught:
            step_of(x)
        text = str(caught.value)
        assert "test_cupy_replay.py:" in text
        assert ": `return xp.sum(xp.nonzero(x)[0])  # this line`: nonzero cannot be" in text
        assert (
            "cannot be part of a CUDA graph (RuntimeError: the current stream is capturing" in text
        )
    repeated(nnx.exp, np.ones(3))  # the device is as it was
