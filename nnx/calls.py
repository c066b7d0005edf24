"""Kernels whose work is calls into given arrays, so that a replay can make the calls again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .backend import Array
from .signature import Kernel

Run = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
Empty = Callable[..., Array]  # of a shape and a dtype


class Scope(NamedTuple):
    """Calls between `begin()` and `end(what it gave)`, which is called in any case."""

    runs: list[Run]
    begin: Callable[[], Any] | None = None
    end: Callable[[Any], Any] | None = None


class Now:
    """What a kernel of `calls` is given to call through: it calls at once."""

    __slots__ = ("empty", "new", "xp")
    __call__: Any = staticmethod(operator.call)

    def __init__(self, xp: Any) -> None:
        self.new = self.empty = xp.empty
        self.xp = xp

    def laid(self, shape: tuple[int, ...], dtype: Any, order: tuple[int, ...]) -> Array:
        made = self.empty(tuple([shape[i] for i in order]), dtype)
        return self.xp.permute_dims(made, tuple([order.index(i) for i in range(len(order))]))


class Later:
    """What it is given when a replay is made: it notes the calls.

    new, laid   give the arrays that hold the results
    empty       gives scratch
    """

    __slots__ = ("empty", "laid", "new", "runs")

    def __init__(self, results: Iterable[Array], empty: Empty) -> None:
        left = iter(results)
        self.new: Empty = lambda shape, dtype: next(left)
        self.laid: Empty = lambda shape, dtype, order: next(left)
        self.empty, self.runs = empty, list[Run]()

    def __call__(self, f: Callable[..., Any], *args: Any, **attrs: Any) -> None:
        self.runs.append((f, args, attrs))


class _Into(Later):
    """Calls through another one, into arrays that are there."""

    __slots__ = ("run",)

    def __init__(self, results: Iterable[Array], run: Any) -> None:
        super().__init__(results, run.empty)
        self.run = run

    def __call__(self, f: Callable[..., Any], *args: Any, **attrs: Any) -> None:
        self.run(f, *args, **attrs)


class Calls:
    """A kernel whose work is calls into given arrays, which `nnx.capture` can thus repeat.

        @overrides.forward(nnx.ops.silu)
        @calls
        def silu(run, x):
            y = run.new(x.shape, x.dtype)
            run(my.silu_into, x, y)
            return y

    `run(f, *args, **attrs)` calls f, or notes the call for a replay; all that the kernel does to
    values it does so, with the arrays among the arguments. `run.new(shape, dtype)` makes the arrays
    of the result, in the order in which they are returned, `run.laid(shape, dtype, order)` one
    whose memory has the axes in that order; `run.empty(shape, dtype)` makes scratch. A kernel that
    returns None before it has called anything does not take the arrays: the kernel that it replaces
    runs.

    inplace     the arguments in whose memory the first result may lie, if of one layout with it
    otherwise   the kernel that runs instead; by default the one that this replaces
    """

    def __init__(
        self, f: Callable[..., Any], inplace: tuple[str, ...], otherwise: Kernel | None
    ) -> None:
        self.f, self.inplace, self.otherwise = f, inplace, otherwise
        self.__name__, self.__doc__ = f.__name__.strip("_"), f.__doc__
        self.__qualname__ = f.__qualname__
        self.__code__ = f.__code__
        self.names = f.__code__.co_varnames[1 : f.__code__.co_argcount]
        self._now: dict[Any, Now] = {}

    def __call__(self, xp: Any, *args: Any, **attrs: Any) -> Any:
        now = self._now.get(xp)
        if now is None:
            now = self._now[xp] = Now(xp)
        made = self.f(now, *args, **attrs)
        if made is None:
            assert self.otherwise is not None
            return self.otherwise(xp, *args, **attrs)
        return made

    def into(self, results: Iterable[Array], run: Any, *args: Any, **attrs: Any) -> bool:
        """Call through `run` what writes these arrays; False if the kernel does not take these."""
        return self.f(_Into(results, run), *args, **attrs) is not None

    def again(
        self, results: Iterable[Array], empty: Empty, args: Any, attrs: Mapping[str, Any]
    ) -> list[Run] | None:
        """The calls that write these results anew, from what then lies in the arguments."""
        later = Later(results, empty)
        return None if self.f(later, *args, **attrs) is None else later.runs

    def lends(self, args: Sequence[Any]) -> list[Array]:
        return [a for name, a in zip(self.names, args, strict=False) if name in self.inplace]


def calls(f: Any = None, *, inplace: tuple[str, ...] = (), otherwise: Kernel | None = None) -> Any:
    """Make a kernel of a function that calls through `run`; see `Calls`."""
    if f is None:
        return lambda g: Calls(g, inplace, otherwise)
    return Calls(f, inplace, otherwise)
