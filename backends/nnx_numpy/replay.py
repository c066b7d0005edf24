"""How recorded calls run again on NumPy, each into the array that it made when it was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx.backend import Backend
from nnx.calls import Calls, Run, Scope
from nnx.threads import alone, together

from .forms import CREATORS, FILLED, OPERATORS, REDUCTIONS, form
from .memory import ALIGNMENT, Memory, aligned, offset
from .table import order_of, product_alone, product_together

if TYPE_CHECKING:
    from nnx.capture.log import Call

Array = np.ndarray[Any, Any]
Empty = Callable[[tuple[int, ...], Any], Array]

_WEIGHTS = np.arange(1, 8193, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
SMALL = 4096  # bytes of zeros that are rather kept than written in each replay


class NumpyReplay:
    """Memory and calls as `nnx.capture` needs to know them."""

    alignment = ALIGNMENT
    in_place = 4096  # bytes: larger arguments are read where they lie, larger results new arrays
    early = ("numbers",)  # kinds of calls whose results are there before the others begin

    # memory

    arena = staticmethod(aligned)

    @staticmethod
    def root(array: Array) -> Array:
        """The array whose memory this one is a view of; itself if it is none."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array

    offset = staticmethod(offset)

    @staticmethod
    def span(array: Array) -> tuple[int, int]:
        """The first address of the array's memory, and the first after it."""
        low = high = int(array.__array_interface__["data"][0])
        if array.size:
            high += array.itemsize
            for n, stride in zip(array.shape, array.strides, strict=True):
                step = (n - 1) * stride
                low, high = min(low, low + step), max(high, high + step)
        return low, high

    @staticmethod
    def checksum(root: Array) -> tuple[int, int, bytes]:
        """What changes with the values and with their order: weighted sums of 64-bit words."""
        data = root.ravel(order="K").view(np.uint8)
        whole, n = data.size // 8 * 8, _WEIGHTS.size
        words = data[:whole].view(np.uint64)
        end = words.size // n * n
        sums = np.vecdot(words[:end].reshape(-1, n), _WEIGHTS).tobytes()
        rest = np.vecdot(words[end:], _WEIGHTS[: words.size - end])
        return hash(sums), int(rest), data[whole:].tobytes()

    @staticmethod
    def key(array: Array) -> Any:
        """What must agree for a replay: rounding depends on the layout too."""
        return array.shape, array.dtype, array.strides

    @staticmethod
    def takes(array: object) -> bool:
        """Whether a replay moves such an argument to the memory of its own kind."""
        return False

    @staticmethod
    def standin(array: Array) -> tuple[Array, Array]:
        """A buffer of the array's layout that holds its values, and a view that users get."""
        spans = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True) if n]
        low = -sum(s for s in spans if s < 0)
        memory = aligned(low + sum(s for s in spans if s > 0) + array.itemsize)
        buffer: Array = np.ndarray(array.shape, array.dtype, memory, low, array.strides)
        buffer[...] = array
        view = buffer.view()
        view.flags.writeable = False
        return buffer, view

    @staticmethod
    def place(arena: Array, offset: int, array: Array) -> Array:
        """An array of that layout in the arena."""
        return np.ndarray(array.shape, array.dtype, arena, offset, array.strides)

    @staticmethod
    def alias(array: Array) -> Array:
        """Another array of the same memory, which does not keep this one."""
        root = NumpyReplay.root(array)
        if not isinstance(root, Memory):
            return array.view()
        made: Array = root.part(offset(array, root), array.shape, array.dtype, array.strides)
        return made

    copy = staticmethod(np.copyto)

    @staticmethod
    def feed(pairs: list[tuple[Array, Array]]) -> Callable[[list[Array]], None]:
        """What copies a call's arguments to their buffers.   pairs: buffers, arrays like those"""
        buffers = [buffer for buffer, _ in pairs]

        def copy(arrays: list[Array]) -> None:
            for buffer, array in zip(buffers, arrays, strict=True):
                np.copyto(buffer, array)

        return copy

    @staticmethod
    def new(shape: tuple[int, ...], dtype: Any, order: tuple[int, ...] | None = None) -> Array:
        """A new array whose memory has its axes in that order."""
        if order is None:
            return np.empty(shape, dtype)
        made: Array = np.empty([shape[i] for i in order], dtype)
        return made.transpose([order.index(i) for i in range(len(order))])

    @staticmethod
    def order(array: Array) -> tuple[int, ...] | None:
        """Its order of axes in memory; None for the usual one."""
        return None if array.flags.c_contiguous else order_of(array)

    @staticmethod
    def dense(array: Array) -> bool:
        """Whether its memory has no gaps, whatever the order of axes."""
        return bool(array.transpose(order_of(array)).flags.c_contiguous)

    @staticmethod
    def view(array: Array, shape: tuple[int, ...], at: int, strides: tuple[int, ...]) -> Array:
        """The memory of an array without gaps from that byte on, seen otherwise."""
        base = array if array.flags.c_contiguous else array.transpose(order_of(array))
        return np.ndarray(shape, array.dtype, base, at, strides)

    @staticmethod
    def is_array(value: object) -> bool:
        return isinstance(value, np.ndarray)

    @staticmethod
    def plain(array: Array) -> bool:
        """Whether calls may be given the array itself in place of a copy."""
        return type(array) is np.ndarray and array.flags.aligned

    @staticmethod
    def same_layout(a: Array, b: Array) -> bool:
        return a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype

    @staticmethod
    def contiguous(array: Array) -> bool:
        return bool(array.flags.c_contiguous)

    # calls

    @staticmethod
    def lends(call: Call) -> list[Array]:
        """The arguments in whose memory the first result may lie, if of one layout with it."""
        if call.kind == "fused" or isinstance(call.function, Calls):
            return list(call.function.lends(call.args))
        f = OPERATORS.get(call.function, call.function)
        if call.kind != "run" or not isinstance(f, np.ufunc) or f.nout > 1 or f.signature:
            return []
        return [a for a in call.args if isinstance(a, np.ndarray)]

    @staticmethod
    def direct(call: Call) -> bool:
        """Whether its replay writes the result and nothing else, whatever memory that is."""
        f = OPERATORS.get(call.function, call.function)
        if call.kind == "fused" or isinstance(f, Calls):
            return True
        fits = (isinstance(f, np.ufunc) and f.nout == 1) or f in REDUCTIONS
        return call.kind == "run" and fits and len(call.results) == 1

    @staticmethod
    def constant(call: Call) -> bool:
        """Whether it gives the same values each time, and they are kept rather than made again."""
        if call.kind == "literal":
            return True
        if call.kind != "run" or call.function not in CREATORS:
            return False
        fill = FILLED.get(call.function)
        if fill is None:
            return True
        small = all(r.nbytes <= SMALL for r in call.results)
        return small and not isinstance(fill(*call.args, **call.attrs), np.ndarray)

    def forms(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        """The calls that repeat this one; `empty` gives scratch arrays that stay."""
        return getattr(self, f"_{call.kind}")(call, backend, empty)  # type: ignore[no-any-return]

    def assemble(self, runs: list[Run], varying: list[Array]) -> list[Scope]:
        """The calls of a replay; those among products on one thread under one setting of it.

        varying   arrays that are others in each replay
        """
        scopes: list[Scope] = []
        for small, group in groupby(_numbered(runs), lambda item: item[0]):
            found = [run for _, run in group]
            scopes.append(Scope(found, alone, together) if small else Scope(found))
        return scopes

    def _run(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        f: Any = OPERATORS.get(call.function, call.function)
        args, attrs = call.args, dict(call.attrs)
        if len(call.results) == 1 and "out" not in attrs:
            found = form(f, call.results[0], args, attrs)
            if found is not None:
                return found
        return [(_Again(lambda: f(*args, **attrs), args, call.results), (), {})]

    def _kernel(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        kernel = call.function
        if isinstance(kernel, Calls):
            found = kernel.again(call.results, empty, call.args, call.attrs)
            if found is not None:
                return found
        if not call.results:  # an update, which writes by itself; a redirected result does not
            return [(backend.call, (kernel, call.args, call.attrs), {})]
        again = lambda: backend.call(kernel, call.args, call.attrs)  # noqa: E731
        return [(_Again(again, call.args, call.results), (), {})]

    def _fused(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        found: list[Run] = call.function.runs(empty, call.args, call.results)
        return found

    def _write(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        return [(np.copyto, call.args, {"casting": "unsafe"})]

    def _copy(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        return [(np.copyto, (call.results[0], call.args[0]), {})]

    def _literal(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        dtype, values = call.args
        return [(np.copyto, (call.results[0], np.asarray(values, dtype)), {})]

    def _uniform(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        out, draw = call.results[0], call.args[0].random
        if out.dtype == np.float32 and out.flags.c_contiguous:
            return [(draw, (), {"dtype": np.float32, "out": out})]
        drawn = empty(out.shape, np.float32)
        return [
            (draw, (), {"dtype": np.float32, "out": drawn}),
            (np.copyto, (out, drawn), {"casting": "unsafe"}),
        ]

    def _numbers(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        return [(_Numbers(call.args[0], call.results), (), {})]

    def _check(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        f = call.function
        quick = getattr(backend.kernels, "tests", {}).get(f)
        return [(_unless(quick, f) if quick else f, call.args, call.attrs)]


def _numbered(runs: list[Run]) -> Iterator[tuple[bool, Run]]:
    """Each with whether it lies between products on one thread, with none on all between them."""
    small = [i for i, run in enumerate(runs) if run[0] is product_alone]
    large = [i for i, run in enumerate(runs) if run[0] is product_together]
    for i, (f, args, attrs) in enumerate(runs):
        before = max((j for j in small if j <= i), default=-1)
        after = min((j for j in small if j >= i), default=-1)
        inside = before >= 0 <= after and not any(before < j < after for j in large)
        yield inside, (np.matmul if f is product_alone else f, args, attrs)


def _unless(quick: Callable[..., bool], f: Callable[..., None]) -> Callable[..., None]:
    def test(values: Array, *others: Any) -> None:
        if not quick(values, *others):
            f(values, *others)

    return test


class _Again:
    """For what takes no `out`: run it, and copy what it made."""

    def __init__(self, f: Callable[[], Any], args: Any, results: tuple[Array, ...]) -> None:
        self.f, self.results = f, results
        self.given = {id(NumpyReplay.root(a)) for a in _arrays(args)}

    def __call__(self) -> None:
        found = [a for a in _arrays(self.f()) if id(NumpyReplay.root(a)) not in self.given]
        for old, new in zip(self.results, found, strict=True):
            np.copyto(old, new, casting="unsafe")


class _Numbers:
    """Writes a step's numbers into their 0-d arrays, if they are others than before."""

    def __init__(self, source: Any, arrays: tuple[Array, ...]) -> None:
        self.source, self.arrays = source, arrays
        self.last: Any = None

    def __call__(self) -> None:
        rows = self.source.advance()
        if rows != self.last:
            self.last, numbers = rows, [n for row in rows for n in row]
            for array, n in zip(self.arrays, numbers, strict=True):
                array.fill(n)


def _arrays(value: Any) -> list[Array]:
    if isinstance(value, (np.ndarray, np.generic)):
        return [np.asarray(value)]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    return [a for v in value for a in _arrays(v)] if isinstance(value, (tuple, list)) else []


NUMPY = NumpyReplay()
