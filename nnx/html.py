"""How nnx's objects show themselves in a notebook: small tables of escaped text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import to_numpy
from .backend import NUMBERS

if TYPE_CHECKING:
    from .tensor import Tensor

EDGE = 3  # entries shown at each end of a long axis
FULL = 1000  # arrays of up to so many entries are read whole


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """An HTML table; `numbers` are the columns that are aligned at the right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        sides = ["right" if i in numbers else "left" for i in range(len(cells))]
        return "".join(
            f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )

    top = f"<thead><tr>{line('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table>{top}<tbody>{body}</tbody></table>"


def fields(of: Mapping[str, Any]) -> str:
    """A table of one row: names above, values with 4 significant digits below."""
    shown = [f"{v:.4g}" if type(v) is float else str(v) for v in of.values()]
    return table(list(of), [shown], range(len(shown)))


def lines(text: str) -> str:
    """Text as it stands."""
    return f"<pre>{escape(text)}</pre>"


def of_tensor(t: Tensor) -> str:
    """Shape, dtype, backend, and values: of a large array only its corners are read."""
    grad = ", requires grad" if t.requires_grad else ""
    about = f"{t.shape} {t.backend.dtype_name(t.data)}, {t.backend.name}{grad}"
    return f"<div><b>{escape(type(t).__name__)}</b> {escape(about)}{lines(values(t.data))}</div>"


def values(data: Any) -> str:
    """An array's values as NumPy prints them, of any backend; the first matrix of a large one."""
    if type(data) in NUMBERS:
        return repr(data)
    size = int(np.prod(data.shape, dtype=np.int64))
    if size <= FULL:
        return np.array2string(to_numpy(data), threshold=200, edgeitems=EDGE)
    lead = (0,) * max(0, len(data.shape) - 2)
    text = np.array2string(_corners(data[(*lead, ...)]), threshold=0, edgeitems=EDGE)
    return f"[{', '.join(map(str, lead))}]:\n{text}" if lead else text


def _corners(data: Any) -> np.ndarray[Any, Any]:
    """Both ends of each axis, moved to the host in pieces; NumPy prints the dots between them."""
    ends = slice(None, EDGE + 1), slice(-EDGE, None)
    cut = [n > 2 * EDGE + 1 for n in data.shape]
    if not any(cut):
        return to_numpy(data)
    rows = [data[end, ...] for end in ends] if cut[0] else [data]
    if len(cut) == 1:
        return np.concatenate([to_numpy(r) for r in rows])
    wide = ends if cut[1] else (slice(None),)
    return np.block([[to_numpy(r[:, end]) for end in wide] for r in rows])
