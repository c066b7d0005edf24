"""A stand-in for a CUDA device, under `fake_cupy`: memory pools, streams, events, graphs.

It models what a replay can get wrong.

- Memory has addresses. A pool hands out what it was given back, on the stream that it was taken
  on, filled with rubbish; what it gives to the device waits for all streams. A graph knows
  addresses alone: one whose memory was released raises, one whose memory is another's writes there.
- While a stream captures, kernels are noted and not run; transfers, synchronisation, cuBLAS and
  memory that is not of the graph's own pool raise.
- Copies by address and launches of graphs wait in their stream until something needs them, so that
  what is written too early, or read without an event in between, is seen.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from fake_memory import Lease, Memory, Pinned, Pool


class CUDARuntimeError(RuntimeError):
    """As cupy's."""


class Queue:
    """Work that waits, in order."""

    def __init__(self, lock: Any) -> None:
        self.lock, self.waiting, self.done = lock, list[Callable[[], object]](), 0

    def drain(self, until: int | None = None) -> None:
        with self.lock:
            while self.waiting and (until is None or self.done < until):
                work = self.waiting.pop(0)
                self.done += 1
                work()


class Stream:
    """`cupy.cuda.Stream`. What waits in it is done in order, when somebody must see it.

    The null stream is one object for all devices: its work is that of the current one.
    """

    _numbers = itertools.count(1000)

    def __init__(self, device: Device, null: bool = False, non_blocking: bool = False) -> None:
        self.device, self.non_blocking = device, non_blocking
        self.ptr = 0 if null else next(self._numbers)
        self.device_id = -1 if null else device.current()
        self._queues: dict[int, Queue] = {}
        self.graph: list[Callable[[], object]] | None = None
        self.invalid = False
        device.streams[self.ptr] = self

    @property
    def queue(self) -> Queue:
        number = self.device.current() if self.ptr == 0 else self.device_id
        return self._queues.setdefault(number, Queue(self.device.lock))

    def enqueue(self, work: Callable[[], object]) -> None:
        with self.device.lock:
            if self.graph is not None:
                self.graph.append(work)
            else:
                self.queue.waiting.append(work)

    def drain(self) -> None:
        self.queue.drain()

    def drain_all(self) -> None:
        for queue in tuple(self._queues.values()):
            queue.drain()

    def synchronize(self) -> None:
        self.device.refuse_if_capturing("cudaErrorStreamCaptureUnsupported")
        self.drain()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        event.synchronize()

    def __enter__(self) -> Stream:
        assert self.device_id in (-1, self.device.current()), "a stream of another device"
        self.device.entered.append((self, threading.get_ident()))
        self.device.stack().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.device.stack().pop()

    def begin_capture(self) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert self.non_blocking, "cudaErrorStreamCaptureImplicit"
        self.drain()
        self.graph, self.invalid = [], False

    def end_capture(self) -> Graph:
        nodes, self.graph = self.graph, None
        if self.invalid or nodes is None:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed")
        return Graph(self.device, nodes)

    def is_capturing(self) -> bool:
        return self.graph is not None


class Event:
    """`cupy.cuda.Event`."""

    def __init__(self, *_: object, **__: object) -> None:
        self.queue: Queue | None = None
        self.mark, self.seconds = 0, 0.0

    def record(self, stream: Stream | None = None) -> None:
        """On a stream; without one the event only has the time."""
        self.seconds = time.perf_counter()
        if stream is not None:
            self.queue = stream.queue
            self.mark = self.queue.done + len(self.queue.waiting)

    def synchronize(self) -> None:
        if self.queue is not None:
            self.queue.drain(self.mark)


class Graph:
    """`cupy.cuda.Graph`."""

    def __init__(self, device: Device, nodes: list[Callable[[], object]]) -> None:
        self.device, self.nodes, self.launches = device, nodes, 0
        device.graphs.add(self)

    def launch(self, stream: Stream | None = None) -> None:
        self.launches += 1
        nodes = self.nodes
        (stream or self.device.stream()).enqueue(lambda: [node() for node in nodes])

    def upload(self, stream: Stream | None = None) -> None: ...


class Device:
    """What `fake_cupy` computes on.   current: gives the number of the current device"""

    def __init__(self, current: Callable[[], int], limit: int = 1 << 30) -> None:
        self.current, self.memory = current, Memory(limit)
        self.pool = Pool(self)
        self.lock = threading.RLock()
        self.streams: dict[int, Stream] = {}
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self.entered: list[tuple[Stream, int]] = []
        self._local = threading.local()
        self._null = Stream(self, null=True)

    def stack(self) -> list[Stream]:
        stacks = vars(self._local).setdefault("stacks", {})
        number = self.current()
        found: list[Stream] = stacks.setdefault(number, [self._null])
        return found

    def stream(self) -> Stream:
        return self.stack()[-1]

    @contextmanager
    def using_allocator(self, allocator: Any) -> Iterator[None]:
        before = vars(self._local).get("allocator")
        self._local.allocator = allocator
        try:
            yield
        finally:
            self._local.allocator = before

    def allocate(self, size: int) -> Lease:
        own = vars(self._local).get("allocator")
        assert own or not self.capturing(), "memory of everybody's pool in a graph"
        found: Lease = (own or self.pool.malloc)(size)
        return found

    def capturing(self) -> bool:
        return self.stream().graph is not None

    def refuse_if_capturing(self, what: str) -> None:
        if self.capturing():
            self.stream().invalid = True
            raise CUDARuntimeError(f"{what}: operation not permitted when stream is capturing")

    def refuse_transfer(self, what: str) -> None:
        if self.capturing():
            raise RuntimeError(
                f"the current stream is capturing, so {what} transfers are disallowed"
            )

    def synchronize(self) -> None:
        self.refuse_if_capturing("cudaErrorStreamCaptureUnsupported")
        for stream in tuple(self.streams.values()):
            stream.drain_all()

    def memcpy_async(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        """kind: 1 from the host's pinned memory, 2 the other way, 3 on the device."""
        target = self.memory.at(to, size, host=kind == 2)
        given = self.memory.at(source, size, host=kind == 1)
        self.streams[stream].enqueue(lambda: np.copyto(target, given))

    def pinned(self, size: int) -> Any:
        return Pinned(self.memory, size)
