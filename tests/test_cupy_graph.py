"""A replay as a CUDA graph: what only the stand-in for a device can tell."""

from __future__ import annotations

import sys
import time
from threading import Barrier, Thread
from typing import Any

import fake_device
import numpy as np
import pytest
from capture_tools import batches, model, trainer
from cupy_tools import OPTIMIZERS, host, repeated, trained
from fake_cublaslt import CublasLt
from fake_cupy import FakeCupy

import nnx
from nnx import layers as L
from nnx import optim
from nnx.backend import load_backend
from nnx.capture import capture
from nnx.op import op
from nnx_cupy import conv


@pytest.fixture
def cupy(standin: FakeCupy) -> FakeCupy:
    return standin


@pytest.fixture
def lt(standin: FakeCupy) -> CublasLt:
    found: CublasLt = sys.modules["nvmath.bindings.cublasLt"]  # type: ignore[assignment]
    return found


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


def test_products_of_ints_are_cupys(cupy: FakeCupy, lt: CublasLt) -> None:
    repeated(nnx.matmul, np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2))
    assert lt.products == 0


@pytest.mark.parametrize(("scratch", "blocks"), [(conv.SCRATCH, 1), (1, 2)])
def test_groups_of_a_convolution_are_one_product(
    scratch: int, blocks: int, cupy: FakeCupy, lt: CublasLt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each block of images."""
    monkeypatch.setattr(conv, "SCRATCH", scratch)
    net = L.Sequential(L.Conv2d(6, 9, 3, groups=3), L.Conv2d(9, 6, 2, groups=3))

    def step(x: Any) -> Any:
        net.zero_grad()
        loss = nnx.mean(net(nnx.Tensor(x)) ** 2.0)
        loss.backward()
        return loss, *(p.grad for p in net.parameters())

    captured, rng = capture(step), np.random.default_rng(0)
    for i in range(4):
        x = nnx.asarray(rng.standard_normal((2, 6, 5, 4)).astype(np.float32))
        expected = [host(a) for a in step(x)]
        cupy.on.synchronize()
        before = lt.products
        for a, b in zip(captured(x), expected, strict=True):
            np.testing.assert_allclose(host(a), b, rtol=1e-5, atol=1e-6)
        cupy.on.synchronize()
        if i > 1:  # two forward, two by kernels, one by an input
            assert lt.products == before + 5 * blocks


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


def test_the_second_device(cupy: FakeCupy, lt: CublasLt) -> None:
    nnx.set_backend("cupy:1")
    net = model(L.Dropout(0.5))
    nnx.set_backend("cupy")
    step = capture(trainer(net, optim.Adam(net.parameters())), backend="cupy:1")
    losses = [step(x, t) for x, t in batches(5)]
    assert losses[-1].data.device.id == 1 and cupy.current == 0
    assert {device for _, device in cupy.loaded} == {1}
    assert np.isfinite(host(losses[-1]))


def test_a_plan_of_the_second_device_goes_when_its_last_launch_is_done(
    cupy: FakeCupy, lt: CublasLt
) -> None:
    """While another device is current: the null stream is one object for all devices."""
    nnx.set_backend("cupy:1")
    W = nnx.asarray(np.ones((40, 40)))
    nnx.set_backend("cupy")
    x, graphs = np.ones((4, 40)), cupy.on.graphs

    def train() -> int:
        step = capture(lambda x: nnx.exp(nnx.matmul(x, W)), backend="cupy:1")
        for _ in range(4):
            step(x)
        with cupy.cuda.Device(1):
            queue = cupy.on.stream().queue
        assert len(graphs) == 1 and queue.waiting
        del step
        assert not graphs and not queue.waiting and cupy.current == 0
        cupy.get_default_memory_pool().free_all_blocks()
        return int(cupy.on.memory.taken)

    taken = train()
    assert train() == taken


def test_arrays_of_another_device_are_copied_when_they_are_written(
    cupy: FakeCupy, lt: CublasLt
) -> None:
    """And only then does that device go on: streams of two devices know nothing of each other."""
    other, x = load_backend("cupy:1"), np.ones((4, 5), np.float32)
    step = capture(lambda x: nnx.permute_dims(nnx.exp(x), (1, 0)), backend="cupy:1")
    for i in range(4):
        y = step(x * i)
    with cupy.cuda.Device(1):
        queue = cupy.on.stream().queue
        assert queue.waiting
    with cupy.cuda.Stream(non_blocking=True):
        mine = nnx.get_backend().asarray(y)
        other.write(y, other.zeros((5, 4), "float32"))
        np.testing.assert_allclose(host(mine), np.exp(x.T * 3), rtol=1e-6)
    assert mine.device.id == 0 and not y.get().any()


def test_results_lie_in_views_of_a_plans_memory(cupy: FakeCupy) -> None:
    """Only where no view has their layout are they arrays of their own on that memory."""
    replay = nnx.get_backend().replay()
    arena = replay.arena(4096)
    x = nnx.asarray(np.zeros((2, 3, 4)))
    for like in (x, x.transpose(2, 0, 1), x[0, 0, :1].reshape(()), x[:1]):
        made = replay.place(arena, 512, like)
        assert replay.root(made) is arena and replay.offset(made, arena) == 512
        assert replay.same_layout(made, like)
    for like in (x[:, ::2], x[..., :2]):
        made = replay.place(arena, 512, like)
        assert made.base is None and replay.offset(made, arena) == 512
        assert replay.same_layout(made, like)


def test_a_product_that_cublaslt_refuses(cupy: FakeCupy, lt: CublasLt) -> None:
    lt.refused = {1}  # float64
    with pytest.warns(UserWarning, match="one by one: cuBLASLt refuses such a product: CUBLAS"):
        repeated(nnx.matmul, np.ones((2, 3)), np.ones((3, 2)))
    assert not cupy.on.graphs and not lt.live


def test_a_plan_that_goes_is_done_with_its_memory(cupy: FakeCupy) -> None:
    """Launched on one stream, in memory that others may get on another."""
    step = capture(lambda x: nnx.exp(nnx.multiply(x, 2.0)))
    x = nnx.asarray(np.ones((64, 64)))
    for _ in range(2):
        step(x)
    with cupy.cuda.Stream(non_blocking=True):
        step(x)
    del step
    held = [nnx.asarray(np.full((64, 64), 3.0)) for _ in range(20)]
    cupy.on.synchronize()
    for array in held:
        np.testing.assert_array_equal(host(array), 3.0)


def test_no_algorithm_is_asked_for_while_another_thread_captures(
    cupy: FakeCupy, lt: CublasLt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for cuBLASLt fails then, as the real one does."""
    begin, errors, ready = fake_device.Stream.begin_capture, list[BaseException](), Barrier(2)

    def slow(stream: fake_device.Stream) -> None:
        begin(stream)
        time.sleep(0.3)

    def work() -> None:
        try:
            step, x = capture(nnx.matmul), nnx.asarray(np.ones((3, 3)))
            step(x, x)
            ready.wait(60)
            step(x, x)
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(fake_device.Stream, "begin_capture", slow)
    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_without_nvmath_kernels_are_launched_one_by_one(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvmath.bindings.cublasLt", None)
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
        assert "test_cupy_graph.py:" in text
        assert ": `return xp.sum(xp.nonzero(x)[0])  # this line`: nonzero cannot be" in text
        assert (
            "cannot be part of a CUDA graph (RuntimeError: the current stream is capturing" in text
        )
    repeated(nnx.exp, np.ones(3))  # the device is as it was
