"""Parameters side by side in one buffer, their gradients in another: one update serves them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .backend import Array, Backend, backend_of, recording
from .buffer import Buffer
from .tensor import Parameter, shared


class Flat:
    """Buffers that parameters of one backend and dtype, and their gradients, are views of.

    data, grads   1-D, of one size
    starts        where each parameter begins, and at last the size
    """

    __slots__ = ("__weakref__", "_pieces", "backend", "data", "grads", "starts")

    def __init__(self, backend: Backend, data: Array, grads: Array, starts: list[int]) -> None:
        self.backend, self.data, self.grads, self.starts = backend, data, grads, starts
        self._pieces: dict[tuple[int, int], tuple[Array, Array]] = {}

    def pieces(self, first: int, last: int) -> tuple[Array, Array]:
        """The data and the gradients of parameters first..last, each as one 1-D array."""
        found = self._pieces.get((first, last))
        if found is None:
            found = self.cut(self.data, first, last), self.cut(self.grads, first, last)
            self._pieces[first, last] = found
        return found

    def cut(self, buffer: Array, first: int, last: int) -> Array:
        """What belongs to parameters first..last of a buffer of this one's size."""
        return buffer[self.starts[first] : self.starts[last + 1]]

    def view(self, buffer: Array, place: int, shape: tuple[int, ...]) -> Array:
        """What belongs to one parameter, in its shape."""
        return self.backend.part(buffer, self.starts[place], self.starts[place + 1], shape)


def pack(parameters: Iterable[Parameter]) -> None:
    """Lay parameters side by side, those of a backend and dtype together; values stay.

    A parameter is left where it is if it lies in such a buffer already, if somebody else holds its
    array (`nnx.Affine(W, b)` shares the caller's W: an update must reach it), or if its library's
    arrays cannot be views of a buffer. Nothing moves while `nnx.capture` records.
    """
    kinds: dict[Any, list[Parameter]] = {}
    for p in parameters if recording() is None else ():
        if p.flat is None and _alone(p):
            kinds.setdefault((backend_of(p.data), p.dtype), []).append(p)
    for (backend, dtype), found in kinds.items():
        if len(found) > 1:
            _pack(backend, dtype, found)


ALIGNED = 16  # elements: 64 bytes of float32


def _pack(backend: Backend, dtype: Any, found: list[Parameter]) -> None:
    """Those whose size keeps the next one aligned go first, so no gaps are needed."""
    found = sorted(found, key=lambda p: p.size % ALIGNED > 0)
    starts = [0]
    for p in found:
        starts.append(starts[-1] + p.size)
    data, grads = (backend.buffer(starts[-1], dtype) for _ in range(2))
    if data is None:
        return
    flat = Flat(backend, data, grads, starts)
    for place, p in enumerate(found):
        view = flat.view(data, place, p.shape)
        backend.write(view, p.data)
        p.settle(view, flat, place)


def _alone(p: Parameter) -> bool:
    """Whether the Parameter alone holds its array, and the array all its memory."""
    return not shared(p, "_data") and getattr(p.data, "base", p) is None


def returning(x: Parameter | Buffer) -> Callable[[], None]:
    """A function that lets it lie where it lies now, with the gradient that it has.

    Who moves it meanwhile writes no values: it only takes other arrays.
    """
    names = (
        "_data",
        "_version",
        "grad",
        *(Parameter.__slots__ if isinstance(x, Parameter) else ()),
    )
    held = [(name, getattr(x, name)) for name in names if hasattr(x, name)]

    def put_back() -> None:
        for name, value in held:
            setattr(x, name, value)

    return put_back


def neighbours(parameters: Iterable[Parameter]) -> Iterator[list[Parameter]]:
    """The parameters in lists that one array covers: neighbours in a buffer whose gradients lie
    in it too, in the buffer's order; each of the others by itself.
    """
    lists: dict[Flat, list[Parameter]] = {}
    for p in parameters:
        if p.flat is None or p.grad is not p.slot:
            yield [p]
        else:
            lists.setdefault(p.flat, []).append(p)
    for found in lists.values():
        found.sort(key=lambda p: p.place)
        start = 0
        for i in range(1, len(found) + 1):
            if i == len(found) or found[i].place != found[i - 1].place + 1:
                yield found[start:i]
                start = i


def gradient(near: list[Parameter]) -> Array:
    """The gradients of what `neighbours` gave, as one array."""
    first, flat = near[0], near[0].flat
    if flat is None or first.grad is not first.slot:
        return first.grad
    return flat.pieces(first.place, near[-1].place)[1]
