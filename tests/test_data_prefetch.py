"""Batches prepared on a thread: the same ones, in the same order, and no thread left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from test_data_loader import MarkedBackend, rows
from test_data_loader import marked as marked_fixture
from test_data_warped import values, warped

import nnx
from nnx.data import ArrayDataset, DataLoader
from nnx.errors import ShapeError

marked = marked_fixture  # a fixture of another module


@pytest.fixture
def cupy(standin: FakeCupy) -> FakeCupy:
    nnx.set_backend("numpy")
    return standin


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not prefetching()


def prefetching() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("nnx-prefetch")]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("start", [0, 3])
def test_batches_are_the_same(shuffle: bool, drop_last: bool, start: int) -> None:
    plain = warped(shuffle=shuffle, drop_last=drop_last)
    ahead = warped(shuffle=shuffle, drop_last=drop_last, prefetch=True)
    assert values(ahead.batches(2, start)) == values(plain.batches(2, start))
    assert list(DataLoader(rows(0), 3, prefetch=True)) == []
    assert len(list(DataLoader(rows(2), 3, prefetch=True))) == 1


def test_the_next_batch_is_made_while_this_one_is_used() -> None:
    begun = [threading.Event() for _ in range(4)]
    numbers = iter(range(4))

    def transform(x: Any, rng: Any) -> Any:
        begun[next(numbers)].set()
        return x

    for i, _ in enumerate(DataLoader(rows(4), 1, transform=transform, prefetch=True)):
        assert begun[min(i + 1, 3)].wait(60)
        assert not any(event.is_set() for event in begun[i + 2 :])


def test_a_batch_in_use_is_not_overwritten(marked: MarkedBackend) -> None:
    """All batches of an epoch held at once, each array with memory of its own."""
    for name in ("numpy", "marked"):
        held = list(warped(prefetch=True, backend=name))
        assert values(held) == values(warped())
        arrays = [a for batch in held for a in batch]
        for i, a in enumerate(arrays):
            assert not any(np.shares_memory(a, b) for b in arrays[:i])


@pytest.mark.parametrize("fuse", ["exact", "fast"])
def test_replayed_steps_see_the_batches_they_were_given(fuse: Any) -> None:
    def sums(prefetch: bool) -> list[float]:
        total = nnx.capture(lambda x: (nnx.Tensor(x) * 2.0).sum(), fuse=fuse)
        return [float(total(x)) for x, _ in warped(prefetch=prefetch, drop_last=True)]

    assert sums(True) == sums(False)


def failing(at: int, error: BaseException) -> Any:
    numbers = iter(range(100))

    def transform(x: Any, rng: Any) -> Any:
        if next(numbers) == at:
            raise error
        return x

    return transform


@pytest.mark.parametrize(
    "error", [ShapeError("odd"), KeyError("k"), KeyboardInterrupt(), SystemExit()]
)
def test_an_exception_reaches_the_consumer_in_the_batchs_place(error: BaseException) -> None:
    seen = []
    loader = DataLoader(rows(8), 2, transform=failing(2, error), prefetch=True)
    with pytest.raises(type(error)) as caught:
        seen.extend(t.tolist() for _, t in loader)
    assert caught.value is error and seen == [[0, 1], [2, 3]]


def test_an_exception_that_nobody_waits_for_is_dropped() -> None:
    for _ in DataLoader(rows(8), 2, transform=failing(1, KeyError()), prefetch=True):
        break


def slow(x: Any, rng: Any) -> Any:
    time.sleep(0.05)
    return x


@pytest.mark.parametrize("how", ["break", "exception", "interrupt", "close", "forgotten"])
def test_a_consumer_that_stops_early_leaves_no_thread(how: str) -> None:
    loader = DataLoader(rows(8), 2, transform=slow, prefetch=True)
    if how in ("close", "forgotten"):
        batches: Any = iter(loader)
        next(batches)
        assert prefetching()
        if how == "close":
            batches.close()
        del batches
    try:
        for _ in loader:
            if how == "break":
                break
            raise KeyboardInterrupt if how == "interrupt" else ValueError
    except (KeyboardInterrupt, ValueError):
        assert not prefetching()
    assert not prefetching()


def test_an_iterator_that_is_held_has_no_thread_for_long() -> None:
    batches = iter(DataLoader(rows(8), 2, prefetch=True))
    next(batches)
    deadline = time.monotonic() + 60
    while prefetching() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not prefetching() and len(list(batches)) == 3


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("waiting", [True, False])
def test_ctrl_c(waiting: bool) -> None:
    """While the consumer waits for the thread, and while it computes."""
    loader = DataLoader(rows(8), 2, transform=slow, prefetch=True)
    timer = threading.Timer(0.12, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(time.sleep(0 if waiting else 10) for _ in loader)
    timer.join()
    assert not prefetching()


def test_two_threads_share_a_loader() -> None:
    loader, results = warped(prefetch=True), {}

    def epoch(i: int) -> None:
        results[i] = values(loader.batches(i))

    threads = [threading.Thread(target=epoch, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: values(warped().batches(i)) for i in range(2)}


def first_bytes(loader: DataLoader, batches: Any, queue: Any) -> None:
    rest = [] if batches is None else values(batches)
    queue.put((values(loader.batches(1)), rest))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork")
def test_in_another_process(method: str) -> None:
    """A forked one may even go on with an iterator whose thread is not there."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    context = multiprocessing.get_context(method)
    loader, queue = warped(prefetch=True), context.SimpleQueue()
    batches = iter(loader)
    next(batches)
    given = batches if method == "fork" else None
    process = context.Process(target=first_bytes, args=(loader, given, queue))
    process.start()
    found, rest = queue.get()
    process.join()
    assert process.exitcode == 0 and found == values(warped().batches(1))
    assert rest == (values(warped())[1:] if method == "fork" else [])
    assert values(batches) == values(warped())[1:]


