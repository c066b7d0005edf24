"""The backend that stands in for another one while a function is recorded."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from ..backend import Array, Backend
from ..errors import CaptureError
from .recording import Recording
from .trace import Namespace


class Recorder(Backend):
    """Owns the base's arrays, so that it is the current backend through which all of nnx goes.

    There is one for each base: what nnx keeps by backend is not made anew for each recording.
    Where no recording runs in this thread it hands on to the base.
    """

    recording = True

    def __init__(self, base: Backend) -> None:
        self.base = base
        self.name, self.parent, self.on_host = base.name, base.parent, base.on_host
        self.kernels, self.xp = base.kernels, Namespace(self)
        self._current: ContextVar[Recording | None] = ContextVar(f"nnx_{id(self)}", default=None)
        self.active = self._current.get

    def owns(self, array: object) -> bool:
        return self.base.owns(array)

    def sibling(self, array: object) -> str | None:
        return self.base.sibling(array)

    def on_device(self) -> AbstractContextManager[Any]:
        return self.base.on_device()

    def asarray(self, data: Any, dtype: str | None = None) -> Array:
        log = self.active()
        if log is None or dtype is None or not self.owns(data):
            return self.base.asarray(data, dtype)
        if self.dtype_name(data) == dtype:
            return data
        return log.run(self.base.xp.astype, (data, getattr(self.base.xp, dtype)), {})

    def to_numpy(self, array: Array) -> Any:
        return self.base.to_numpy(array)

    def refuse_reading(self, array: Any) -> None:
        """A value read on the host would be used in Python, which a replay does not run."""
        log = self.active()
        if log is not None:
            shape = tuple(getattr(array, "shape", ()))
            raise CaptureError(
                f"{log.where()}: reads the values of an array of shape {shape} on the host "
                f"(float, int, bool, item, numpy), which a replay cannot: return the array from "
                f"the captured function and read it outside; choose with nnx.where, not with if"
            )

    def refuse_seeding(self) -> None:
        log = self.active()
        if log is not None:
            raise CaptureError(
                f"{log.where()}: nnx.seed in a captured function, which a replay would not repeat: "
                f"call it outside"
            )

    def write(self, target: Array, value: Array) -> Array:
        log = self.active()
        return self.base.write(target, value) if log is None else log.write(target, value)

    def copy(self, array: Array) -> Array:
        log = self.active()
        return self.base.copy(array) if log is None else log.copy(array)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        log = self.active()
        if log is None:
            return self.base.zeros(shape, dtype)
        return log.run(self.base.xp.zeros, (shape,), {"dtype": dtype})

    def literal(self, array: Array) -> Array:
        log = self.active()
        return array if log is None else log.literal(array)

    def result(self, y: Any) -> Any:
        return self.base.result(y)

    def call(self, kernel: Any, args: Any, attrs: Any) -> Any:
        log = self.active()
        if log is None:
            return self.base.call(kernel, args, attrs)
        return log.call(kernel, args, attrs, self)

    def uniform(self, shape: tuple[int, ...], dtype: Any, rng: Any) -> Array:
        log = self.active()
        if log is None:
            return self.base.uniform(shape, dtype, rng)
        return log.uniform(shape, dtype, rng)

    def numbers(self, source: Any, like: Any) -> Any:
        log = self.active()
        return source.advance() if log is None else log.numbers(source, like)

    def test(self, f: Any, array: Array, *others: Any) -> None:
        log = self.active()
        if log is not None:
            log.test(f, array, others)
        self.base.test(f, array, *others)

    def used(self, tensors: Any) -> None:
        """Told of the arguments of an op on Tensors."""
        log = self.active()
        if log is not None:
            log.used(tensors)

    def entered(self, layer: Any) -> None:
        """Told of a layer that runs: its mode and its buffers are part of the state."""
        log = self.active()
        if log is not None and id(layer) not in log.layers:
            log.layers[id(layer)] = (layer, layer.training)
            log.used(layer.buffers())

    def instead_of(self, backend: Backend) -> Backend:
        """Records for the base; no other backend may compute beside it."""
        log = self.active()
        if log is None or backend is self or backend is self.base:
            return self if backend is self.base else backend
        raise CaptureError(
            f"{log.where()}: uses the backend {backend.name!r} while a function on {self.name!r} "
            f"is recorded; do this outside the captured function"
        )

    @property
    def lasting(self) -> Backend:
        return self.base

    def replay(self) -> Any:
        return self.base.replay()

    def dtype_name(self, array: Array) -> str:
        return self.base.dtype_name(array)

    def synchronize(self) -> None:
        self.base.synchronize()

    def free_memory(self) -> None:
        self.base.free_memory()

    def describe(self) -> dict[str, str]:
        return self.base.describe()

    def unrecorded(self, kernel: Any, args: Any, attrs: Any) -> Any:
        """Run a kernel that is one call of the recording: ops in it are none."""
        token = self._current.set(None)
        try:
            return self.base.call(kernel, args, attrs)
        finally:
            self._current.reset(token)

    def start(self, recording: Recording) -> Any:
        return self._current.set(recording)

    def stop(self, token: Any) -> None:
        self._current.reset(token)


_recorders: dict[Backend, Recorder] = {}


def recorder_for(base: Backend) -> Recorder:
    """The base's recorder; CaptureError if the base cannot replay."""
    found = _recorders.get(base)
    if found is not None:
        return found
    if base.replay() is None:
        raise CaptureError(
            f"capture: the backend {base.name!r} has no replay; call the function itself, or move "
            f"the model and the arguments with model.to('numpy')"
        )
    return _recorders.setdefault(base, Recorder(base))
