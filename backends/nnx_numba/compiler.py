"""How loops are compiled: serial, without the interpreter's lock, kept on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numba
from numba.core import event

FUSE = {"contract"}  # a product and the sum that takes it may be rounded once
SUM = {"contract", "reassoc"}  # and sums taken in another order
KEPT = ", kept for next time"


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called with arrays of a type.

    Serial, because threads of numba and of the BLAS wait for each other: beside OpenBLAS a step
    with parallel loops takes five times as long.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def define(f: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(f)
        except RuntimeError:  # no folder that can be written: compile in each process
            return numba.njit(**options)(f)

    return define


class Notice(event.Listener):  # type: ignore[misc]
    """One line on stderr when the first loop has to be compiled; none if all come from disk."""

    def __init__(self) -> None:
        self.given = False

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if self.given or not dispatcher.py_func.__module__.startswith("nnx_numba."):
            return
        self.given = True
        kept = KEPT if type(dispatcher._cache).__name__ != "NullCache" else ""
        print(f"nnx: compiling kernels for numba{kept} ...", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


notice = Notice()
event.register("numba:compile", notice)
