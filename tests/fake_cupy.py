"""A stand-in for cupy on NumPy, for what can be tested without a GPU: Python's side of the backend.

It is strict where CuPy would go wrong quietly: a function given an array of a device that is not
the current one raises. Memory, streams and graphs are those of `fake_device`, fresh memory is
poisoned; CUDA kernels run on the CPU (tests/cuda). All run at once, or are noted while the current
stream captures. What computing raises can be told (`broken`).
"""

from __future__ import annotations

import functools
import math
import operator
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_device
import fake_memory
import numpy as np
import pytest
from fake_array import Node, array_class
from fake_device import CUDARuntimeError
from fake_memory import OutOfMemoryError
from raw_module import RawModule

__all__ = ["CUDADriverError", "CUDARuntimeError", "FakeCupy", "OutOfMemoryError", "install"]


class CUDADriverError(RuntimeError):
    """As cupy's."""


class FakeCupy(ModuleType):
    """The module `cupy`.

    devices   how many there are
    broken    what computing raises
    limit     bytes of memory, of all devices together
    """

    __version__ = "14.2.0"

    def __init__(
        self, devices: int = 2, broken: Exception | None = None, limit: int = 1 << 30
    ) -> None:
        super().__init__("cupy")
        self.current, self.broken, self.entered, self.calls = 0, broken, 0, 0
        self.freed: list[int] = []
        self.synchronized: list[int] = []
        self.compute_types: dict[str, int] = {}
        self.on = fake_device.Device(lambda: self.current, limit)
        fake, on = self, self.on
        self.launched: list[str] = []  # kernels, by name
        self.loaded: list[tuple[str, int]] = []  # likewise, with the device
        self.RawModule = functools.partial(RawModule, self)

        def count() -> int:
            if devices == 0:
                raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is ...")
            return devices

        class Device:
            compute_capability = "90"

            def __init__(self, id: int) -> None:
                self.id = id

            def use(self) -> None:
                fake.current = self.id

            def __enter__(self) -> None:
                fake.entered += 1
                self.before, fake.current = fake.current, self.id

            def __exit__(self, *_: object) -> None:
                fake.current = self.before

            def synchronize(self) -> None:
                on.synchronize()
                fake.synchronized.append(self.id)

        self.cuda = SimpleNamespace(
            Device=Device,
            Stream=functools.partial(fake_device.Stream, on),
            Event=fake_device.Event,
            get_elapsed_time=lambda first, last: (last.seconds - first.seconds) * 1e3,
            MemoryPool=functools.partial(fake_memory.MemoryPool, on),
            using_allocator=on.using_allocator,
            alloc_pinned_memory=on.pinned,
            get_current_stream=on.stream,
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                getDeviceCount=count,
                getDevice=lambda: fake.current,
                runtimeGetVersion=lambda: 12090,
                driverGetVersion=lambda: 13000,
                getDeviceProperties=lambda i: {"name": b"Fake %d" % i, "totalGlobalMem": 80 << 30},
                memGetInfo=lambda: (on.memory.limit - on.memory.taken, on.memory.limit),
                memcpyAsync=on.memcpy_async,
                memcpyHostToDevice=1,
                memcpyDeviceToDevice=3,
            ),
        )
        self.ndarray = array_class(self)
        self.ufunc = Ufunc
        lifted = self.lift(np.lib.stride_tricks.as_strided)

        def as_strided(x: Any, shape: Any, strides: Any) -> Any:
            made = lifted(x, shape, strides)
            made.base = None  # CuPy's is a new array on the same memory, no view
            return made

        self.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided))
        self.matmul = self.lift(np.matmul)

    def __getattr__(self, name: str) -> Any:
        """A function of NumPy's on this module's arrays; a dtype or constant as it is."""
        found = getattr(np, name)
        if callable(found) and not isinstance(found, type):
            found = self.lift(found)
        setattr(self, name, found)
        return found

    def lift(self, f: Any) -> Any:
        if isinstance(f, np.ufunc) and not f.signature:
            return Ufunc(self, f)

        @functools.wraps(f)
        def function(*args: Any, **kwargs: Any) -> Any:
            return self.compute(f, args, kwargs)

        return function

    def compute(self, f: Any, args: Any, kwargs: Any) -> Any:
        """Call it on the arrays' memory; while the stream captures, note that."""
        with self.on.lock, np.errstate(all="ignore"):  # a GPU warns of nothing
            return self._compute(f, args, kwargs)

    def _compute(self, f: Any, args: Any, kwargs: Any) -> Any:
        if self.broken is not None:
            raise self.broken
        self.calls += 1
        on = self.on
        if f in (np.matmul, operator.matmul) and on.capturing() and args[0].dtype.kind == "f":
            raise NotImplementedError("calling cuBLAS API during stream capture is currently ...")
        if f in READERS:
            on.refuse_transfer("D2H")
        if f in (np.concatenate, np.concat, np.stack) and len(args[0]) > 8:
            on.refuse_transfer("H2D")  # of their addresses
        if f in VIEWS and args[0].device.id != self.current:  # which CuPy allows
            value = f(args[0].host, *args[1:], **kwargs)
            assert np.shares_memory(value, args[0].host), "a copy from another device"
            return self.ndarray(value, args[0].device.id)
        out = args[0] if f in WRITERS else kwargs.get("out")
        stream = on.stream()
        stream.drain()
        if on.capturing():
            node = Node(self, f, args, kwargs)
            if out is not None:
                stream.enqueue(node.run)
                return out
            made = self.wrap(f(*self.bare(args), **self.bare(kwargs)))
            parts = made if type(made) is tuple else (made,)
            if parts[0].fresh:  # else it is a view, for which nothing runs
                results = [a.ref for a in parts]
                stream.enqueue(lambda: node.into(results))
            return made
        value = f(*self.bare(args), **self.bare(kwargs))
        return out if out is not None else self.wrap(value)

    def copyto(self, dst: Any, src: Any, casting: str = "same_kind") -> None:
        """It waits in its stream, as `ndarray.copy` does."""
        with self.on.lock:
            if self.on.capturing() or not isinstance(src, self.ndarray):
                self.compute(np.copyto, (dst, src), {"casting": casting})
                return
            to, given = self.bare((dst, src))
            self.on.stream().enqueue(lambda: np.copyto(to, given, casting=casting))

    def launch(self, f: Any, *args: Any) -> None:
        """A kernel that writes to its arguments: `f` is given their memory, now or in a graph."""
        with self.on.lock:
            stream = self.on.stream()
            if self.on.capturing():
                stream.enqueue(Node(self, f, args, {}).run)
                return
            stream.drain()
            f(*self.bare(args))

    def empty(self, shape: Any, dtype: Any = float) -> Any:
        """What the memory held before."""
        return self.ndarray(np.empty(shape, dtype), self.current, unwritten=True)

    def empty_like(self, a: Any) -> Any:
        return self.empty(a.shape, a.dtype)

    def bare(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: self.bare(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.bare, value))
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if not isinstance(value, self.ndarray):
            return value
        assert value.device.id == self.current, "an array of a device that is not the current one"
        return value.host

    def index(self, value: Any) -> Any:
        """As CuPy: lists and arrays of NumPy's are sent to the device."""
        if isinstance(value, tuple):
            return tuple(map(self.index, value))
        return self.asarray(value) if isinstance(value, (list, np.ndarray)) else value

    def wrap(self, value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return self.ndarray(np.asarray(value), self.current)
        if isinstance(value, (tuple, list)):
            return tuple(map(self.wrap, value))
        return value

    def asarray(self, a: Any, dtype: Any = None, *, copy: bool | None = None) -> Any:
        same = isinstance(a, self.ndarray) and dtype in (None, a.dtype) and not copy
        if same:
            return a
        if isinstance(a, self.ndarray):
            return self.compute(lambda x: np.array(x, dtype=dtype), (a,), {})
        self.on.refuse_transfer("H2D")
        if self.broken is not None:
            raise self.broken
        self.on.stream().drain()
        return self.wrap(np.array(a if isinstance(a, np.ndarray) else self.bare(a), dtype=dtype))

    def from_dlpack(self, array: Any) -> Any:
        kind, device = array.__dlpack_device__()
        assert kind == 2, "CPU arrays cannot be directly imported to CuPy"
        return self.ndarray(array.host, device)

    def get_default_memory_pool(self) -> Any:
        def free() -> None:
            self.freed.append(self.current)
            self.on.pool.free_all_blocks()

        pool = self.on.pool
        return SimpleNamespace(
            free_all_blocks=free, used_bytes=pool.used_bytes, free_bytes=pool.free_bytes
        )

    def get_default_pinned_memory_pool(self) -> Any:
        return SimpleNamespace(free_all_blocks=lambda: self.freed.append(self.current))


class Ufunc:
    """`cupy.ufunc`: an elementwise function."""

    def __init__(self, fake: FakeCupy, f: np.ufunc) -> None:
        self._fake, self._f, self.nout, self.nin = fake, f, f.nout, f.nin
        self.__name__ = f"cupy_{f.__name__}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) > self.nin:
            args, kwargs["out"] = args[: self.nin], args[self.nin]
        return self._fake.compute(self._f, args, kwargs)

    def at(self, a: Any, slices: Any, value: Any) -> None:
        if value.dtype.name not in ADDED:
            raise TypeError(f"cupy.{self._f.__name__}.at only supports {', '.join(ADDED)}")
        self._fake.launch(self._f.at, a, self._fake.index(slices), value)


VIEWS = (operator.getitem, np.reshape, np.ndarray.view, np.ndarray.reshape, np.ndarray.transpose)
READERS = (np.nonzero, np.unique)  # CuPy reads sizes of their results on the host
ADDED = ("int32", "int64", "float16", "float32", "float64", "uint32", "uint64")
WRITERS = (np.copyto, operator.setitem, np.ndarray.fill)


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeCupy) -> FakeCupy:
    """Make `import cupy` and `import cupyx` give the stand-in."""
    cupyx, scipy, special = map(ModuleType, ("cupyx", "cupyx.scipy", "cupyx.scipy.special"))
    core, linalg = ModuleType("cupy._core"), ModuleType("cupy._core._routines_linalg")

    def erf(x: Any) -> Any:
        return np.vectorize(math.erf, otypes=[x.dtype])(x)

    def set_compute_type(dtype: Any, compute_type: int) -> None:
        fake.compute_types[np.dtype(dtype).name] = compute_type

    linalg.set_compute_type = set_compute_type  # type: ignore[attr-defined]
    linalg.COMPUTE_TYPE_DEFAULT, linalg.COMPUTE_TYPE_TF32 = 1, 7  # type: ignore[attr-defined]
    cupyx.scipy = scipy  # type: ignore[attr-defined]
    scipy.special, special.erf = special, fake.lift(erf)  # type: ignore[attr-defined]
    for module in (fake, core, linalg, cupyx, scipy, special):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake
