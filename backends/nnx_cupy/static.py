"""What the host gives a graph: arguments, numbers of the step, generators, in static memory.

It goes through pinned memory, which the device reads while the host goes on. Pinned memory is
written again only when its last transfer is done.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .draws import Draws
    from .replay import CupyReplay

Array = Any
SLOTS = 2  # steps that the host may be ahead of the transfers
ALIGNED = 256


def places(sizes: list[int]) -> tuple[list[int], int]:
    """Where each lies in a block of them, and the size of the block."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNED) * ALIGNED
    return starts, max(end, ALIGNED)


class Ring:
    """Pinned blocks, used in turn.

    views   by block: arrays of these shapes and dtypes in it
    """

    def __init__(self, cuda: Any, like: list[tuple[tuple[int, ...], Any]]) -> None:
        self._sent: list[Any] = []  # for `__del__`, should there be no memory for what follows
        made = [np.dtype(dtype).itemsize * int(np.prod(shape)) for shape, dtype in like]
        self.starts, self.nbytes = places(made)
        self._blocks = [cuda.alloc_pinned_memory(self.nbytes) for _ in range(SLOTS)]
        self.views = [
            [
                np.frombuffer(block, dtype, int(np.prod(shape)), start).reshape(shape)
                for (shape, dtype), start in zip(like, self.starts, strict=True)
            ]
            for block in self._blocks
        ]
        self._sent += [cuda.Event(disable_timing=True) for _ in range(SLOTS)]
        self._memcpy, self._kind = cuda.runtime.memcpyAsync, cuda.runtime.memcpyHostToDevice
        self._last = SLOTS - 1

    def next(self) -> int:
        """The number of a block that may be written."""
        self._last = (self._last + 1) % SLOTS
        self._sent[self._last].synchronize()
        return self._last

    def send(self, slot: int, address: int, stream: Any) -> Any:
        """Copy the block to the device; the event that says when it is there."""
        self._memcpy(address, self._blocks[slot].ptr, self.nbytes, self._kind, stream.ptr)
        self._sent[slot].record(stream)
        return self._sent[slot]

    def __del__(self) -> None:
        if not sys.is_finalizing():
            for event in self._sent:  # CuPy gives pinned memory to the next who asks
                event.synchronize()


class Feed:
    """Copies a call's arguments to their buffers, in order with the launch before.

    Arrays of the host go through pinned memory on a stream of their own, while the step before may
    still run; only then are they copied to the buffers, on the stream of the launch.
    """

    def __init__(self, replay: CupyReplay, pairs: list[tuple[Array, Array]]) -> None:
        self._replay, cuda = replay, replay.cupy.cuda
        here = [(i, b, a) for i, (b, a) in enumerate(pairs) if not replay.takes(a)]
        self._whole = [(i, b.data.ptr, b.nbytes) for i, b, a in here
                       if a.flags.c_contiguous and b.nbytes]  # fmt: skip
        self._strided = [(i, b) for i, b, a in here if not a.flags.c_contiguous]
        self._moved = [(i, b) for i, (b, a) in enumerate(pairs) if replay.takes(a)]
        with replay.current():
            self._stream = cuda.get_current_stream()
            if not self._moved:
                return
            self._ring = Ring(cuda, [(b.shape, b.dtype) for _, b in self._moved])
            self._copying = cuda.Stream(non_blocking=True)
            self._staging = replay.cupy.empty((SLOTS, self._ring.nbytes), "uint8")
            self._copying.wait_event(self._stream.record())  # whoever had that memory before
            self._read = [cuda.Event(disable_timing=True) for _ in range(SLOTS)]

    def __call__(self, arrays: list[Array]) -> None:
        with self._replay.current():
            cupy = self._replay.cupy
            stream = cupy.cuda.get_current_stream()
            if stream.ptr != self._stream.ptr:
                stream.wait_event(self._stream.record())
                self._stream = stream
            if self._moved:
                self._move(arrays, stream)
            memcpy, kind = cupy.cuda.runtime.memcpyAsync, cupy.cuda.runtime.memcpyDeviceToDevice
            for i, address, nbytes in self._whole:
                memcpy(address, arrays[i].data.ptr, nbytes, kind, stream.ptr)
            for i, buffer in self._strided:
                cupy.copyto(buffer, arrays[i])

    def _move(self, arrays: list[Array], stream: Any) -> None:
        ring, runtime = self._ring, self._replay.cupy.cuda.runtime
        slot = ring.next()
        for (i, _), view in zip(self._moved, ring.views[slot], strict=True):
            np.copyto(view, arrays[i])
        self._copying.wait_event(self._read[slot])
        start = self._staging.data.ptr + slot * ring.nbytes
        stream.wait_event(ring.send(slot, start, self._copying))
        for (_, buffer), at in zip(self._moved, ring.starts, strict=True):
            if buffer.nbytes:  # else it has no address
                runtime.memcpyAsync(
                    buffer.data.ptr, start + at, buffer.nbytes, runtime.memcpyDeviceToDevice,
                    stream.ptr,
                )  # fmt: skip
        self._read[slot].record(stream)


