"""Buffers: what a layer keeps beside its Parameters, and does not learn."""

from __future__ import annotations

from .arrays import asarray, moved
from .backend import Array, Backend
from .tensor import Tensor


class Buffer(Tensor):
    """A Tensor that a layer keeps and an optimizer does not see: running statistics.

    Layers find it as they find Parameters: it is in the state dict and in saved files, moves with
    the model, and is cast with it if it holds floats. A layer writes it with an update kernel:

        held = track(self.mean.data, batch_mean, momentum=0.1)      # an nnx.update.Update
        self.mean.update(held)
    """

    __slots__ = ()

    def move(self, backend: Backend, dtype: str | None = None) -> None:
        """Take an array of that backend and, if it holds floats, dtype; the object stays."""
        floats = "float" in self.backend.dtype_name(self._data)
        data = asarray(moved(self._data, backend), dtype if floats else None, backend=backend)
        if data is not self._data:
            self.update(data)

    def update(self, data: Array) -> None:
        """Take what an update kernel has written."""
        self._data = data
        self._version += 1
