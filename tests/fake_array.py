"""`cupy.ndarray` of the stand-in for cupy, and what a graph keeps of a call on such arrays."""

from __future__ import annotations

import operator
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fake_memory
import numpy as np
from fake_memory import Ref

if TYPE_CHECKING:
    from fake_cupy import FakeCupy


def array_class(fake: FakeCupy) -> type[Any]:
    on = fake.on

    class ndarray:  # noqa: N801 - cupy's name
        __array_ufunc__ = None

        def __init__(
            self, host: np.ndarray[Any, Any], device: int, unwritten: bool = False
        ) -> None:
            memory: Any = host
            while memory is not None and not hasattr(memory, "lease"):
                memory = getattr(memory, "base", None)
            self.fresh, self.base = memory is None, None
            if memory is None:
                memory = fake_memory.held(on.allocate(host.nbytes))
                memory.owner = weakref.ref(self)
                order = "F" if host.flags.fnc else "C"
                made: Any = np.ndarray(host.shape, host.dtype, memory, order=order)
                if not unwritten:
                    made[...] = host
                host = made
            else:
                self.base = memory.owner()
            self.host, self.device = host, SimpleNamespace(id=device)
            self.shape, self.ndim, self.dtype = host.shape, host.ndim, host.dtype
            self.size, self.nbytes, self.itemsize = host.size, host.nbytes, host.itemsize
            self.strides, self.flags = host.strides, host.flags
            # CuPy allocates nothing for an array of no entries.
            nowhere = not host.size if self.base is None else self.base.data.ptr == 0
            address = 0 if nowhere else host.ctypes.data
            self.data = SimpleNamespace(ptr=address, device_id=device)

        @property
        def ref(self) -> Ref:
            return Ref(self.data.ptr, self.shape, self.strides, self.dtype)

        @property
        def T(self) -> Any:
            return fake.compute(np.transpose, (self,), {})

        def get(self) -> np.ndarray[Any, Any]:
            on.refuse_transfer("D2H")
            on.stream().drain()
            return np.array(self.host)

        def item(self) -> Any:
            return self.get().item()

        __float__ = __int__ = __bool__ = __index__ = lambda self: self.item()

        def set(self, arr: np.ndarray[Any, Any]) -> None:
            on.refuse_transfer("H2D")
            if arr.dtype != self.dtype:
                raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
            if arr.shape != self.shape:
                raise ValueError("Shape mismatch")
            if not self.flags.forc:
                raise RuntimeError("Cannot set to non-contiguous array")
            on.stream().drain()
            self.host[...] = arr

        def copy(self) -> ndarray:  # to the current device, as CuPy's
            if on.capturing():
                return fake.compute(np.array, (self,), {})  # type: ignore[no-any-return]
            made = ndarray(np.empty_like(self.host), fake.current)
            on.stream().enqueue(lambda: np.copyto(made.host, self.host))
            return made

        def __array__(self, *_: object, **__: object) -> Any:
            raise TypeError("Implicit conversion to a NumPy array is not allowed.")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, self.device.id

        def __getitem__(self, index: Any) -> Any:
            return fake.compute(operator.getitem, (self, fake.index(index)), {})

        def __setitem__(self, index: Any, value: Any) -> None:
            if isinstance(value, np.ndarray):
                on.refuse_transfer("H2D")
                if value.shape:
                    raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
                value = value[()]
            fake.compute(operator.setitem, (self, fake.index(index), value), {})

        def __len__(self) -> int:
            return int(self.shape[0])

    for name in ("reshape", "transpose", "view", "ravel", "fill", "astype"):
        f = getattr(np.ndarray, name)
        method = lambda self, *args, f=f, **kwargs: fake.compute(f, (self, *args), kwargs)  # noqa: E731
        setattr(ndarray, name, method)
    for name in ("add", "sub", "mul", "truediv", "pow", "matmul", "mod", "floordiv"):
        f = getattr(operator, name)
        setattr(ndarray, f"__{name}__", fake.lift(f))
        setattr(ndarray, f"__r{name}__", fake.lift(lambda a, b, f=f: f(b, a)))
    for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "invert", "and_", "or_", "abs"):
        setattr(ndarray, f"__{name.rstrip('_')}__", fake.lift(getattr(operator, name)))
    return ndarray


class Node:
    """A kernel of a graph: what it calls, and where its arrays lie."""

    def __init__(self, fake: FakeCupy, f: Any, args: Any, kwargs: Any) -> None:
        self._fake, self._f = fake, f
        self._args, self._kwargs = self._refs(args), self._refs(kwargs)

    def _refs(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: self._refs(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)) and not isinstance(value, Ref):
            return type(value)(map(self._refs, value))
        return value.ref if isinstance(value, self._fake.ndarray) else value

    def _found(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self._fake.on.memory.view(value)
        if isinstance(value, dict):
            return {k: self._found(v) for k, v in value.items()}
        return type(value)(map(self._found, value)) if type(value) in (tuple, list) else value

    def run(self) -> Any:
        with np.errstate(all="ignore"):
            return self._f(*self._found(self._args), **self._found(self._kwargs))

    def into(self, results: list[Ref]) -> None:
        made = self.run()
        for ref, value in zip(results, made if type(made) is tuple else [made], strict=True):
            self._fake.on.memory.view(ref)[...] = value
