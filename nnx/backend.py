"""Which array library computes: the Backend contract, the registry of plugins, the current one.

Creation follows the current backend; computation follows the arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .errors import BackendError, DtypeError, MixedBackendsError, StateError
from .traffic import TO_DEVICE, crossed

if TYPE_CHECKING:
    from .plugins import BackendInfo

API_VERSION = 1
_NO_TESTS: Mapping[Any, Any] = MappingProxyType({})
Array = Any  # an array of any backend
NUMBERS = frozenset((int, float, bool))


class Numbers(Protocol):
    """Numbers that change from step to step, and what they were computed from."""

    def advance(self) -> list[tuple[float, ...]]:
        """Count a step and give its numbers: called once in each step, eager or replayed."""
        ...


class Backend:
    """An array library as nnx uses it. A plugin subclasses this; see backends/README.md.

    name      what `set_backend` takes
    xp        a namespace with the functions of the Array API standard (2024.12)
    kernels   overrides of ops: {op: kernels}, made with `nnx.override.Overrides`
    parent    name of the backend whose arrays and kernels this one shares, or None
    on_host   True where reading a value costs no device synchronisation
    recording True for what stands in for a backend while `nnx.capture` records
    """

    api_version: int = API_VERSION
    name: str = ""
    parent: str | None = None
    on_host: bool = False
    recording: bool = False
    xp: Any = None
    kernels: Mapping[Any, Any] = MappingProxyType({})

    def __init__(self, device: str | None = None) -> None:
        if device is not None:
            raise BackendError(
                f"the backend {self.name!r} has no device {device!r}; "
                f"call nnx.set_backend({self.name!r})"
            )

    def owns(self, array: object) -> bool:
        """Whether `array` is one of this backend's arrays, on its device."""
        raise NotImplementedError

    def sibling(self, array: object) -> str | None:
        """The name of this package's backend for the device `array` is on, if that is another."""
        return None

    def asarray(self, data: Any, dtype: str | None = None) -> Array:
        """An array of this backend from its own, a NumPy or a DLPack array, or nested lists.

        Shares memory where it can. `dtype` is a name: "float32", "int64", ...
        """
        raise NotImplementedError

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """The values as a NumPy array (on the host; may share memory)."""
        raise NotImplementedError

    def write(self, target: Array, value: Array) -> Array:
        """Write `value` into `target` and return the array that now holds it.

        A library whose arrays cannot change returns a new one; callers keep what is returned.
        """
        target[...] = value
        return target

    def put(self, target: Array, values: np.ndarray[Any, Any]) -> Array:
        """As `write`, of values on the host, cast to the target's dtype.

        Where a device allows it, it takes none of its memory: what it undoes, it undoes when there
        is none left.
        """
        return self.write(target, self.asarray(values, self.dtype_name(target)))

    def copy(self, array: Array) -> Array:
        """A copy in memory of its own."""
        return self.xp.asarray(array, copy=True)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.xp.zeros(shape, dtype=dtype)

    def buffer(self, size: int, dtype: Any) -> Array | None:
        """Zeros whose slices, reshaped, are views of them; None if the library has no such views.

        Optimizers lay parameters and gradients out in such buffers (`nnx.flat`).
        """
        return None

    def part(self, buffer: Array, start: int, stop: int, shape: tuple[int, ...]) -> Array:
        """Entries start..stop of such a buffer in that shape, as a view.

        Where views keep the array alive that they were taken of, views of this one should keep it:
        a gradient is not overwritten while somebody holds it, or a view of it.
        """
        return self.xp.reshape(buffer[start:stop], shape)

    def result(self, y: Array) -> Array:
        """A kernel's result as an array: libraries that return scalars for 0-d wrap them here."""
        return y

    def call(self, kernel: Any, args: Any, attrs: Mapping[str, Any]) -> Any:
        """Run a kernel on this backend's arrays."""
        return kernel(self.xp, *args, **attrs)

    def test(self, f: Callable[..., None], array: Array, *others: Any) -> None:
        """Call `f(values, *others)`, which raises if an array's values will not do."""
        quick = getattr(self.kernels, "tests", _NO_TESTS).get(f)
        if quick is None or not quick(array, *others):
            f(self.to_numpy(array), *others)

    def dtype_name(self, array: Array) -> str:
        """The array's dtype as the standard spells it: "float32", "int64", "bool"."""
        return str(array.dtype).rpartition(".")[2]

    def uniform(self, shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
        """Random numbers in [0, 1), drawn on the host so that every backend has the same ones."""
        drawn = rng.random(shape, dtype=np.float32)
        if not self.on_host:
            crossed(TO_DEVICE, drawn.nbytes)
        return self.xp.astype(self.asarray(drawn), dtype)

    def numbers(self, source: Numbers, like: Sequence[Array]) -> Sequence[tuple[Any, ...]]:
        """The numbers of a step, one tuple for each array of `like`; a replay computes them anew.

        A recording gives 0-d arrays of the dtypes of `like` in place of Python floats.
        """
        return source.advance()

    def literal(self, array: Array) -> Array:
        """Told of an array made of numbers that stand in the program."""
        return array

    @property
    def lasting(self) -> Backend:
        """The backend to make arrays with that outlive a recorded call: optimizer state."""
        return self

    def replay(self) -> Any:
        """How `nnx.capture` runs recorded calls again (see `nnx_numpy.replay`); None: it cannot."""
        return None if self.parent is None else load_backend(self.parent).replay()

    def set_matmul_precision(self, name: str) -> None:
        """Told of `nnx.set_matmul_precision`; a backend may always compute more exactly.

        One that is made later asks for it itself (`nnx.get_matmul_precision`).
        """

    def in_order(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """`f`, to be called in another thread, its device work in one order with this thread's.

        A device that runs work of several queues at once needs it: memory that one thread gives
        back while its work on it waits may be the next that another is given.
        """
        return f

    def on_device(self) -> AbstractContextManager[Any]:
        """A block in which its device is the array library's current one, in this thread.

        For arithmetic on bare arrays. nnx's ops go where their arrays are, in a block or not.
        """
        return nullcontext()

    def use_device(self) -> None:
        """The same from here on: what `set_backend` does."""

    def synchronize(self) -> None:
        """Wait until the device has finished."""

    def free_memory(self) -> None:
        """Give cached device memory back."""

    def describe(self) -> dict[str, str]:
        """What a bug report needs: versions, device."""
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        """There is one of each: a copied model or optimizer computes on the same."""
        return self

    def __reduce__(self) -> Any:
        return load_backend, (self.name,)

    def __repr__(self) -> str:
        return f"<nnx backend {self.name!r}>"


_loaded: dict[str, Backend] = {}
_lock = threading.RLock()
_default: Backend | None = None
_scoped: ContextVar[Backend | None] = ContextVar("nnx_backend", default=None)


def load_backend(name: str) -> Backend:
    """The backend of that name, imported and made on first use; `"cupy:1"` names a device."""
    backend = _loaded.get(name)
    if backend is not None:
        return backend
    if not isinstance(name, str):
        raise BackendError(f"a backend is known by its name, such as 'numpy'; given {name!r}")
    from . import plugins

    with _lock:
        if name not in _loaded:
            made = plugins.make(*name.partition(":")[::2])
            if made.parent is not None:
                load_backend(made.parent)
            _loaded[name] = _loaded.setdefault(made.name, made)
        return _loaded[name]


def loaded_backends() -> tuple[Backend, ...]:
    return tuple(dict.fromkeys(_loaded.values()))


def set_backend(name: str) -> Backend:
    """Make `name` the backend of the whole process: new threads and notebook cells see it.

    In this thread its device is CuPy's current one too, for your own arithmetic on arrays.

    Raises UnknownBackendError, BackendPackageError or DeviceError (the previous backend stays),
    and StateError inside `with use_backend(...)`.
    """
    global _default
    scoped = _scoped.get()
    if scoped is not None:
        raise StateError(
            f"set_backend({name!r}) inside `with use_backend({scoped.name!r})`: it would change "
            f"other threads and not this block; leave the block first, or use "
            f"`with nnx.use_backend({name!r})`"
        )
    backend = load_backend(name)
    backend.use_device()
    with _lock:
        _default = backend
    return backend


def get_backend() -> Backend:
    """The current backend: of the innermost `use_backend` block, else of the process."""
    scoped = _scoped.get()
    if scoped is not None:
        return scoped
    return _default or _first_default()


def _first_default() -> Backend:
    global _default
    numpy = load_backend("numpy")
    with _lock:  # another thread may be in the middle of set_backend
        _default = _default or numpy
        return _default


@contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """`with use_backend("cupy"):` this block's backend, in this thread (or task) only."""
    backend = stand_in(load_backend(name))
    token = _scoped.set(backend)
    try:
        with backend.on_device():
            yield backend
    finally:
        _scoped.reset(token)


def backends() -> dict[str, BackendInfo]:
    """All installed backends by name, each with `.available` and, if not, its `.reason`."""
    from . import plugins

    return {name: plugins.info(name) for name in plugins.names()}


def backend_of(array: object) -> Backend:
    """The backend that computes on `array`: the current one if it owns it, else its owner's root.

    Raises DtypeError if no backend knows such arrays.
    """
    current = get_backend()
    if current.owns(array):
        return current
    return owner(array) or _owner_among_plugins(array)


def owner(array: object) -> Backend | None:
    for backend in tuple(_loaded.values()):
        if backend.owns(array):
            while backend.parent is not None:
                backend = load_backend(backend.parent)
            return backend
        sibling = backend.sibling(array)
        if sibling is not None:
            return load_backend(sibling)
    return None


def _owner_among_plugins(array: object) -> Backend:
    """Arrays can come from a library whose backend nobody has named yet."""
    from . import plugins

    if not isinstance(array, (list, tuple, str, dict, np.generic, int, float, type(None))):
        for name in plugins.names():
            try:
                load_backend(name)
            except BackendError:
                continue
        found = owner(array)
        if found is not None:
            return found
    kind = f"{type(array).__module__}.{type(array).__qualname__}"
    raise DtypeError(
        f"no installed backend computes on {kind}; convert it with nnx.asarray(...) "
        f"(nnx.backends() lists what is installed)"
    )


def mixed_backends(what: str, backend: Backend, other: object, argument: str) -> Exception:
    """The error for `argument`, which `backend` does not own."""
    try:
        given = backend_of(other)
    except DtypeError as error:
        return DtypeError(f"{what}: argument {argument!r}: {error}")
    return MixedBackendsError(
        f"{what}: argument {argument!r} is an array of backend {given.name!r}, the others are of "
        f"{backend.name!r}. Nothing moves silently: bring all to one of the two, arrays with "
        f"nnx.asarray(array, backend=NAME), a model with model.to(NAME)"
    )


def recording() -> Any:
    """The stand-in for the current backend while `nnx.capture` records in this thread, or None."""
    scoped = _scoped.get()
    return scoped if scoped is not None and scoped.recording else None


def stand_in(backend: Backend) -> Backend:
    """What records for `backend` while `nnx.capture` does, else itself."""
    recorder = recording()
    return backend if recorder is None else recorder.instead_of(backend)


def override_for(backend: Backend, target: Any) -> Any:
    """What the backend, or else its parent, replaces the target's kernels by; None if nothing."""
    found = backend.kernels.get(target)
    if found is None and backend.parent is not None:
        return override_for(load_backend(backend.parent), target)
    return found
