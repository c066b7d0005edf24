"""Memory of a stand-in for a CUDA device, under `fake_device`: by address, lent by pools."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fake_device import Device

Bytes = np.ndarray[Any, Any]
UNIT = 512  # bytes: pools round up to it
RUBBISH = 0xFF  # NaN, or -1


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
        if self.dropped:
            self.release([chunk])
        else:
            self.free.setdefault((stream, chunk.nbytes), []).append(chunk)

    def free_all_blocks(self) -> None:
        freed = list(itertools.chain(*self.free.values()))
        self.free.clear()
        self.release(freed)

    def release(self, freed: list[Bytes]) -> None:
        for stream in tuple(self.device.streams.values()) if freed else ():
            stream.drain_all()
        for chunk in freed:
            self.memory.release(chunk)

    def used_bytes(self) -> int:
        return self.used

    def free_bytes(self) -> int:
        return sum(n * len(chunks) for (_, n), chunks in self.free.items())

    def total_bytes(self) -> int:
        return self.used + self.free_bytes()


class MemoryPool:
    """A pool of the user's, with a part for each device: all methods are the current device's.

    When it goes, what is free in it is lost: in CuPy 14.2 free blocks keep their arena, and the
    arena its blocks.
    """

    def __init__(self, device: Device) -> None:
        self._device, self._pools = device, dict[int, Pool]()

    @property
    def _pool(self) -> Pool:
        return self._pools.setdefault(self._device.current(), Pool(self._device))

    def malloc(self, size: int) -> Lease:
        return self._pool.malloc(size)

    def free_all_blocks(self) -> None:
        self._pool.free_all_blocks()

    def used_bytes(self) -> int:
        return self._pool.used_bytes()

    def free_bytes(self) -> int:
        return self._pool.free_bytes()

    def total_bytes(self) -> int:
        return self._pool.total_bytes()

    def __del__(self) -> None:
        for pool in self._pools.values():
            pool.dropped = True


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
