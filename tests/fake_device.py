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

import ctypes
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

Bytes = np.ndarray[Any, Any]
UNIT = 512  # bytes: pools round up to it
RUBBISH = 0xFF  # NaN, or -1


class CUDARuntimeError(RuntimeError):
    """As cupy's."""


class OutOfMemoryError(MemoryError):
    """As cupy's."""


class Ref(NamedTuple):
    """Where an array of a graph's node lies."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


class Memory:
    """All memory of the device: what pools have taken of it, by address."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.chunks: dict[int, Bytes] = {}
        self.pinned: weakref.WeakValueDictionary[int, Pinned] = weakref.WeakValueDictionary()

    @property
    def taken(self) -> int:
        return sum(chunk.nbytes for chunk in self.chunks.values())

    def take(self, size: int) -> Bytes | None:
        if self.taken + size > self.limit:
            return None
        chunk = np.empty(size + UNIT, np.uint8)
        start = -chunk.ctypes.data % UNIT
        chunk = chunk[start : start + size]
        self.chunks[chunk.ctypes.data] = chunk
        return chunk

    def release(self, chunk: Bytes) -> None:
        del self.chunks[chunk.__array_interface__["data"][0]]

    def at(self, address: int, size: int, host: bool = False) -> Bytes:
        """The bytes there, which must be the device's (or pinned memory of the host)."""
        held = (
            {p: np.frombuffer(m, np.uint8) for p, m in self.pinned.items()} if host else self.chunks
        )
        for start, chunk in held.items():
            if start <= address and address + size <= start + chunk.nbytes:
                return chunk[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are no memory of the device's")

    def view(self, ref: Ref) -> Bytes:
        """The array there."""
        low, size = ref.address, ref.dtype.itemsize
        for n, step in zip(ref.shape, ref.strides, strict=True):
            low += min(0, (n - 1) * step)
            size += abs((n - 1) * step)
        if 0 in ref.shape:
            return np.empty(ref.shape, ref.dtype)
        held = self.at(low, size)
        return np.ndarray(ref.shape, ref.dtype, held, ref.address - low, ref.strides)


class Lease:
    """Memory that a pool has lent: goes back when nobody holds it."""

    def __init__(self, pool: Pool, chunk: Bytes, stream: int) -> None:
        self.pool, self.chunk, self.stream = pool, chunk, stream

    def __del__(self) -> None:
        self.pool.give(self.chunk, self.stream)


class Pool:
    """`cupy.cuda.MemoryPool`."""

    def __init__(self, device: Device) -> None:
        self.device, self.memory = device, device.memory
        self.free: dict[tuple[int, int], list[Bytes]] = {}
        self.used, self.dropped = 0, False

    def malloc(self, size: int) -> Lease:
        size = max(1, -(-size // UNIT)) * UNIT
        stream = self.device.stream().ptr
        found = self.free.get((stream, size))
        chunk = found.pop() if found else self.memory.take(size)
        if chunk is None:
            self.free_all_blocks()
            chunk = self.memory.take(size)
        if chunk is None:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: ..."
            )
        chunk[...] = RUBBISH
        self.used += size
        return Lease(self, chunk, stream)

    def give(self, chunk: Bytes, stream: int) -> None:
        self.used -= chunk.nbytes
        self.free.setdefault((stream, chunk.nbytes), []).append(chunk)
        if self.dropped:
            self.free_all_blocks()

    def free_all_blocks(self) -> None:
        freed = list(itertools.chain(*self.free.values()))
        self.free.clear()
        for stream in tuple(self.device.streams.values()) if freed else ():
            stream.drain()
        for chunk in freed:
            self.memory.release(chunk)

    def used_bytes(self) -> int:
        return self.used

    def free_bytes(self) -> int:
        return sum(n * len(chunks) for (_, n), chunks in self.free.items())

    def total_bytes(self) -> int:
        return self.used + self.free_bytes()


class MemoryPool:
    """What users hold of a pool: when it goes, so does what is free in it."""

    def __init__(self, device: Device) -> None:
        self._pool = Pool(device)
        self.malloc, self.free_all_blocks = self._pool.malloc, self._pool.free_all_blocks
        self.used_bytes, self.free_bytes = self._pool.used_bytes, self._pool.free_bytes
        self.total_bytes = self._pool.total_bytes

    def __del__(self) -> None:
        self._pool.dropped = True
        self._pool.free_all_blocks()


class Stream:
    """`cupy.cuda.Stream`. What waits in it is done in order, when somebody must see it."""

    _numbers = itertools.count(1000)

    def __init__(self, device: Device, null: bool = False, non_blocking: bool = False) -> None:
        self.device, self.non_blocking = device, non_blocking
        self.ptr = 0 if null else next(self._numbers)
        self.device_id = device.current()
        self.waiting: list[Callable[[], object]] = []
        self.done = 0
        self.graph: list[Callable[[], object]] | None = None
        self.invalid = False
        device.streams[self.ptr] = self

    def enqueue(self, work: Callable[[], object]) -> None:
        with self.device.lock:
            self._enqueue(work)

    def _enqueue(self, work: Callable[[], object]) -> None:
        if self.graph is not None:
            self.graph.append(work)
        else:
            self.waiting.append(work)

    @property
    def enqueued(self) -> int:
        return self.done + len(self.waiting)

    def drain(self, until: int | None = None) -> None:
        with self.device.lock:
            while self.waiting and (until is None or self.done < until):
                work = self.waiting.pop(0)
                self.done += 1
                work()

    def synchronize(self) -> None:
        self.device.refuse_if_capturing("cudaErrorStreamCaptureUnsupported")
        self.drain()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event.stream is not None:
            event.stream.drain(event.mark)

    def __enter__(self) -> Stream:
        assert self.device_id == self.device.current(), "a stream of another device"
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
        self.stream: Stream | None = None
        self.mark, self.seconds = 0, 0.0

    def record(self, stream: Stream | None = None) -> None:
        """On a stream; without one the event only has the time."""
        self.seconds = time.perf_counter()
        if stream is not None:
            self.stream, self.mark = stream, stream.enqueued

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.drain(self.mark)


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
        self._null: dict[int, Stream] = {}

    def stack(self) -> list[Stream]:
        stacks = vars(self._local).setdefault("stacks", {})
        number = self.current()
        if number not in stacks:
            null = self._null.get(number) or self._null.setdefault(number, Stream(self, null=True))
            stacks[number] = [null]
        found: list[Stream] = stacks[number]
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
            stream.drain()

    def memcpy_async(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        """kind: 1 from the host's pinned memory, 2 the other way, 3 on the device."""
        target = self.memory.at(to, size, host=kind == 2)
        given = self.memory.at(source, size, host=kind == 1)
        self.streams[stream].enqueue(lambda: np.copyto(target, given))

    def pinned(self, size: int) -> Any:
        return Pinned(self.memory, size)


class Pinned(bytearray):
    """`cupy.cuda.PinnedMemoryPointer`: a buffer of the host's."""

    def __init__(self, memory: Memory, size: int) -> None:
        super().__init__(max(size, 1))
        self.ptr = np.frombuffer(self, np.uint8).ctypes.data
        memory.pinned[self.ptr] = self


def held(lease: Lease) -> Any:
    """A buffer of that memory, which keeps it lent."""
    kind = type("Held", (ctypes.c_char * lease.chunk.nbytes,), {})
    made: Any = kind.from_buffer(lease.chunk)
    made.lease = lease
    return made


def pointed(address: int, dtype: Any, count: int = 1) -> np.ndarray[Any, Any]:
    """Host memory at an address, as C functions are given it."""
    size = np.dtype(dtype).itemsize * count
    held = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(held, dtype, count)