class Numbers:
    """A step's numbers from the optimizer, for their 0-d arrays."""

    def __init__(self, source: Any, arrays: tuple[Array, ...]) -> None:
        self.source, self.arrays = source, arrays
        self.like = [(a.shape, a.dtype) for a in arrays]
        self._last: Any = None

    def advance(self) -> bool:
        """Count the step; whether its numbers are others than those of the last."""
        rows = self.source.advance()
        changed = rows != self._last
        self._last = rows
        return bool(changed)

    def take_back(self) -> None:
        self.source.uncount(0)
        self._last = None

    def write(self, views: list[np.ndarray[Any, Any]]) -> None:
        numbers = [n for row in self._last for n in row]
        for view, n in zip(views, numbers, strict=True):
            view[...] = n

    def bind(self, cupy: Any, parts: list[Array]) -> None:
        self._parts = parts

    def unpack(self, cupy: Any) -> None:
        for array, part in zip(self.arrays, self._parts, strict=True):
            cupy.copyto(array, part)

    def launched(self) -> None:
        """Nothing of it stays on the device."""


class HostValues:
    """All that the host writes for a step: one transfer, and what the graph makes of it.

    A source has `like`, shapes and dtypes of what it writes; `bind`, told where that lies on the
    device; `advance`, at each step: whether it has to be written anew; `write`; `unpack`, its part
    of the graph; and is told what became of the step: `launched`, or `take_back`.
    """

    def __init__(self, replay: CupyReplay, sources: list[Numbers | Draws]) -> None:
        self._cupy, self._sources = replay.cupy, sources
        self._ring = Ring(replay.cupy.cuda, [one for source in sources for one in source.like])
        self._block = replay.cupy.empty(self._ring.nbytes, "uint8")
        self._block.fill(0)  # the calls run once before they are captured
        starts = iter(self._ring.starts)
        for source in sources:
            parts = []
            for (shape, dtype), start in zip(source.like, starts, strict=False):
                size = int(np.prod(shape)) * dtype.itemsize
                parts.append(self._block[start : start + size].view(dtype).reshape(shape))
            source.bind(replay.cupy, parts)

    def send(self, stream: Any) -> None:
        """Count the step, and bring its values on their way."""
        changed = [source.advance() for source in self._sources]
        if not any(changed):
            return
        slot = self._ring.next()
        views = iter(self._ring.views[slot])
        for source in self._sources:
            source.write([next(views) for _ in source.like])
        self._ring.send(slot, self._block.data.ptr, stream)

    def take_back(self) -> None:
        """The step was not made."""
        for source in self._sources:
            source.take_back()

    def launched(self) -> None:
        for source in self._sources:
            source.launched()

    def unpack(self) -> None:
        """The part of the graph: each value to where the calls read it."""
        for source in self._sources:
            source.unpack(self._cupy)
