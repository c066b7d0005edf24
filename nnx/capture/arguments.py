"""A captured function's arguments: whether a plan is for them, and how a replay gets them."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend import Array, Backend, get_backend
from ..precision import get_matmul_precision
from ..tape import is_recording
from ..tensor import Tensor
from ..traffic import TO_DEVICE, crossed
from .tree import ARRAY, TENSOR


class Arguments(NamedTuple):
    """A call's arrays, and what tells its plans from others."""

    arrays: list[Any]
    form: Any
    base: Backend
    key: Any


def moved(memory: Any, arrays: list[Array]) -> tuple[int, int]:
    """How many of the arguments go to a device, and how many bytes they are."""
    sizes = [a.nbytes for a in arrays if memory.takes(a)]
    return len(sizes), sum(sizes)


def count_moved(count: int, nbytes: int) -> None:
    """Tell `nnx.transfers`."""
    if count:
        crossed(TO_DEVICE, nbytes, arrays=count)


class Expected:
    """What a plan's arguments are like, to be seen at first sight.

    That is a short cut for plain arrays and Tensors: what it does not see `nnx.capture` looks up.
    """

    def __init__(self, given: Arguments) -> None:
        forms, named = given.form
        self._backend, self._recording = get_backend(), is_recording()
        self._precision = get_matmul_precision()
        self._arrays: list[tuple[Any, ...]] | None = None
        simple = all(hasattr(a, "strides") for a in given.arrays)
        if simple and named is None and all(form in (ARRAY, TENSOR) for form in forms):
            self._arrays = [
                (form is TENSOR, type(a), a.shape, a.dtype, a.strides)
                for form, a in zip(forms, given.arrays, strict=True)
            ]

    def arrays(self, args: tuple[Any, ...]) -> list[Array] | None:
        """The arrays of these arguments, if they are as expected."""
        expected = self._arrays
        if expected is None or len(args) != len(expected):
            return None
        if get_backend() is not self._backend or is_recording() is not self._recording:
            return None
        if get_matmul_precision() is not self._precision:
            return None
        found = []
        for i, (is_tensor, kind, shape, dtype, strides) in enumerate(expected):
            a = args[i]
            if is_tensor:
                if type(a) is not Tensor or a.requires_grad:
                    return None
                a = a._data
            if type(a) is not kind or a.shape != shape or a.dtype is not dtype:
                return None
            if a.strides != strides:
                return None
            found.append(a)
        return found


class Inputs:
    """How a replay gets its arguments.

    buffers   what each argument is copied to; None for those that are read where they lie
    written   ids of the memory that the replay writes: an argument that lies there is copied
    """

    def __init__(
        self, memory: Any, buffers: list[Array | None], written: set[int], like: list[Array]
    ) -> None:
        self._memory, self._written = memory, written
        self._copied = [i for i, b in enumerate(buffers) if b is not None]
        self._read = [i for i, b in enumerate(buffers) if b is None]
        pairs = [(b, a) for b, a in zip(buffers, like, strict=True) if b is not None]
        self.nbytes = sum(buffer.nbytes for buffer, _ in pairs)
        self._feed, self._moved = memory.feed(pairs), moved(memory, like)

    def bring(self, arrays: list[Array]) -> list[Array]:
        """Copy what is to be copied; give what is to be read."""
        memory = self._memory
        count_moved(*self._moved)
        self._feed([arrays[i] for i in self._copied])
        given = []
        for i in self._read:
            array = arrays[i]
            if not memory.plain(array) or id(memory.root(array)) in self._written:
                array = memory.standin(array)[0]
            given.append(array)
        return given
