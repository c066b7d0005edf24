"""A recording namespace in small: kernels run on traced arrays, the calls are logged and run again.

What it shows is that kernels are replayable: they reach arrays only through functions of the
namespace and operators, and take no decision that depends on values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Traced:
    """An array of which a kernel may know the shape and dtype; everything else is logged."""

    def __init__(self, log: Log, array: Any) -> None:
        self.log, self.array = log, array
        self.shape, self.dtype, self.ndim = tuple(array.shape), array.dtype, array.ndim

    @classmethod
    def __nnx_op__(cls, op: Any, args: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """An op called inside a kernel is one call: a backend may have its own kernel for it."""
        return next(a.log for a in args if isinstance(a, Traced)).run(op, args, dict(attrs))

    def __getitem__(self, index: Any) -> Any:
        return self.log.run(operator.getitem, (self, index), {})

    def __len__(self) -> int:
        raise AssertionError("a kernel took the length of an array")

    def __bool__(self) -> bool:
        raise AssertionError("a kernel branched on an array's values")

    __array_ufunc__ = __array__ = __iter__ = __hash__ = None  # type: ignore[assignment]


def _operator(f: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(self: Traced, *others: Any) -> Any:
        return self.log.run(f, (self, *others), {})

    def backward(self: Traced, other: Any) -> Any:
        return self.log.run(f, (other, self), {})

    return forward, backward


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "and", "or"):
    _f = getattr(operator, f"__{_name}__")
    for _key, _method in zip((f"__{_name}__", f"__r{_name}__"), _operator(_f), strict=True):
        setattr(Traced, _key, _method)
for _name in ("neg", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Traced, f"__{_name}__", _operator(getattr(operator, f"__{_name}__"))[0])


class Log:
    """The namespace `xp` of a recording: the backend's own, each call logged."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.calls: list[tuple[Callable[..., Any], Any, dict[str, Any], Any]] = []

    def __getattr__(self, name: str) -> Any:
        f = getattr(self._backend.xp, name)
        if not callable(f) or isinstance(f, type) or name in ("float32", "float64", "int64"):
            return f
        return lambda *args, **attrs: self.run(f, args, attrs)

    def run(self, f: Callable[..., Any], args: Any, attrs: dict[str, Any]) -> Traced:
        array = self._backend.result(f(*_each(args, _array), **attrs))
        traced = Traced(self, array)
        self.calls.append((f, args, attrs, traced))
        return traced

    def replay(self, inputs: Sequence[tuple[Traced, Any]]) -> Callable[[Any], Any]:
        """Run the calls again on other inputs; the function returned gives a result's new value."""
        new = {id(t): a for t, a in inputs}

        def found(x: Any) -> Any:
            return new[id(x)] if isinstance(x, Traced) else x

        for f, args, attrs, result in self.calls:
            new[id(result)] = self._backend.result(f(*_each(args, found), **attrs))
        return found


def _array(x: Any) -> Any:
    return x.array if isinstance(x, Traced) else x


def _each(value: Any, f: Callable[[Any], Any]) -> Any:
    """f on every entry of nested tuples and lists."""
    if isinstance(value, (tuple, list)):
        return type(value)(_each(v, f) for v in value)
    return f(value)
