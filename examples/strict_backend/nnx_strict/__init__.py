"""A backend for nnx in a page: array-api-strict, which has the Array API standard and nothing else.

It is slow. It proves that kernels are portable: what runs here uses no function that the standard
lacks, and no shape that depends on values, which JAX and captured CUDA graphs cannot have.
"""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
import numpy as np

from nnx.backend import Backend

xp.set_array_api_strict_flags(
    api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False
)
Array = type(xp.zeros(()))


class StrictBackend(Backend):
    """Arrays are those of array_api_strict, on the host."""

    name = "strict"
    xp = xp
    on_host = True

    def owns(self, array: object) -> bool:
        return isinstance(array, Array)

    def asarray(self, data: Any, dtype: str | None = None) -> Any:
        if not self.owns(data) and not isinstance(data, (np.ndarray, np.generic)):
            data = np.from_dlpack(data) if hasattr(data, "__dlpack__") else np.asarray(data)
        return xp.asarray(data, dtype=None if dtype is None else getattr(xp, dtype))

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        return np.from_dlpack(array)

    def describe(self) -> dict[str, str]:
        return {"array-api-strict": xp.__version__}
