"""One run of a captured function: what it asked of the backend, call by call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..backend import Array, Backend, load_backend
from ..errors import CaptureError
from ..tensor import Tensor
from ..update import Update
from .log import SLOT, Call, Leaf, Line, Storage, gradient_of, shown
from .trace import Traced, each, unwrapped, wrapped

if TYPE_CHECKING:
    from .recorder import Recorder

READS, WRITES = "reads", "writes"
Span = tuple[int, int]


def overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


class Recording:
    """What a run of the function asked of the backend.

    inputs   the arrays that stand for the function's arguments
    before   leaves that earlier runs found, to know their gradients from the start
    outside  memory that earlier runs read, to see whether the function changes it before it is used
    """

    def __init__(
        self, base: Backend, inputs: Iterable[Array], before: Iterable[Tensor],
        outside: Iterable[Array] = (),
    ) -> None:  # fmt: skip
        self.base, self.memory = base, base.replay()
        self.calls: list[Call] = []
        self.storages: dict[int, Storage] = {}
        self.leaves: dict[int, Leaf] = {}
        self.layers: dict[int, tuple[Any, bool]] = {}
        self.sources: list[Any] = []
        self.outputs: list[Any] = []
        self.inputs = list(inputs)
        self._before = {id(t): Leaf(t) for t in before}
        self._sums = {id(root): (root, self.memory.checksum(root)) for root in outside}
        self._depth = 0
        self._overrides = overrides_of(base)
        self._hidden = {"nnx", type(base).__module__.partition(".")[0]}
        for i, array in enumerate(self.inputs):
            self._add(array, ("input", i))

    # what the recorder hands on

    def run(self, f: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """A function of the namespace or an operator, on traced or bare arrays."""
        traced: list[Traced] = []
        each((args, kwargs), lambda v: traced.append(v) if type(v) is Traced else None)
        if f.__name__ == "pow" and any(t.scalar for t in traced):
            f = _scalar_pow  # libraries raise scalars to a power by other code than arrays
        bare, named = unwrapped(args), unwrapped(dict(kwargs))
        self.see((bare, named))
        result = self.base.call(_applied, (f, bare, named), {})
        fresh: list[Array] = []
        inside = self._depth > 0 or bool(traced)

        def taken(v: Any) -> Any:
            if self.base.owns(v):
                array, scalar = v, False
            elif hasattr(v, "dtype") and hasattr(v, "shape"):
                array, scalar = self.base.result(v), True
            else:
                return v
            if id(self.memory.root(array)) not in self.storages:
                fresh.append(array)
            return Traced(self, array, scalar) if inside else array

        made = each(result, taken)
        if fresh:
            self._log(Call("run", f, bare, named, self.line(), tuple(fresh)))
        return made

    def call(self, kernel: Any, args: Any, attrs: Mapping[str, Any], recorder: Recorder) -> Any:
        """A kernel: a portable one on traced arrays, a backend's own on bare ones."""
        if kernel in self._overrides:
            return self._override(kernel, args, attrs, recorder)
        self._depth += 1
        try:
            return unwrapped(kernel(recorder.xp, *wrapped(self, tuple(args)), **attrs))
        except TypeError as error:
            if "Traced" not in str(error):
                raise
            raise CaptureError(
                f"{self.where()}: the kernel {kernel.__qualname__} hands its arrays to something "
                f"else than its xp, which cannot be recorded: {error}"
            ) from error
        finally:
            self._depth -= 1

    def _override(
        self, kernel: Any, args: Any, attrs: Mapping[str, Any], recorder: Recorder
    ) -> Any:
        self.see((tuple(args), dict(attrs)))
        result = recorder.unrecorded(kernel, args, attrs)
        fresh: list[Array] = []

        def taken(v: Any) -> Any:
            if not self.base.owns(v):
                if not (hasattr(v, "dtype") and hasattr(v, "shape")):
                    return v
                v = self.base.result(v)
            if id(self.memory.root(v)) not in self.storages:
                fresh.append(v)
            return v

        made = each(result, taken)
        writes = tuple(args[i] for i in self._overrides[kernel])
        call = Call("kernel", kernel, tuple(args), attrs, self.line(), tuple(fresh), writes)
        self._log(call)
        return made

    def write(self, target: Array, value: Array) -> Array:
        self.see((target, value))
        held = self.base.write(target, value)
        self._log(Call("write", None, (target, value), {}, self.line(), (), (target,)))
        return held

    def copy(self, array: Array) -> Array:
        self.see(array)
        made = self.base.copy(array)
        self._log(Call("copy", None, (array,), {}, self.line(), (made,)))
        return made

    def literal(self, array: Array) -> Array:
        made = array if self.base.owns(array) else self.base.asarray(array)
        values = (str(array.dtype), array.tolist())
        self._log(Call("literal", None, values, {}, self.line(), (made,)))
        return made

    def uniform(self, shape: tuple[int, ...], dtype: Any, rng: Any) -> Array:
        made = self.base.uniform(shape, dtype, rng)
        self._log(Call("uniform", None, (rng,), {}, self.line(), (made,)))
        return made

    def numbers(self, source: Any, like: Any) -> list[tuple[Array, ...]]:
        self.used(source.parameters())
        self.sources.append(source)
        rows = [
            tuple(self.base.asarray(n, self.base.dtype_name(g)) for n in row)
            for row, g in zip(source.advance(), like, strict=True)
        ]
        made = tuple(a for row in rows for a in row)
        self._log(Call("numbers", None, (source,), {}, self.line(), made))
        return rows

    def test(self, f: Any, array: Array, others: tuple[Any, ...]) -> None:
        self.see((array, others))
        self._log(Call("check", f, (array, *others), {}, self.line()))

    def used(self, tensors: Iterable[Any]) -> None:
        """Note leaves from outside: Parameters, and Tensors that are made once."""
        for t in tensors:
            if isinstance(t, Tensor) and t._node is None and id(t) not in self.leaves:
                known = self.storages.get(id(self.memory.root(t._data)))
                if self.base.owns(t._data) and (known is None or known.label[0] == "outside"):
                    self.leaves[id(t)] = self._before.get(id(t)) or self._leaf(t)

    def _leaf(self, t: Tensor) -> Leaf:
        leaf = Leaf(t)
        if self.made_here(leaf.grad):
            leaf.grad = None
        return leaf

    def made_here(self, array: Any) -> bool:
        known = self.storages.get(id(self.memory.root(array))) if self.base.owns(array) else None
        return known is not None and known.label[0] != "outside"

    # lines

    def line(self) -> Line:
        """The innermost line that is neither nnx's nor the backend's."""
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_globals.get("__name__", "").partition(".")[0] not in self._hidden:
                return frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back  # type: ignore[assignment]
        return "", 0

    def where(self) -> str:
        return shown(self.line())

    # storages

    def _log(self, call: Call) -> None:
        for k, array in enumerate(call.results):
            self._add(array, ("result", len(self.calls), k))
        for array in call.writes:
            storage = self.storages[id(self.memory.root(array))]
            storage.sum = self.memory.checksum(storage.root)
        self.calls.append(call)

    def _add(self, array: Array, label: tuple[Any, ...]) -> Storage:
        root = self.memory.root(array)
        found = self.storages.get(id(root))
        if found is None:
            _, then = self._sums.get(id(root), (None, None))
            found = Storage(root, array, label, then or self.memory.checksum(root))
            self.storages[id(root)] = found
        return found

    def see(self, value: Any) -> None:
        """Note the arrays that a call reads; an array that nnx did not change must not have."""
        for array in self.arrays(value):
            storage = self._add(array, ("outside",))
            if storage.sum != self.memory.checksum(storage.root):
                raise self._changed(array, self.line())

    def arrays(self, value: Any) -> Iterator[Array]:
        found: list[Array] = []
        each(value, lambda v: found.append(v) if self.base.owns(v) else None)
        return iter(found)

    def touches(self, array: Array) -> str:
        """What the run did first with that memory: READS, WRITES or nothing ("").

        What the function returns is read, after all else.
        """
        span = self.memory.span(array)
        for call in self.calls:
            if any(overlap(span, self.memory.span(a)) for a in self.reads(call)):
                return READS
            if any(overlap(span, self.memory.span(a)) for a in (*call.results, *call.writes)):
                return WRITES
        returned = any(overlap(span, self.memory.span(a)) for a in self.arrays(self.outputs))
        return READS if returned else ""

    def reads(self, call: Call) -> list[Array]:
        """The arrays whose values a call takes."""
        args = call.args[1:] if call.kind == "write" else call.args
        return list(self.arrays((tuple(args), dict(call.attrs))))

    def verify(self, line: Line) -> None:
        """Raise if an array was changed, or a gradient set, by other means than nnx's."""
        for storage in self.storages.values():
            if storage.sum != self.memory.checksum(storage.root):
                raise self._changed(storage.root, line)

        for leaf in self.leaves.values():
            g = gradient_of(leaf.tensor)
            if g is None or g is SLOT or g is leaf.grad:
                continue
            if not self.made_here(g):
                raise CaptureError(
                    f"{shown(line)}: the captured function left a gradient of shape "
                    f"{tuple(g.shape)} that nnx did not compute in it (an assignment to .grad, or "
                    f"backward(create_graph=True)): a replay would not renew it. Scale the loss, "
                    f"or clip with nnx.optim.clip_grad_norm"
                )

    def forget(self) -> None:
        """Let the run's arrays go, once they are compared or laid out anew."""
        self.inputs, self.outputs = [], []
        self.calls.clear()
        self.storages.clear()
        self._before.clear()
        self._sums.clear()

    def _changed(self, array: Array, line: Line) -> CaptureError:
        return CaptureError(
            f"{shown(line)}: here or before, an array of shape {tuple(array.shape)} was changed in "
            f"place outside nnx (as by `a *= 2` or `p.data -= ...` on bare arrays), which a replay "
            f"would not repeat; change Parameters by an optimizer, compute on Tensors"
        )


def overrides_of(backend: Backend) -> dict[Any, tuple[int, ...]]:
    """The kernels that are the backend's own, with the positions of what they write."""
    found = overrides_of(load_backend(backend.parent)) if backend.parent is not None else {}
    for target, kernels in backend.kernels.items():
        if isinstance(target, Update):
            found[kernels] = target.positions
            continue
        portable = {target.forward, *(d.kernel for d in target.derivatives)}
        own = {kernels.forward, kernels.value, *(d.kernel for d in kernels.derivatives)} - portable
        found.update(dict.fromkeys(own, ()))
    return found


def _applied(xp: Any, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return f(*args, **kwargs)


def _scalar_pow(a: Any, b: Any) -> Any:
    return _scalar(a) ** _scalar(b)


def _scalar(a: Any) -> Any:
    return a[()] if getattr(a, "shape", None) == () else a
