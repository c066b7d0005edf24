"""What a recording consists of: calls, the leaves that took part, memory, and lines of source."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import Any

from ..backend import Array, Backend, load_backend
from ..tensor import Tensor, shared
from ..update import Update

Line = tuple[str, int]
SLOT = "slot"  # stands for a gradient that lies in the parameter's slot: nobody else may hold it


class Call:
    """One entry of the log.

    kind      "run": a function of the namespace or an operator; "kernel": a backend's override;
              "write", "copy", "uniform", "literal", "numbers", "check": what their names say
    results   the arrays it made, in memory of their own
    writes    the arrays that it wrote to, which existed before
    """

    __slots__ = ("args", "attrs", "function", "kind", "line", "results", "writes")

    def __init__(
        self, kind: str, function: Any, args: Any, attrs: Mapping[str, Any], line: Line,
        results: tuple[Array, ...] = (), writes: tuple[Array, ...] = (),
    ) -> None:  # fmt: skip
        self.kind, self.args, self.attrs = kind, args, attrs
        self.function: Any = function
        self.line, self.results, self.writes = line, results, writes

    def having(self, **changes: Any) -> Call:
        """The same call with other arrays."""
        given = {name: getattr(self, name) for name in self.__slots__} | changes
        return Call(**given)

    @property
    def where(self) -> str:
        """The line of the user's that asked for it."""
        return shown(self.line)

    @property
    def name(self) -> str:
        if self.function is None or self.kind == "check":
            return self.kind
        return str(self.function.__name__)


class Leaf:
    """A Tensor from outside that took part, as it was when the run began.

    grad   its gradient then: an array, None or SLOT
    free   whether a gradient could go to its slot, which nobody else held
    """

    __slots__ = ("data", "free", "grad", "requires_grad", "tensor", "version")

    def __init__(self, t: Tensor) -> None:
        self.tensor, self.data, self.requires_grad = t, t._data, t.requires_grad
        self.grad, self.version = gradient_of(t), t._version
        self.free = t.slot is not None and not shared(t, "slot", 2 if self.grad is SLOT else 1)


def gradient_of(t: Tensor) -> Any:
    return SLOT if t.grad is not None and t.grad is t.slot else t.grad


def bare(grad: Any) -> Any:
    """Its array, if it has a history (`backward(create_graph=True)`)."""
    return grad._data if isinstance(grad, Tensor) else grad


def set_gradient(t: Tensor, grad: Any) -> None:
    t.grad = t.slot if grad is SLOT else grad


class Storage:
    """Memory that arrays of the run lie in.

    origin   the first array seen in it, from which places in it are counted
    label    what made it
    sum      tells whether it has changed
    """

    __slots__ = ("label", "origin", "root", "sum")

    def __init__(self, root: Array, origin: Array, label: tuple[Any, ...], sum: Any) -> None:
        self.root, self.origin, self.label, self.sum = root, origin, label, sum


def shown(line: Line) -> str:
    """file:number, and the source of the line where it can be had."""
    if not line[1]:
        return "capture"
    source = linecache.getline(*line).strip()
    return f"{line[0]}:{line[1]}" + (f": `{source}`" if source else "")


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
