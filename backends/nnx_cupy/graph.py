"""A plan's calls as one CUDA graph, with the memory that it works in."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from nnx.calls import Run
from nnx.errors import CaptureError

from .device import no_memory
from .draws import Drawn, Draws, grouped
from .gemm import CublasLt, UnavailableError
from .product import Product, graph_of
from .static import HostValues, Numbers

if TYPE_CHECKING:
    from .replay import CupyReplay

Array = Any
_building = threading.RLock()  # cuBLASLt chooses no algorithm while any stream captures


class Part:
    """One recorded call, as calls on the device.

    where     the line of the user's that asked for it
    written   arrays that it writes
    """

    def __init__(self, name: str, where: str, runs: list[Run], written: tuple[Array, ...]) -> None:
        self.name, self.where, self.runs, self.written = name, where, runs, written

    def __call__(self) -> None:
        for f, args, attrs in self.runs:
            f(*args, **attrs)

    def __str__(self) -> str:
        """Its name, and what its products do on the way."""
        ways = [product.way.name for product in self.products() if product.way.name]
        return " + ".join([self.name, *ways])

    def products(self) -> list[Product]:
        return [f for f, _, _ in self.runs if isinstance(f, Product)]

    def captured(self) -> None:
        """The same, for a graph: what that refuses, names the call."""
        try:
            self()
        except Exception as error:
            if no_memory(error):
                raise
            raise CaptureError(
                f"{self.where}: {self.name} cannot be part of a CUDA graph "
                f"({type(error).__name__}: {error}): a graph reads nothing on the host and calls "
                f"no library that waits; compute it outside the captured function"
            ) from error


class Step:
    """Repeats a plan's calls: values from the host, then one launch.

    pool     the memory that the graph works in, beside the plan's own; it goes with the graph
    graph    None where products cannot be part of one: then the calls are made one by one
    """

    def __init__(self, replay: CupyReplay, parts: list[Any]) -> None:
        self._replay = replay
        self._parts = [part for part in parts if isinstance(part, Part)]
        self._stream: Any = None
        self.graph: Any = None
        self.pool = replay.cupy.cuda.MemoryPool()
        numbers = [part for part in parts if isinstance(part, Numbers)]
        draws = grouped(part for part in parts if isinstance(part, Drawn))
        others: list[Numbers | Draws] = [*numbers, *draws]
        with _building, replay.current():
            self._host = HostValues(replay, others) if others else None
            if self._prepared():
                self.graph = self._captured()
        names = ", ".join(map(str, self._parts))
        self.note = f"one CUDA graph: {names}" if self.graph else f"one by one: {names}"
        self.__name__ = "launch" if self.graph else "calls"

    def __call__(self) -> None:
        with self._replay.current():
            self._stream = stream = self._replay.cupy.cuda.get_current_stream()
            if self._host is not None:
                self._host.send(stream)
            try:
                self._enqueue(stream)
            except Exception as error:
                if self._host is not None and no_memory(error):
                    self._host.take_back()
                raise
            if self._host is not None:
                self._host.launched()

    def _enqueue(self, stream: Any) -> None:
        if self.graph is not None:
            self.graph.launch(stream)
            return
        if self._host is not None:
            self._host.unpack()
        for part in self._parts:
            part()

    def __del__(self) -> None:
        """Others may get the memory: the last launch must be done with it.

        What is free in a pool that goes is lost in CuPy 14.2: it is given back before.
        """
        if sys.is_finalizing():
            return
        with self._replay.current():  # the null stream and the pool are the current device's
            if self._stream is not None:
                self._stream.synchronize()
            self.graph = None
            self._parts.clear()
            self.pool.free_all_blocks()

    def _prepared(self) -> bool:
        """Whether all products can be part of a graph; what they need is made."""
        replay = self._replay
        found = [product for part in self._parts for product in part.products()]
        if not found:
            return True
        with replay.cupy.cuda.using_allocator(self.pool.malloc):
            try:
                lt = replay.backend.cublaslt()
                size = self._prepare(lt)
            except UnavailableError as error:
                if no_memory(error):
                    raise
                if not replay.warned:
                    replay.warned = True
                    warnings.warn(
                        f"capture on {replay.backend.name!r}: products cannot be part of a CUDA "
                        f"graph, so replays launch kernels one by one: {error}. pip install "
                        f"nvmath-python",
                        stacklevel=2,
                    )
                return False
            workspace = replay.cupy.empty(max(size, 1), "uint8")
        for product in found:
            product.workspace = workspace
        return True

    def _prepare(self, lt: CublasLt) -> int:
        """Prepare all products; the bytes of workspace that they need."""
        size, relus, span = 0, list[Product](), self._replay.span
        for part in self._parts:
            for product in part.products():
                size = max(size, product.prepare(lt, relus))
            over = [span(a) for a in part.written]
            relus = [p for p in relus if not any(_meet(span(p.out), s) for s in over)]
            relus += [product for product in part.products() if product.masked is not None]
        return size

    def _captured(self) -> Any:
        """The graph. All is run once before, so that no kernel is first loaded while it captures;
        what was written is put back.
        """
        cuda, copyto = self._replay.cupy.cuda, self._replay.cupy.copyto
        written = (a for part in self._parts for a in part.written)
        roots = {id(root): root for root in map(self._replay.root, written)}
        saved = [(root, root.copy()) for root in roots.values()]
        outer, stream = cuda.get_current_stream(), cuda.Stream(non_blocking=True)
        done = cuda.Event(disable_timing=True)
        stream.wait_event(outer.record())
        with stream, cuda.using_allocator(self.pool.malloc):
            try:
                self._run()
            finally:
                for root, values in saved:
                    copyto(root, values)
                outer.wait_event(stream.record(done))
            return graph_of(stream, self._run)

    def _run(self) -> None:
        if self._host is not None:
            self._host.unpack()
        for part in self._parts:
            part.captured()


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]
