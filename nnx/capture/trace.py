"""What a kernel sees while it is recorded: arrays and a namespace that log what they are asked."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError

if TYPE_CHECKING:
    from .recorder import Recorder
    from .recording import Recording


class Traced:
    """An array of which a kernel may know shape and dtype; everything else is logged.

    scalar   whether eager execution would hold a scalar of the library here, not a 0-d array
    """

    __slots__ = ("array", "log", "scalar")
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, log: Recording, array: Any, scalar: bool = False) -> None:
        self.log, self.array, self.scalar = log, array, scalar

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return int(self.array.ndim)

    @property
    def size(self) -> int:
        return int(self.array.size)

    @classmethod
    def __nnx_op__(cls, op: Any, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
        """An op called inside a kernel: as eager execution calls it, on bare arrays."""
        log = next(a.log for a in args if isinstance(a, Traced))
        return wrapped(log, op.compute(unwrapped(args), unwrapped(dict(attrs)))[2])

    def __getitem__(self, index: Any) -> Any:
        return self.log.run(operator.getitem, (self, index), {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise CaptureError(
            f"a kernel asked an array for .{name} while it was recorded; kernels use operators, "
            f"indexing, .shape, .dtype, .ndim and functions of xp: xp.{name}(...)"
        )

    def _read(self, *args: Any, **kwargs: Any) -> Any:
        raise CaptureError(
            "a kernel read an array's values (as bool, number, length, iterator or NumPy array) "
            "while it was recorded; kernels use operators, indexing and functions of xp"
        )

    __array__ = __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = _read


def _operator(f: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def method(self: Traced, *others: Any) -> Any:
        return self.log.run(f, (*others, self) if swapped else (self, *others), {})

    return method


_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
for _name in _BINARY.split():
    _f = getattr(operator, f"__{_name}__")
    setattr(Traced, f"__{_name}__", _operator(_f))
    setattr(Traced, f"__r{_name}__", _operator(_f, swapped=True))
for _name in ("neg", "pos", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Traced, f"__{_name}__", _operator(getattr(operator, f"__{_name}__")))


class Namespace:
    """The backend's `xp`, each call logged where a recording runs in this thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._recorder.base.xp, name)
        if callable(value) and not isinstance(value, type):
            value = self._logged(value)
        setattr(self, name, value)
        return value

    def _logged(self, f: Callable[..., Any]) -> Callable[..., Any]:
        active = self._recorder.active

        def function(*args: Any, **kwargs: Any) -> Any:
            log = active()
            return f(*args, **kwargs) if log is None else log.run(f, args, kwargs)

        return function


def each(value: Any, f: Callable[[Any], Any]) -> Any:
    """`f` on what stands in nested tuples, lists, dicts and slices."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind(each(v, f) for v in value)
    if kind is dict:
        return {k: each(v, f) for k, v in value.items()}
    if kind is slice:
        return slice(each(value.start, f), each(value.stop, f), each(value.step, f))
    return f(value)


def unwrapped(value: Any) -> Any:
    """The bare arrays."""
    return each(value, lambda v: v.array if type(v) is Traced else v)


def wrapped(log: Recording, value: Any) -> Any:
    """Arrays as a kernel is to see them."""
    owns = log.base.owns
    return each(value, lambda v: Traced(log, v) if owns(v) else v)


def scalar_pow(a: Any, b: Any) -> Any:
    return _scalar(a) ** _scalar(b)


def _scalar(a: Any) -> Any:
    return a[()] if getattr(a, "shape", None) == () else a
