"""Lanes: the threads themselves, and replays on them."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from capture_tools import equal
from lane_tools import BACKENDS, can_be_asked, floats, small, workers  # noqa: F401

import nnx
from nnx import lanes, threads
from nnx.capture import capture

pytestmark = can_be_asked


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs ran at once, each time."""
    found: list[int] = []
    at_once = lanes.at_once

    def counted(*jobs: Callable[[], object]) -> None:
        found.append(len(jobs))
        at_once(*jobs)

    monkeypatch.setattr(lanes, "at_once", counted)
    return found


def lstm_step(rng: np.random.Generator) -> Any:
    U = nnx.Parameter(floats(rng, 16, 64) * np.float32(0.2))
    h, c = floats(rng, 32, 16), floats(rng, 32, 16)

    def f(x: Any) -> Any:
        U.grad = None
        x = nnx.Tensor(x)
        x.requires_grad = True
        y, _, last = nnx.lstm(x, U, h, c)
        nnx.sum(y * y + last).backward()
        return y, x.grad, U.grad

    return f, lambda: floats(rng, 5, 32, 64)


def gru_step(rng: np.random.Generator) -> Any:
    U, b = nnx.Parameter(floats(rng, 16, 48) * np.float32(0.2)), nnx.Parameter(floats(rng, 48))
    h = floats(rng, 32, 16)

    def f(x: Any) -> Any:
        U.grad = b.grad = None
        x = nnx.Tensor(x)
        x.requires_grad = True
        y, last = nnx.gru(x, U, b, h)
        nnx.sum(y[-1] * y[0] + last).backward()
        return y, x.grad, U.grad, b.grad

    return f, lambda: floats(rng, 5, 32, 48)


def conv_step(rng: np.random.Generator, channels: int = 20, high: int = 24, size: int = 3) -> Any:
    """Of 3 x 3 kernels by Winograd's products; 24 x 24 images of so many channels are two blocks
    with larger ones."""
    W = nnx.Parameter(floats(rng, channels, channels, size, size))

    def f(x: Any) -> Any:
        W.grad = None
        x = nnx.Tensor(x)
        x.requires_grad = True
        y = nnx.conv2d(x, W, padding=1)
        nnx.sum(y * y).backward()
        return y, x.grad, W.grad

    return f, lambda: floats(rng, 16, channels, high, high)


def wide_conv_step(rng: np.random.Generator) -> Any:
    return conv_step(rng, size=5)


STEPS = {"lstm": lstm_step, "gru": gru_step, "winograd": conv_step, "convolution": wide_conv_step}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("what", STEPS)
def test_a_replay_in_lanes_equals_the_eager_run(name: str, what: str, started: list[int]) -> None:
    """For each number of threads, on arguments that lie elsewhere, also when it changes."""
    with nnx.use_backend(name):
        f, draw = STEPS[what](np.random.default_rng(0))
        step = capture(f)
        for count in (2, 1, 3, 2):
            nnx.set_num_threads(count)
            for _ in range(4):
                x = draw()
                expected = [np.array(a.data if hasattr(a, "data") else a) for a in f(x)]
                started.clear()
                found = [np.array(a.data if hasattr(a, "data") else a) for a in step(x.copy())]
                assert equal(found, expected)
            assert set(started) <= {count}
        portable = (name, what) == ("numpy", "gru")
        assert ("def lane1():" in step.plan().code) is not portable


def test_as_many_lanes_as_threads_and_as_can_be_filled(started: list[int]) -> None:
    x, h = np.zeros((3, 24, 64), "f4"), np.zeros((24, 16), "f4")
    U = np.zeros((16, 64), "f4")
    for count in (1, 2, 4):
        nnx.set_num_threads(count)
        nnx.lstm(x, U, h, h)
    nnx.lstm(x[:, :15], U, h[:15], h[:15])  # fewer than 8 rows each: not split
    assert started == [1, 2, 3]


def test_each_lane_has_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "SMALL", threads.SMALL)
    nnx.set_num_threads(4)
    most = nnx.get_num_threads()  # the BLAS may have been built for fewer
    for flops, expected in ((19_999_999, 1), (20_000_000, 2), (35_000_000, 3), (10**9, 4)):
        assert len(lanes.parts(100, flops)) == min(expected, most)


