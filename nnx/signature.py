"""What a kernel's parameters say: arrays, attributes, and what a derivative reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Kernel = Callable[..., Any]


class Derivative(NamedTuple):
    """One derivative kernel: the arguments whose gradients it returns, and what it reads."""

    arguments: tuple[str, ...]
    positions: tuple[int, ...]
    kernel: Kernel
    reads: tuple[str, ...]


class Kernels:
    """What runs for an op on one backend; `portable` unless the backend replaced something.

    value   the forward kernel where no derivative will follow: it gives the result alone
    plans   what the tape keeps, by which arguments want a gradient: worked out once for each
    """

    __slots__ = ("derivatives", "forward", "plans", "portable", "value")

    def __init__(
        self, forward: Kernel, derivatives: tuple[Derivative, ...], portable: bool = False,
        value: Kernel | None = None,
    ) -> None:  # fmt: skip
        self.forward, self.derivatives, self.portable = forward, derivatives, portable
        self.value = forward if value is None else value
        self.plans: dict[tuple[bool, ...], Any] = {}


class Signature(NamedTuple):
    """A forward kernel's parameters.

    required    how many of the arrays have no default
    defaults    of the attributes
    variadic    whether the arrays are `*arrays`
    """

    arrays: tuple[str, ...]
    attributes: tuple[str, ...]
    defaults: dict[str, Any]
    required: int
    variadic: bool


def signature(forward: Kernel) -> Signature:
    """Read from the code object: `inspect.signature` on every op would double the import time."""
    code, count = forward.__code__, forward.__code__.co_argcount
    positional = code.co_varnames[:count]
    keyword = code.co_varnames[count : count + code.co_kwonlyargcount]
    split = code.co_posonlyargcount or count
    given = getattr(forward, "__defaults__", None) or ()
    defaults = dict(zip(reversed(positional), reversed(given), strict=False))
    defaults.update(getattr(forward, "__kwdefaults__", None) or {})
    arrays, attributes = positional[1:split], (*positional[split:], *keyword)
    variadic = bool(code.co_flags & 0x04)
    if variadic:
        arrays = (code.co_varnames[count + code.co_kwonlyargcount],)
    required = 0 if variadic else sum(a not in defaults for a in arrays)
    defaults = {k: v for k, v in defaults.items() if k in attributes}
    return Signature(arrays, attributes, defaults, required, variadic)
