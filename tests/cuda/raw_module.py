"""`cupy.RawModule` of the stand-in for cupy: kernels run on the CPU, through the harness."""

from __future__ import annotations

from typing import Any

import harness
import numpy as np
import pytest


class RawModule:
    """Knows what nnx uses: `code`, `options`, `get_function`."""

    def __init__(self, cupy: Any, *, code: str, options: tuple[str, ...]) -> None:
        if harness.COMPILER is None:
            pytest.skip(harness.NEEDS)
        self.cupy, self.library = cupy, harness.library(code, options)
        functions = [o.partition("=")[2] for o in options if o.startswith("-DNNX_F=")]
        self.suffix = f" {functions[0]}" if functions else ""

    def get_function(self, name: str) -> RawKernel:
        """CuPy loads it on the device that is current then, and on others when it is launched."""
        self.cupy.loaded.append((name, self.cupy.current))
        return RawKernel(self.cupy, self.library, name, self.suffix)


class RawKernel:
    """Called as CuPy's: NumPy scalars and CuPy's arrays among the arguments."""

    def __init__(self, cupy: Any, library: harness.Library, name: str, suffix: str) -> None:
        self.cupy, self.library, self.name, self.suffix = cupy, library, name, suffix

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...],
        *, shared_mem: int = 0,
    ) -> None:  # fmt: skip
        for a in args:
            assert not isinstance(a, np.ndarray), "an array of NumPy's given to a kernel"

        def kernel(*bare: Any) -> None:
            self.library.launch(self.name, grid, block, bare, shared_mem)

        self.cupy.launch(kernel, *args)
        self.cupy.launched.append(self.name + self.suffix)


def poisoned(shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """What fresh memory may hold: NaN, or -1."""
    made = np.empty(shape, dtype)
    made.reshape(-1).view(np.uint8).fill(0xFF)
    return made
