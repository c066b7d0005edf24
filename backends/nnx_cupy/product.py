"""Matrix products of a plan, and the ways in which cuBLASLt can do what follows them too."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnx.calls import Run

from .gemm import CublasLt, Epilogue, Gemm, UnavailableError, mask_nbytes, products

if TYPE_CHECKING:
    from .replay import CupyReplay

Array = Any
MASKED = "RELU_AUX_BIAS"
CALLS, TIMES = 20, 5  # of a way that is timed: in one graph, and launches of that
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class Merged(NamedTuple):
    """A product and the kernels after it, for which cuBLASLt has an epilogue.

    kind      "BIAS", "RELU_BIAS", "DRELU_BGRAD" or "BGRADA": of cublasLtEpilogue_t
    product   cupy.matmul with its arguments, into scratch where `out` is not made by it
    then      calls that make `out`, and `vector` if it is a gradient
    vector    of an entry for each column: the bias, or its gradient
    y         what ReLU gave, of "DRELU_BGRAD": what tells where it let a number pass
    """

    kind: str
    product: Run
    then: list[Run]
    out: Array
    vector: Array
    y: Array = None

    def __call__(self) -> None:
        for f, args, attrs in (self.product, *self.then):
            f(*args, **attrs)

    @property
    def results(self) -> list[Array]:
        return [self.out] if self.kind.endswith("BIAS") else [self.out, self.vector]


class Way:
    """One way to do a product and what follows it: calls, then products of cuBLASLt, then calls.

    seconds   that it takes; infinite if its results are not those of the plain way
    """

    def __init__(self, name: str, gemms: list[Gemm], after: list[Run]) -> None:
        self.name, self.gemms, self.after = name, gemms, after
        self.before: list[Run] = []
        self.seconds = 0.0


class Product:
    """out = a @ b: by f(a, b, out=out), or once it is prepared by cuBLASLt in a graph.

    way   how it is done there: with the calls after it in a `Merged`, or with an epilogue in their
          place. The first call after it was prepared chooses, by what it then finds to be faster.
    """

    def __init__(
        self, replay: CupyReplay, f: Any, out: Array, a: Array, b: Array,
        merged: Merged | None = None,
    ) -> None:  # fmt: skip
        self.replay, self.f, self.out, self.a, self.b = replay, f, out, a, b
        self.merged = merged
        self.workspace: Array = None
        self.mask: Array = None
        self._then = [] if merged is None else merged.then
        self.way = Way("", [], self._then)
        self.ways = [self.way]
        self._lt: CublasLt | None = None
        self._relu: Product | None = None  # of a slope: the product whose mask it reads
        self._chosen = merged is None
        self.__name__ = "matmul"

    def __call__(self) -> None:
        if self.workspace is None:
            self.f(self.a, self.b, out=self.out)
            self._calls(self._then)
        elif self._chosen:
            self.do(self.way)
        else:
            self._choose()

    def do(self, way: Way) -> None:
        self._calls(way.before)
        memory, stream = self.workspace, self.replay.cupy.cuda.get_current_stream()
        for gemm in way.gemms:
            gemm.launch(memory.data.ptr, memory.nbytes, stream.ptr)
        self._calls(way.after)

    @staticmethod
    def _calls(runs: list[Run]) -> None:
        for f, args, attrs in runs:
            f(*args, **attrs)

    def prepare(self, lt: CublasLt, relus: list[Product]) -> int:
        """Choose algorithms; the bytes of workspace that they need.

        relus   the products whose `out` is what ReLU gave, and lies there when this one runs
        """
        self._lt = lt
        self._prepare_plain(lt)
        if self.merged is not None:
            self._prepare_merged(lt, self.merged, relus)
        gemms = [gemm for way in self.ways for gemm in way.gemms]
        return max((gemm.workspace for gemm in gemms), default=0)

    def _prepare_plain(self, lt: CublasLt) -> None:
        out, a, b, way = self.out, self.a, self.b, self.way
        if a.ndim == 1:
            a, out = a[None, :], out[..., None, :] if b.ndim > 1 else out[None]
        if b.ndim == 1:
            b, out = b[:, None], out[..., None]
        if not out.size:
            return
        if not a.size:
            way.before.append((out.fill, (0,), {}))
            return
        precision = self.replay.backend.matmul_precision
        a, b = (x if x.dtype == out.dtype else self._copied(x, out.dtype) for x in (a, b))
        made = products(lt, out, a, b, precision)
        if made is None:
            a, b = self._copied(a, out.dtype), self._copied(b, out.dtype)
            whole = self.replay.cupy.empty(out.shape, out.dtype)
            way.after = [(self.replay.cupy.copyto, (out, whole), {}), *way.after]
            made = products(lt, whole, a, b, precision)
            assert made is not None  # all are contiguous
        way.gemms = made

    def _copied(self, x: Array, dtype: Any) -> Array:
        """A contiguous array that has the values of x when the product begins."""
        made = self.replay.cupy.empty(x.shape, dtype)
        self.way.before.append((self.replay.cupy.copyto, (made, x), {"casting": "unsafe"}))
        return made

    # epilogues

    def _prepare_merged(self, lt: CublasLt, merged: Merged, relus: list[Product]) -> None:
        if merged.kind in ("BIAS", "BGRADA"):
            self._add(lt, merged, merged.kind)
        elif not lt.relu_is_ours(self.replay.cupy, str(self.out.dtype)):
            return
        elif merged.kind == "RELU_BIAS":
            self._add(lt, merged, "RELU_BIAS")
            self.mask = self.replay.cupy.empty(mask_nbytes(self.out.shape), "uint8")
            self._add(lt, merged, MASKED, self.mask)
        else:
            for relu in relus:
                if self.replay.same(relu.out, merged.y):
                    self._relu = relu
                    self._add(lt, merged, "DRELU_BGRAD", relu.mask)

    def _add(self, lt: CublasLt, merged: Merged, name: str, mask: Array = None) -> None:
        """A way with that epilogue, where cuBLASLt has it."""
        address = 0 if mask is None else mask.data.ptr
        epilogue = Epilogue(name, merged.vector.data.ptr, address)
        precision = self.replay.backend.matmul_precision
        try:
            made = products(lt, merged.out, self.a, self.b, precision, epilogue)
        except UnavailableError:
            return
        if made is not None:
            self.ways.append(Way(name, made, []))

    @property
    def masked(self) -> Way | None:
        """The way that leaves a mask for the slope."""
        return self.ways[-1] if self.ways[-1].name == MASKED else None

    def _choose(self) -> None:
        """The fastest way whose results are right. A mask is only made for a slope that reads it.

        cuBLASLt has had epilogues that left entries out: each is tried, on what lies there now.
        """
        self._chosen, plain = True, self.way
        for way in self.ways:
            right = way is plain or self._agrees(way)
            way.seconds = seconds(self.replay.cupy, partial(self.do, way)) if right else math.inf
        if self._relu is None:
            self.way = min((w for w in self.ways if w is not self.masked), key=lambda w: w.seconds)
        elif (masked := self._relu.masked) is not None:
            with_mask = masked.seconds + self.ways[-1].seconds
            if with_mask < self._relu.way.seconds + plain.seconds:
                self.way, self._relu.way = self.ways[-1], masked
        if self.ways[-1].seconds == math.inf:
            self.do(self.way)  # else the results of the last are there, and its mask

    def _agrees(self, way: Way) -> bool:
        """Whether it gives what the plain way gives, but for rounding; the results are its own."""
        assert self.merged is not None and self._lt is not None
        found = []
        for one in (self.ways[0], way):
            for a in self.merged.results:
                a.fill(math.nan)
            try:
                self.do(one)
            except self._lt.bindings.cuBLASLtError:
                return False
            found.append([a.astype("float64").get() for a in self.merged.results])
        tolerance = TOLERANCE[str(self.out.dtype)]
        return all(_close(a, b, tolerance) for a, b in zip(*found, strict=True))


def _close(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], tolerance: float) -> bool:
    largest = np.max(np.abs(a), initial=0, where=np.isfinite(a))
    return bool(np.allclose(a, b, rtol=0, atol=tolerance * largest, equal_nan=True))


def seconds(cupy: Any, f: Callable[[], None]) -> float:
    """That the calls of f take in a graph, at best."""
    f()
    stream = cupy.cuda.get_current_stream()

    def calls() -> None:
        for _ in range(CALLS):
            f()

    graph = graph_of(stream, calls)
    start, end, best = cupy.cuda.Event(), cupy.cuda.Event(), math.inf
    for _ in range(1 + TIMES):
        start.record(stream)
        graph.launch(stream)
        end.record(stream)
        end.synchronize()
        best = min(best, float(cupy.cuda.get_elapsed_time(start, end)) / 1e3 / CALLS)
    return best


def graph_of(stream: Any, f: Callable[[], None]) -> Any:
    """What f launches on the stream, which is current, as a graph."""
    stream.begin_capture()
    try:
        f()
    except BaseException:
        _abandon(stream)
        raise
    graph = stream.end_capture()
    graph.upload(stream)
    return graph


def _abandon(stream: Any) -> None:
    try:
        stream.end_capture()
    except Exception:  # what ended the capture has made it invalid
        return
