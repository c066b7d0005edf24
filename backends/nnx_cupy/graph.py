"""A plan's calls as one CUDA graph, with the memory that it works in."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from nnx.calls import Run
from nnx.errors import CaptureError

from .device import no_memory
from .gemm import CublasLt, Gemm, UnavailableError, products
from .static import HostValues

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


class Product:
    """out = a @ b: by f(a, b, out=out), or once it is prepared by cuBLASLt in a graph."""

    def __init__(self, replay: CupyReplay, f: Any, out: Array, a: Array, b: Array) -> None:
        self.replay, self.f, self.out, self.a, self.b = replay, f, out, a, b
        self.workspace: Array = None
        self._before: list[Run] = []
        self._gemms: list[Gemm] = []
        self._after: list[Run] = []
        self.__name__ = "matmul"

    def __call__(self) -> None:
        if self.workspace is None:
            self.f(self.a, self.b, out=self.out)
            return
        for f, args, attrs in self._before:
            f(*args, **attrs)
        memory, stream = self.workspace, self.replay.cupy.cuda.get_current_stream()
        for gemm in self._gemms:
            gemm.launch(memory.data.ptr, memory.nbytes, stream.ptr)
        for f, args, attrs in self._after:
            f(*args, **attrs)

    def prepare(self, lt: CublasLt) -> int:
        """Choose algorithms; the bytes of workspace that they need."""
        out, a, b = self.out, self.a, self.b
        if a.ndim == 1:
            a, out = a[None, :], out[..., None, :] if b.ndim > 1 else out[None]
        if b.ndim == 1:
            b, out = b[:, None], out[..., None]
        if not out.size:
            return 0
        if not a.size:
            self._before.append((out.fill, (0,), {}))
            return 0
        precision = self.replay.backend.matmul_precision
        a, b = (x if x.dtype == out.dtype else self._copied(x, out.dtype) for x in (a, b))
        made = products(lt, out, a, b, precision)
        if made is None:
            a, b = self._copied(a, out.dtype), self._copied(b, out.dtype)
            whole = self.replay.cupy.empty(out.shape, out.dtype)
            self._after.append((self.replay.cupy.copyto, (out, whole), {}))
            made = products(lt, whole, a, b, precision)
            assert made is not None  # all are contiguous
        self._gemms = made
        return max(gemm.workspace for gemm in made)

    def _copied(self, x: Array, dtype: Any) -> Array:
        """A contiguous array that has the values of x when the product begins."""
        made = self.replay.cupy.empty(x.shape, dtype)
        self._before.append((self.replay.cupy.copyto, (made, x), {"casting": "unsafe"}))
        return made


class Step:
    """Repeats a plan's calls: values from the host, then one launch.

    pool     the memory that the graph works in, beside the plan's own; it goes with the graph
    graph    None where products cannot be part of one: then the calls are made one by one
    """

    def __init__(self, replay: CupyReplay, parts: list[Any]) -> None:
        self._replay = replay
        self._parts = [part for part in parts if isinstance(part, Part)]
        others = [part for part in parts if not isinstance(part, Part)]
        self._stream: Any = None
        self.graph: Any = None
        self.pool = replay.cupy.cuda.MemoryPool()
        with _building, replay.current():
            self._host = HostValues(replay, others) if others else None
            if self._prepared():
                self.graph = self._captured()
        names = ", ".join(part.name for part in self._parts)
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
        found = [f for part in self._parts for f, _, _ in part.runs if isinstance(f, Product)]
        if not found:
            return True
        with replay.cupy.cuda.using_allocator(self.pool.malloc):
            try:
                lt = replay.backend.cublaslt()
                size = max(product.prepare(lt) for product in found)
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
            return self._noted(stream)

    def _noted(self, stream: Any) -> Any:
        stream.begin_capture()
        try:
            self._run()
        except BaseException:
            self._abandon(stream)
            raise
        graph = stream.end_capture()
        graph.upload(stream)
        return graph

    def _abandon(self, stream: Any) -> None:
        try:
            stream.end_capture()
        except Exception:  # what ended the capture has made it invalid
            return

    def _run(self) -> None:
        if self._host is not None:
            self._host.unpack()
        for part in self._parts:
            part.captured()
