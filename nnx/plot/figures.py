"""A Figure without pyplot, and what all pictures share. matplotlib is imported here."""

from __future__ import annotations

import math
import os
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from ..arrays import asarray, to_numpy
from ..data.dataset import HostArray
from ..errors import OptionError
from ..files import write_file
from ..layers import Layer

TRAIN, TEST = "#1f77b4", "#d95f02"  # a blue and an orange that colour-blind eyes tell apart
LEAST = 4.5  # inches of width


class Picture(Figure):
    """A Figure that shows itself in a notebook; `save(path)` writes it, whole or not at all."""

    def __init__(self, width: float, height: float, layout: Any = "constrained") -> None:
        super().__init__(figsize=(width, height), layout=layout)

    def save(self, path: str | os.PathLike[str]) -> None:
        """As what the path ends in: .png, .svg or .pdf."""
        write_file(path, self._bytes(os.path.splitext(os.fspath(path))[1][1:].lower()))

    def _bytes(self, kind: str) -> bytes:
        out = BytesIO()
        self.savefig(out, format=kind, dpi=120)
        return out.getvalue()

    def _repr_png_(self) -> bytes:
        return self._bytes("png")


def grid(
    count: int, cell: tuple[float, float], columns: int, layout: Any = "constrained"
) -> tuple[Picture, list[Any]]:
    """A picture of `count` axes in rows of at most `columns`; a cell is (width, height) inches."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    scale = max(1.0, LEAST / (cell[0] * columns))  # else few small ones are narrower than a title
    picture = Picture(scale * cell[0] * columns, scale * cell[1] * rows + 0.4, layout)
    axes = picture.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return picture, list(axes[:count])


def host(x: Any) -> HostArray:
    """An array of any backend, a Tensor or nested lists, as a NumPy array."""
    x = getattr(x, "__nnx_data__", x)
    return to_numpy(x if hasattr(x, "shape") else asarray(x))


def is_layer(what: str, model: Any) -> None:
    """OptionError unless it is one."""
    if not isinstance(model, Layer):
        raise OptionError(
            f"{what}: model is a {type(model).__name__}, expected a layer, such as "
            f"L.Sequential(L.Linear(784, 10))"
        )


def whole(what: str, name: str, value: Any) -> None:
    """OptionError unless it is an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{what}: {name}={value!r}, expected an int of at least 1")
