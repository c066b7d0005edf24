"""A stand-in for cupy on NumPy, for what can be tested without a GPU: Python's side of the backend.

It is strict where CuPy would go wrong quietly: a function given an array of a device that is not
the current one raises, fresh memory is poisoned. CUDA kernels run on the CPU (tests/cuda). It knows
nothing of memory pools' sizes or CUDA errors other than those it is told to raise.
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from raw_module import RawModule, poisoned


class CUDARuntimeError(RuntimeError):
    """As cupy's."""


class CUDADriverError(RuntimeError):
    """As cupy's."""


class FakeCupy(ModuleType):
    """The module `cupy`.   devices: how many there are; broken: what computing raises"""

    __version__ = "14.2.0"

    def __init__(self, devices: int = 2, broken: Exception | None = None) -> None:
        super().__init__("cupy")
        self.current, self.broken, self.entered = 0, broken, 0
        self.freed: list[int] = []
        self.synchronized: list[int] = []
        self.streams: list[tuple[int, int]] = []  # of which thread, entered in which
        self.launched: list[str] = []  # kernels, by name
        self.RawModule = functools.partial(RawModule, self)
        fake = self

        def count() -> int:
            if devices == 0:
                raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is ...")
            return devices

        class Device:
            def __init__(self, id: int) -> None:
                self.id = id

            def __enter__(self) -> None:
                fake.entered += 1
                self.before, fake.current = fake.current, self.id

            def __exit__(self, *_: object) -> None:
                fake.current = self.before

            def synchronize(self) -> None:
                fake.synchronized.append(self.id)

        class Stream:
            """The stream that was current in one thread, entered perhaps in another."""

            def __init__(self) -> None:
                self.thread, self.device = threading.get_ident(), fake.current

            def __enter__(self) -> None:
                assert self.device == fake.current, "a stream of another device"
                fake.streams.append((self.thread, threading.get_ident()))

            def __exit__(self, *_: object) -> None:
                pass

        self.cuda = SimpleNamespace(
            Device=Device,
            get_current_stream=Stream,
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                getDeviceCount=count,
                getDevice=lambda: fake.current,
                runtimeGetVersion=lambda: 12090,
                driverGetVersion=lambda: 13000,
                getDeviceProperties=lambda i: {"name": b"Fake %d" % i, "totalGlobalMem": 80 << 30},
            ),
        )
        self.ndarray = _array_class(self)

    def __getattr__(self, name: str) -> Any:
        """A function of NumPy's on this module's arrays; a dtype or constant as it is."""
        found = getattr(np, name)
        return self.lift(found) if callable(found) and not isinstance(found, type) else found

    def lift(self, f: Any) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            if self.broken is not None:
                raise self.broken
            return self.wrap(f(*self.bare(args), **{k: self.bare(v) for k, v in kwargs.items()}))

        return function

    def bare(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.bare, value))
        if not isinstance(value, self.ndarray):
            return value
        assert value.device.id == self.current, "an array of a device that is not the current one"
        return value.host

    def wrap(self, value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return self.ndarray(np.asarray(value), self.current)
        return tuple(map(self.wrap, value)) if isinstance(value, (tuple, list)) else value

    def asarray(self, a: Any, dtype: Any = None, *, copy: bool | None = None) -> Any:
        same = isinstance(a, self.ndarray) and dtype in (None, a.dtype) and not copy
        return a if same else self.wrap(np.array(self.bare(a), dtype=dtype))

    def empty(self, shape: Any, dtype: Any = float) -> Any:
        return self.wrap(poisoned(shape, dtype))

    def from_dlpack(self, array: Any) -> Any:
        kind, device = array.__dlpack_device__()
        assert kind == 2, "CPU arrays cannot be directly imported to CuPy"
        return self.ndarray(array.host, device)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_all_blocks=lambda: self.freed.append(self.current))

    get_default_pinned_memory_pool = get_default_memory_pool


def _array_class(fake: FakeCupy) -> type[Any]:
    class ndarray:  # noqa: N801 - cupy's name
        __array_ufunc__ = None

        def __init__(self, host: np.ndarray[Any, Any], device: int) -> None:
            self.host, self.device = host, SimpleNamespace(id=device)
            self.shape, self.ndim, self.dtype = host.shape, host.ndim, host.dtype
            self.size, self.flags, self.strides = host.size, host.flags, host.strides
            self.base, self.itemsize = host.base, host.itemsize

        def get(self) -> np.ndarray[Any, Any]:
            return np.array(self.host)

        def copy(self) -> ndarray:
            return ndarray(np.array(self.host), fake.current)  # to the current device, as CuPy's

        def reshape(self, *shape: Any) -> ndarray:
            return ndarray(self.host.reshape(*shape), self.device.id)

        def __array__(self, *_: object, **__: object) -> Any:
            raise TypeError("Implicit conversion to a NumPy array is not allowed.")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, self.device.id

        def __getitem__(self, index: Any) -> Any:
            return fake.lift(operator.getitem)(self, index)

        def __setitem__(self, index: Any, value: Any) -> None:
            fake.bare(self)[fake.bare(index)] = fake.bare(value)

    for name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
        f = getattr(operator, name)
        setattr(ndarray, f"__{name}__", fake.lift(f))
        setattr(ndarray, f"__r{name}__", fake.lift(lambda a, b, f=f: f(b, a)))
    for name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "invert", "and_", "or_", "abs"):
        setattr(ndarray, f"__{name.rstrip('_')}__", fake.lift(getattr(operator, name)))
    return ndarray


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeCupy) -> FakeCupy:
    """Make `import cupy` and `import cupyx` give the stand-in."""
    cupyx, scipy, special = map(ModuleType, ("cupyx", "cupyx.scipy", "cupyx.scipy.special"))

    def scatter_add(a: Any, slices: Any, value: Any) -> None:
        np.add.at(fake.bare(a), fake.bare(slices), fake.bare(value))

    def erf(x: Any) -> Any:
        import math

        return np.vectorize(math.erf, otypes=[x.dtype])(x)

    cupyx.scatter_add, cupyx.scipy = scatter_add, scipy  # type: ignore[attr-defined]
    scipy.special, special.erf = special, fake.lift(erf)  # type: ignore[attr-defined]
    for module in (fake, cupyx, scipy, special):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake
