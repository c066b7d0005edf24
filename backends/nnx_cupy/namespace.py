"""The names and signatures of the Array API standard where CuPy 14 has others."""

from __future__ import annotations

from typing import Any

Axis = int | tuple[int, ...] | None


class Namespace:
    """`cupy`, save for the functions below. dtypes, constants and all else are CuPy's own.

    Not wrapped, because no kernel needs them: `device=` of creation functions (the backend makes
    its device the current one), `descending=` of sort and argsort, `vecdot`.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cupy, name)
        setattr(self, name, found)  # so that the next look-up does not come here
        return found

    def __repr__(self) -> str:
        return f"<the Array API on cupy {self._cupy.__version__}>"

    def clip(self, x: Any, /, min: Any = None, max: Any = None) -> Any:
        return self._cupy.clip(x, min, max)

    def reshape(self, x: Any, /, shape: Any, *, copy: bool | None = None) -> Any:
        return self._cupy.reshape(x, shape, copy=copy)

    def std(
        self, x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
    ) -> Any:
        return self._cupy.std(x, axis=axis, ddof=correction, keepdims=keepdims)

    def var(
        self, x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
    ) -> Any:
        return self._cupy.var(x, axis=axis, ddof=correction, keepdims=keepdims)

    def take_along_axis(self, x: Any, indices: Any, /, *, axis: int = -1) -> Any:
        return self._cupy.take_along_axis(x, indices, axis)

    def unstack(self, x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
        return tuple(self._cupy.moveaxis(x, axis, 0))