def test_little_work_stays_on_this_thread(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SMALL", threads.SMALL)
    nnx.set_num_threads(2)
    x, h = np.zeros((3, 32, 64), "f4"), np.zeros((32, 16), "f4")
    nnx.lstm(x, np.zeros((16, 64), "f4"), h, h)
    assert not started


def test_products_in_lanes_run_on_one_thread_each() -> None:
    nnx.set_num_threads(2)
    seen: list[int] = []
    get = threads._blas()[0].get
    lanes.at_once(*[lambda: seen.append(get())] * 3)
    assert seen == [1, 1, 1] and nnx.get_num_threads() == 2


def test_jobs_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=30)
    lanes.at_once(*[meeting.wait] * 3)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_in_any_job_is_raised_when_all_have_ended(place: int) -> None:
    ended: list[int] = []

    def job(k: int) -> None:
        if k == place:
            raise MemoryError(f"job {k}")
        ended.append(k)

    nnx.set_num_threads(2)
    with pytest.raises(MemoryError, match=f"job {place}"):
        lanes.at_once(*[lambda k=k: job(k) for k in range(3)])
    assert sorted(ended) == [k for k in range(3) if k != place]
    assert nnx.get_num_threads() == 2


def test_ctrl_c_waits_for_all_jobs() -> None:
    ended: list[str] = []
    go = threading.Event()

    def slow() -> None:
        go.wait(30)
        ended.append("slow")

    def interrupting() -> None:
        threading.Timer(0.1, _thread.interrupt_main).start()
        threading.Timer(0.3, go.set).start()

    with pytest.raises(KeyboardInterrupt):
        lanes.at_once(interrupting, slow)
    assert ended == ["slow"]
    for t in threading.enumerate():
        if isinstance(t, threading.Timer):
            t.join()


def test_lanes_compute_under_the_callers_with_blocks() -> None:
    """numpy.errstate is of a context: an overflow in any lane is the error asked for."""
    nnx.set_num_threads(2)
    x, h = np.full((2, 32, 64), 1e38, "f4"), np.full((32, 16), 1e10, "f4")
    U = np.zeros((16, 64), "f4")
    x[:, :16] = 0  # the first lane has nothing to complain of
    with nnx.use_backend("numpy"), np.errstate(all="raise"), warnings.catch_warnings():
        U[0, 0] = 1e38
        x[:, 16:] = 3e38
        with pytest.raises(FloatingPointError):
            nnx.lstm(x, U, np.where(np.arange(32)[:, None] < 16, 0, h).astype("f4"), h)


def test_two_users_threads_get_what_each_gets_alone() -> None:
    nnx.set_num_threads(2)
    made = [STEPS[what](np.random.default_rng(1)) for what in STEPS]
    given = [draw() for _, draw in made]
    expected = [f(x)[0].data.copy() for (f, _), x in zip(made, given, strict=True)]
    found: list[list[Any]] = [[] for _ in made]

    def use(k: int) -> None:
        for _ in range(5):
            found[k].append(made[k][0](given[k])[0].data.copy())

    users = [threading.Thread(target=use, args=(k,)) for k in range(len(made))]
    for user in users:
        user.start()
    for user in users:
        user.join()
    for got, y in zip(found, expected, strict=True):
        assert len(got) == 5 and all(np.array_equal(g, y) for g in got)
    assert nnx.get_num_threads() == 2


def test_threads_are_used_again_and_keep_nothing() -> None:
    array = np.zeros(3)
    held = weakref.ref(array)
    lanes.at_once(*[partial(np.add, array, 1)] * 3)
    before = workers()
    for _ in range(20):
        lanes.at_once(*[partial(np.add, array, 1)] * 3)
    assert workers() == before and len(before) >= 2
    del array
    assert held() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["idle", "while a thread computes"])
def test_a_forked_process_has_threads_of_its_own(elsewhere: bool) -> None:
    nnx.set_num_threads(2)
    f, draw = lstm_step(np.random.default_rng(2))
    x = draw()
    expected = f(x)[0].data
    begun, go = threading.Event(), threading.Event()
    other = threading.Thread(target=lanes.at_once, args=(begun.set, partial(go.wait, 30)))
    if elsewhere:
        other.start()
        begun.wait()
    pid = os.fork()
    if pid == 0:
        ok = False
        signal.alarm(60)  # a lock that nobody gives back would be waited for without end
        try:
            nnx.set_num_threads(2)
            ok = np.array_equal(f(x)[0].data, expected)
        finally:
            os._exit(0 if ok else 1)
    go.set()
    assert os.waitpid(pid, 0)[1] == 0
    if elsewhere:
        other.join()
