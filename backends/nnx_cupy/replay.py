"""How recorded calls run again on CuPy: memory as `nnx.capture` knows it, and calls into it.

The calls of a plan become one CUDA graph (`graph.py`). Before it is launched the host writes what
it alone knows: numbers of the step, random draws (`static.py`).
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx.backend import Backend
from nnx.calls import Calls, Run, Scope

from .draws import Drawn
from .forms import FILLED, OPERATORS, TAKING_OUT, Again, arrays
from .graph import Part, Step
from .product import Merged, Product
from .static import Feed, Numbers
from .table import stacked

if TYPE_CHECKING:
    from nnx.capture.log import Call

    from . import CupyBackend

Array = Any
Empty = Callable[[tuple[int, ...], Any], Array]

BLOCK = 1 << 18  # words that a checksum takes at once
KEPT = 1 << 20  # bytes: larger constants are made anew in each replay


class CupyReplay:
    """Memory and calls on one device, as `nnx.capture` needs to know them."""

    alignment = 512  # bytes, as CuPy's pools align
    in_place = sys.maxsize  # a graph knows addresses: arguments and results are copied
    early = ("numbers", "uniform")  # the host writes them before the launch

    def __init__(self, backend: CupyBackend, cupy: Any) -> None:
        self.backend, self.cupy, self.current = backend, cupy, backend.on_device
        self.products = (operator.matmul, cupy.matmul, cupy.dot, stacked)
        self.taking_out = {getattr(cupy, name) for name in TAKING_OUT}
        self.filled = {getattr(cupy, name): value for name, value in FILLED.items()}
        self.joining = (cupy.concatenate, cupy.concat, cupy.stack)
        self.functions = {f: getattr(cupy, name) for f, name in OPERATORS.items()}
        self.warned = False
        self._weights: Array = None

    # memory

    def arena(self, nbytes: int) -> Array:
        return self.new((nbytes,), "uint8")

    @staticmethod
    def root(array: Array) -> Array:
        """The array whose memory this one is a view of; itself if it is none."""
        base = getattr(array, "base", None)
        return array if base is None else base

    @staticmethod
    def offset(array: Array, root: Array) -> int:
        return int(array.data.ptr - root.data.ptr)

    @staticmethod
    def span(array: Array) -> tuple[int, int]:
        """The first address of the array's memory, and the first after it."""
        low = high = int(array.data.ptr)
        if array.size:
            high += array.itemsize
            for n, stride in zip(array.shape, array.strides, strict=True):
                step = (n - 1) * stride
                low, high = min(low, low + step), max(high, high + step)
        return low, high

    def checksum(self, root: Array) -> Any:
        """What changes with the values and with their order: weighted sums of 64-bit words."""
        cupy = self.cupy
        with self.current():
            if self._weights is None:
                odd = np.arange(1, BLOCK + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
                self._weights = cupy.asarray(odd | np.uint64(1))
            data = self._strided(root, (root.size,), (root.itemsize,)).view(np.uint8)
            whole = 0 if root.data.ptr % 8 else data.size // 8 * 8
            words, rest = data[:whole].view(np.uint64), data[whole:].astype(np.uint64)
            sums = []
            for part in (words, rest):
                for i in range(0, part.size, BLOCK):
                    block = part[i : i + BLOCK]
                    sums.append(cupy.sum(block * self._weights[: block.size]))
            return cupy.stack(sums).get().tobytes() if sums else b""

    def key(self, array: Array) -> Any:
        """What must agree for a replay: rounding depends on the layout too."""
        laid = "host" if isinstance(array, np.ndarray) else array.strides
        return array.shape, array.dtype, laid

    @staticmethod
    def takes(array: object) -> bool:
        """Whether a replay moves such an argument to the device."""
        return isinstance(array, np.ndarray) and array.dtype.kind in "iufb"

    def standin(self, array: Array) -> tuple[Array, Array]:
        """A buffer that holds the array's values, and a view that users get."""
        with self.current():
            if isinstance(array, np.ndarray):
                buffer = self.cupy.asarray(np.ascontiguousarray(array).reshape(array.shape))
            else:
                buffer = array.copy()
            return buffer, buffer.view()

    def place(self, arena: Array, offset: int, array: Array) -> Array:
        """An array of that layout in the arena: a view of it, if its entries lie without gaps."""
        order = sorted(range(array.ndim), key=lambda i: -array.strides[i])
        lengths = tuple(array.shape[i] for i in order)
        with self.current():
            held = arena[offset : offset + array.nbytes]
            if held.nbytes == array.nbytes:
                made = held.view(array.dtype).reshape(lengths)
                made = made.transpose([order.index(i) for i in range(array.ndim)])
                if made.strides == array.strides:
                    return made
            held = arena[offset : offset + max(array.itemsize, 1)].view(array.dtype)
            return self._strided(held, array.shape, array.strides)  # which CuPy gives no base

    def alias(self, array: Array) -> Array:
        """Another array of the same memory, which does not keep this one."""
        with self.current():
            return array.view()

    def copy(self, target: Array, value: Array) -> None:
        with self.current():
            self.cupy.copyto(target, value)

    def feed(self, pairs: list[tuple[Array, Array]]) -> Feed:
        """What copies a call's arguments to their buffers.   pairs: buffers, arrays like those"""
        return Feed(self, pairs)

    def new(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with self.current():
            return self.cupy.empty(shape, dtype)

    def is_array(self, value: object) -> bool:
        return isinstance(value, self.cupy.ndarray)

    @staticmethod
    def same_layout(a: Array, b: Array) -> bool:
        return bool(a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype)

    @staticmethod
    def contiguous(array: Array) -> bool:
        return bool(array.flags.c_contiguous)

    def _strided(self, array: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
        return self.cupy.lib.stride_tricks.as_strided(array, shape, strides)

    # calls

    def lends(self, call: Call) -> list[Array]:
        """The arguments in whose memory the first result may lie, if of one layout with it."""
        if call.kind == "fused" or isinstance(call.function, Calls):
            return list(call.function.lends(call.args))
        return [a for a in call.args if self.is_array(a)] if self._elementwise(call) else []

    def direct(self, call: Call) -> bool:
        """Whether its replay writes the result and nothing else, whatever memory that is."""
        f = call.function
        if call.kind == "fused" or isinstance(f, Calls):
            return True
        fits = self._elementwise(call) or f in self.products or f in self.taking_out
        return call.kind == "run" and fits and len(call.results) == 1

    def constant(self, call: Call) -> bool:
        """Whether it gives the same values each time, and they are kept rather than made again."""
        if call.kind == "literal":
            return True
        if call.kind != "run" or any(a.nbytes > KEPT for a in call.results):
            return False
        filled = self.filled.get(call.function)
        if filled is not None:
            return not self.is_array(filled(*call.args, **call.attrs))
        return not arrays(self, (tuple(call.args), dict(call.attrs)))

    def forms(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        """What repeats this call; `empty` gives scratch arrays that stay."""
        made: Any
        if call.kind == "numbers":
            made = Numbers(call.args[0], call.results)
        elif call.kind == "uniform":
            made = Drawn(call.args[0], call.results[0], call.where)
        else:
            with self.current():
                runs = getattr(self, f"_{call.kind}")(call, backend, empty)
            runs = [self._product(run) for run in runs]
            made = Part(call.name, call.where, runs, (*call.results, *call.writes))
        return [(made, (), {})]

    def assemble(self, runs: list[Run], varying: list[Array]) -> list[Scope]:
        """The calls of a replay: one launch."""
        return [Scope([(Step(self, [part for part, _, _ in runs]), (), {})])]

    def _elementwise(self, call: Call) -> bool:
        f = self.functions.get(call.function, call.function)
        return call.kind == "run" and isinstance(f, self.cupy.ufunc) and f.nout == 1

    def _product(self, run: Run) -> Run:
        """Products are prepared for the graph: CuPy's own cannot be in one."""
        f, args, attrs = run
        if isinstance(f, Merged):
            matmul, (a, b), given = f.product
            return Product(self, matmul, given["out"], a, b, f), (), {}
        if f in self.products and "out" in attrs and attrs["out"].dtype.kind not in "iub":
            return Product(self, f, attrs["out"], *args), (), {}
        return run

    def _run(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        f: Any = self.functions.get(call.function, call.function)
        args, attrs = call.args, dict(call.attrs)
        if len(call.results) == 1 and "out" not in attrs:
            out = call.results[0]
            if self._elementwise(call):
                # CuPy copies an argument first that is another view of the result's memory.
                same = [self.is_array(a) and self.same(a, out) for a in args]
                args = tuple(out if s else a for a, s in zip(args, same, strict=True))
                return [(f, args, {**attrs, "out": out})]
            if f in self.products:
                return [(self.cupy.matmul, args, {**attrs, "out": out})]
            if f in self.taking_out:
                return [(f, args, {**attrs, "out": out})]
            if f in self.filled and not self.is_array(value := self.filled[f](*args, **attrs)):
                return [(out.fill, (value,), {})]
            if f in self.joining and isinstance(axis := attrs.get("axis", 0), int):
                return self._joined(out, args[0], axis, f is self.cupy.stack)
            if f is self.backend.xp.astype:
                return [(self.cupy.copyto, (out, args[0]), {"casting": "unsafe"})]
        return [(Again(self, lambda: f(*args, **attrs), call), (), {})]

    def _joined(self, out: Array, parts: Any, axis: int, stacked: bool) -> list[Run]:
        """Copies to the parts' places: of more than eight arrays CuPy sends the addresses over."""
        runs, start, before = list[Run](), 0, (slice(None),) * (axis % out.ndim)
        for part in parts:
            end = start + (1 if stacked else part.shape[axis])
            place = out[(*before, start if stacked else slice(start, end))]
            runs.append((self.cupy.copyto, (place, part), {"casting": "unsafe"}))
            start = end
        return runs

    def same(self, a: Array, b: Array) -> bool:
        """Whether two arrays are one, by memory and layout."""
        return bool(a.data.ptr == b.data.ptr and self.same_layout(a, b))

    def _kernel(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        kernel = call.function
        if isinstance(kernel, Calls):
            found = kernel.again(call.results, empty, call.args, call.attrs)
            if found is not None:
                return found
        if not call.results:  # an update, which writes by itself; a redirected result does not
            return [(backend.call, (kernel, call.args, call.attrs), {})]
        again = lambda: backend.call(kernel, call.args, call.attrs)  # noqa: E731
        return [(Again(self, again, call), (), {})]

    def _fused(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        found: list[Run] = call.function.runs(empty, call.args, call.results)
        return found

    def _write(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        target, value = call.args
        return [(operator.setitem, (target, ..., value), {})]

    def _copy(self, call: Call, backend: Backend, empty: Empty) -> list[Run]:
        return [(self.cupy.copyto, (call.results[0], call.args[0]), {})]
