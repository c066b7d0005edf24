"""Python numbers in, Python numbers out: kernels on ints and floats, through `math`.

The notebook's nodes multiply prices, not arrays; `nnx.MulNode().forward(100, 2)` is the int 200.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .backend import NUMBERS, Backend
from .errors import DtypeError

Number = int | float | bool


class Scalar:
    """A Python number that answers to what a kernel asks of an array."""

    __slots__ = ("value",)
    shape: tuple[int, ...] = ()
    ndim = 0

    def __init__(self, value: Number) -> None:
        self.value = value

    @property
    def dtype(self) -> type:
        return type(self.value)

    @classmethod
    def __nnx_op__(cls, op: Any, args: Any, attrs: Any) -> Scalar:
        """Kernels may call ops."""
        return cls(op.compute(tuple(map(_value, args)), attrs)[2])


def _value(x: Any) -> Any:
    return x.value if type(x) is Scalar else x


def _lift(f: Callable[..., Any]) -> Callable[..., Scalar]:
    def function(*args: Any) -> Scalar:
        return Scalar(f(*map(_value, args)))

    return function


def _divide(a: Number, b: Number) -> float:
    try:
        return a / b
    except ZeroDivisionError:
        return math.copysign(math.inf, a) * math.copysign(1, b) if a else math.nan


def _power(a: Number, b: Number) -> Number:
    try:
        y = a**b
    except (ZeroDivisionError, OverflowError):
        return -math.inf if a < 0 and b % 2 else math.inf
    return math.nan if isinstance(y, complex) else y


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "truediv": _divide, "pow": _power,
}  # fmt: skip
for _name, _f in _ARITHMETIC.items():
    setattr(Scalar, f"__{_name}__", _lift(_f))
    setattr(Scalar, f"__r{_name}__", _lift(lambda a, b, f=_f: f(b, a)))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "and_", "or_", "invert"):
    _f = operator.not_ if _name == "invert" else getattr(operator, _name)
    setattr(Scalar, f"__{_name.rstrip('_')}__", _lift(_f))


def _quiet(f: Callable[[float], float], at_error: Callable[[float], float]) -> Callable[..., Any]:
    """As arrays do it: infinity or NaN where `math` raises."""

    def function(x: float) -> float:
        try:
            return f(x)
        except (OverflowError, ValueError):
            return at_error(x)

    return function


def _log_edge(x: float) -> float:
    return -math.inf if x == 0 else math.nan


class ScalarNamespace:
    """The elementwise functions of the Array API on Scalars."""

    exp = staticmethod(_lift(_quiet(math.exp, lambda x: math.inf)))
    expm1 = staticmethod(_lift(_quiet(math.expm1, lambda x: math.inf)))
    log = staticmethod(_lift(_quiet(math.log, _log_edge)))
    log1p = staticmethod(_lift(_quiet(math.log1p, lambda x: -math.inf if x == -1 else math.nan)))
    sqrt = staticmethod(_lift(_quiet(math.sqrt, lambda x: math.nan)))
    tanh = staticmethod(_lift(math.tanh))
    abs = staticmethod(_lift(abs))
    add = staticmethod(_lift(operator.add))
    subtract = staticmethod(_lift(operator.sub))
    multiply = staticmethod(_lift(operator.mul))
    divide = staticmethod(_lift(_divide))
    negative = staticmethod(_lift(operator.neg))
    pow = staticmethod(_lift(_power))
    maximum = staticmethod(_lift(lambda a, b: b if b > a or b != b else a))
    minimum = staticmethod(_lift(lambda a, b: b if b < a or b != b else a))
    sign = staticmethod(_lift(lambda x: (x > 0) - (x < 0) if x == x else x))
    where = staticmethod(_lift(lambda condition, a, b: a if condition else b))
    isnan = staticmethod(_lift(math.isnan))
    zeros_like = staticmethod(_lift(lambda x: type(x)(0)))
    ones_like = staticmethod(_lift(lambda x: type(x)(1)))

    @staticmethod
    def astype(x: Any, dtype: type) -> Scalar:
        return Scalar(dtype(_value(x)))

    @staticmethod
    def sum(x: Any, *, axis: Any = None, keepdims: bool = False) -> Scalar:
        return Scalar(_value(x))

    mean = max = min = sum

    @staticmethod
    def reshape(x: Any, shape: tuple[int, ...]) -> Scalar:
        return Scalar(_value(x))

    @staticmethod
    def broadcast_to(x: Any, shape: tuple[int, ...]) -> Scalar:
        return Scalar(_value(x))

    def __getattr__(self, name: str) -> Any:
        raise DtypeError(
            f"{name} has no meaning for Python numbers; make arrays first: nnx.asarray([...])"
        )


class ScalarBackend(Backend):
    """Computes where all inputs are Python numbers. Not a plugin: nobody sets it."""

    name = "python"
    on_host = True
    xp = ScalarNamespace()

    def owns(self, array: object) -> bool:
        return type(array) in NUMBERS

    def call(self, kernel: Any, args: Any, attrs: Any) -> Any:
        boxed = [Scalar(a) if type(a) in NUMBERS else a for a in args]
        return kernel(self.xp, *boxed, **attrs)

    def result(self, y: Any) -> Any:
        return _value(y)

    def asarray(self, data: Any, dtype: str | None = None) -> Any:
        return data.item() if isinstance(data, (np.ndarray, np.generic)) else data

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def write(self, target: Any, value: Any) -> Any:
        return value

    def copy(self, array: Any) -> Any:
        return array

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return 0

    def dtype_name(self, array: Any) -> str:
        return type(array).__name__


SCALARS = ScalarBackend()
