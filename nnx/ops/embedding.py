"""Rows of a table by their ids: words, characters, positions."""

from __future__ import annotations

import math
from typing import Any

from ..errors import DtypeError, LabelError, OptionError, ShapeError
from ..op import op
from ._geometry import is_int
from ._options import shape_of
from .index import scatter_add


@op
def embedding(xp, W, ids, *, padding=None):
    """y = W[ids], the row of each id.   Bengio et al. (2003)

    W         (V, D), a row for each of the V ids
    ids       ints 0..V-1 of any shape, a constant
    padding   an id whose row is not learned: its gradient is 0
    y         (*ids.shape, D)

    Raises LabelError on ids outside 0..V-1 where the data are on the host.
    """
    rows = xp.take(W, xp.reshape(ids, (math.prod(ids.shape),)), axis=0)
    return xp.reshape(rows, (*ids.shape, W.shape[1])), {"size": W.shape[0]}


@embedding.d("W")
def _(xp, dy, ids, size, padding):
    if padding is not None:
        dy = dy * xp.expand_dims(xp.astype(ids != padding, dy.dtype), axis=-1)
    return scatter_add(dy, ids, size=size)


@embedding.check
def _(backend, W, ids, padding=None):
    if len(shape_of(W)) != 2:
        raise ShapeError(f"embedding: W has shape {shape_of(W)}, expected (V, D): a row per id")
    size = W.shape[0]
    check_ints(backend, ids)
    check_padding("embedding", padding, size)
    return check_ids, ids, size


def check_ints(backend: Any, ids: Any) -> None:
    given = backend.dtype_name(ids) if hasattr(ids, "shape") else type(ids).__name__
    if not hasattr(ids, "shape") or "int" not in given:
        raise DtypeError(
            f"embedding: the ids are {given}, expected an array of ints: nnx.asarray(ids, 'int64')"
        )


def check_padding(name: str, padding: Any, size: int) -> None:
    if padding is not None and not (is_int(padding) and padding < size):
        raise OptionError(f"{name}: padding={padding!r}, expected an id in 0..{size - 1}")


_UNSIGNED = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


def check_ids(ids, size):
    """Raise LabelError at the first id outside 0..size-1."""
    # As unsigned numbers negative ids are huge: one pass finds both kinds.
    if ids.size == 0 or ids.view(_UNSIGNED[ids.dtype.itemsize]).max() < size:
        return
    wrong = (ids < 0) | (ids >= size)
    place = tuple(int(i[0]) for i in wrong.nonzero()) if ids.ndim else ()
    where = f" at ids[{', '.join(map(str, place))}]" if place else ""
    raise LabelError(
        f"embedding: id {int(ids[place])}{where}, expected 0..{size - 1}: the vocabulary has "
        f"{size} ids"
    )
