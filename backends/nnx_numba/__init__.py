"""numba: NumPy's arrays and kernels, with compiled loops for what NumPy does in several passes.

Importing this does not import numba; making a backend does. A loop is compiled when it is first
used with a dtype and kept on disk, in numba's cache (NUMBA_CACHE_DIR moves it).

    relu, sigmoid, tanh, silu, gelu, softplus, softmax, log_softmax and their derivatives,
    softmax_cross_entropy of class ids with its gradient, each optimizer, layer_norm,
    max_pool2d, avg_pool2d, lstm, gru; in replays the copies, sums and products of a convolution too

on C-contiguous float32 and float64; all else runs on NumPy's kernels. Results differ from NumPy's
by rounding: a few units in the last place; relu and the optimizers are equal to the last bit.
"""

from __future__ import annotations

import importlib
from typing import Any

from nnx.errors import BackendPackageError
from nnx_numpy import NumpyBackend

__all__ = ["NumbaBackend"]

INSTALL = "from nnx's checkout: pip install '.[numba]'"


class NumbaBackend(NumpyBackend):
    """Arrays are `numpy.ndarray`.   Raises BackendPackageError if numba is missing or broken."""

    name = "numba"
    parent = "numpy"

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        try:
            numba = importlib.import_module("numba")
        except Exception as error:
            what = f"numba fails to import: {error}; reinstall it, {INSTALL}"
            if isinstance(error, ModuleNotFoundError) and error.name == "numba":
                what = (
                    f"the backend 'numba' needs the package numba, which is not installed; "
                    f"{INSTALL}"
                )
            raise BackendPackageError(what) from error
        from . import (  # noqa: F401 - they fill `overrides`
            activation,
            cross_entropy,
            fusions,
            norm,
            optim,
            pool,
            recurrent,
        )
        from .common import overrides

        self.kernels = overrides
        self._version: str = numba.__version__

    def replay(self) -> Any:
        from .program import NUMBA  # only `nnx.capture` needs it

        return NUMBA

    def describe(self) -> dict[str, str]:
        return {"numba": self._version, **super().describe()}