def test_an_iterator_that_is_held_lets_the_process_end() -> None:
    code = (
        "import time, numpy as np; from nnx.data import *\n"
        "loader = DataLoader(ArrayDataset(np.ones((4, 1)), [0] * 4), 1, prefetch=True,"
        " transform=lambda x, rng: time.sleep(0.2) or x)\n"
        "held = iter(loader); next(held); print('end')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [b"end"], b"")


# Devices


def test_a_thread_works_on_the_consumers_backend_and_stream(cupy: FakeCupy) -> None:
    """One crossing per batch, counted where it is consumed; the device's work in one order."""
    digits = ArrayDataset(np.ones((6, 2), np.float32), np.zeros(6, int))
    loader = DataLoader(digits, 2, backend="cupy:1", prefetch=True)
    with nnx.transfers() as plain:
        list(DataLoader(digits, 2, backend="cupy:1"))
    with cupy.cuda.Device(1):
        own = cupy.cuda.Stream(non_blocking=True)
        with own, nnx.transfers(forbid=True) as moved:
            cupy.on.entered.clear()
            batches = list(loader)
    assert (
        [(t.direction, t.arrays, t.nbytes) for t in moved.log]
        == [(t.direction, t.arrays, t.nbytes) for t in plain.log]
        == [("to the device", 2, 32)] * 3
    )
    assert all(a.device.id == 1 for batch in batches for a in batch)
    here = threading.get_ident()
    assert len(cupy.on.entered) == 6 and {stream for stream, _ in cupy.on.entered} == {own}
    assert {entered_in for _, entered_in in cupy.on.entered} - {here}


def test_what_a_transform_does_is_as_if_in_the_consumers_thread(marked: MarkedBackend) -> None:
    def transform(x: Any, rng: Any) -> Any:
        assert nnx.get_backend() is marked
        return x

    with nnx.use_backend("marked"):
        assert len(list(DataLoader(rows(6), 2, transform=transform, prefetch=True))) == 3
