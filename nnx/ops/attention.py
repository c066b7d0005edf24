"""Scaled dot-product attention, whose weights are never in memory all at once."""

from __future__ import annotations

import math

from ..errors import DtypeError, OptionError, ShapeError
from ..op import op
from ._options import shape_of

MOST = 1 << 20  # scores that are worked on at a time: they stay near the cache


@op
def attention(
    xp, q, k, v, bias=None, mask=None, drawn=None, *, causal=False, scale=None, p=0.0, rows=None
):
    """y = softmax(scale q k' + bias) v, row by row.   Vaswani et al. (2017)

    q        (..., L, E), queries
    k, v     (..., S, E) keys and (..., S, D) values; leading axes broadcast
    bias     added to the scores, broadcast to (..., L, S)
    mask     bool, broadcast to (..., L, S): True where a query may look; a constant
    causal   query i looks at keys up to i + S - L alone: the last one at all
    scale    1 / sqrt(E) by default
    drawn    uniform in [0, 1), (..., L, S), a constant: weights with drawn < p become 0, the others
             are divided by 1 - p
    rows     how many queries are worked on at a time; by default so many that no more than a
             million scores are held. Backward computes them once more (Dao et al., 2022)
    y        (..., L, D); 0 for a query that may look nowhere
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    y, sums = [], []
    for a, b in _blocks(q.shape, k.shape, rows):
        s = _scores(xp, q, k, bias, mask, causal, scale, a, b)
        top = xp.max(s, axis=-1, keepdims=True)
        top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
        e = xp.exp(s - top)
        total = xp.sum(e, axis=-1, keepdims=True)
        total = xp.where(total == 0, xp.ones_like(total), total)
        y.append(xp.matmul(_dropped(xp, e / total, drawn, p, a, b), v))
        sums.append(top + xp.log(total))
    return xp.concat(y, axis=-2), {"lse": xp.concat(sums, axis=-2), "scaled": scale}


@attention.d("q", "k", "v", "bias")
def _(xp, dy, q, k, v, bias, mask, drawn, y, lse, scaled, causal, p, rows):
    along = xp.sum(dy * y, axis=-1, keepdims=True)
    dq, dk, dv, dbias = [], 0, 0, []
    for a, b in _blocks(q.shape, k.shape, rows):
        s = _scores(xp, q, k, bias, mask, causal, scaled, a, b)
        w, d = xp.exp(s - lse[..., a:b, :]), dy[..., a:b, :]
        dv = xp.matmul(xp.matrix_transpose(_dropped(xp, w, drawn, p, a, b)), d) + dv
        dw = _dropped(xp, xp.matmul(d, xp.matrix_transpose(v)), drawn, p, a, b)
        ds = w * (dw - along[..., a:b, :])
        dq.append(xp.matmul(ds, k) * scaled)
        dk = xp.matmul(xp.matrix_transpose(ds), q[..., a:b, :]) * scaled + dk
        if bias is not None:
            dbias.append(ds)
    return xp.concat(dq, axis=-2), dk, dv, None if bias is None else xp.concat(dbias, axis=-2)


def _blocks(q_shape, k_shape, rows):
    """(from, to) of the queries that are worked on together."""
    count = q_shape[-2]
    if rows is None:
        rows = max(1, MOST // max(1, math.prod(q_shape[:-2]) * k_shape[-2]))
    return [(a, min(a + rows, count)) for a in range(0, max(count, 1), rows)]


def _scores(xp, q, k, bias, mask, causal, scale, a, b):
    """Of the queries a..b, with -inf where they may not look."""
    s = xp.matmul(q[..., a:b, :] * scale, xp.matrix_transpose(k))
    if bias is not None:
        s = s + _some_rows(bias, a, b)
    if mask is not None:
        s = xp.where(_some_rows(mask, a, b), s, xp.full_like(s, -math.inf))
    if causal:
        last = xp.expand_dims(xp.arange(a, b), axis=-1) + (k.shape[-2] - q.shape[-2])
        s = xp.where(xp.arange(k.shape[-2]) <= last, s, xp.full_like(s, -math.inf))
    return s


def _some_rows(x, a, b):
    """Rows a..b; all where there is one for all queries."""
    return x if x.ndim < 2 or x.shape[-2] == 1 else x[..., a:b, :]


def _dropped(xp, w, drawn, p, a, b):
    if drawn is None:
        return w
    return w * (xp.astype(drawn[..., a:b, :] >= p, w.dtype) * (1 / (1 - p)))


@attention.check
def _(
    backend, q, k, v, bias=None, mask=None, drawn=None, causal=False, scale=None, p=0.0, rows=None
):
    shapes = [shape_of(x) for x in (q, k, v)]
    given = f"q has shape {shapes[0]}, k {shapes[1]}, v {shapes[2]}"
    expected = "expected (..., L, E), (..., S, E) and (..., S, D)"
    if min(map(len, shapes)) < 2 or shapes[0][-1] != shapes[1][-1] or not shapes[1][-1]:
        raise ShapeError(f"attention: {given}; {expected}: queries and keys of one width E > 0")
    if shapes[1][-2] != shapes[2][-2]:
        raise ShapeError(f"attention: {given}; {expected}: a value for each of the S keys")
    if not shapes[1][-2]:
        raise ShapeError(f"attention: {given}; expected at least one key")
    lead = _broadcast(shapes[0][:-2], shapes[1][:-2])
    lead = None if lead is None else _broadcast(lead, shapes[2][:-2])
    if lead is None:
        raise ShapeError(f"attention: {given}; {expected}, with leading axes that broadcast")
    scores = (*lead, shapes[0][-2], shapes[1][-2])
    for name, x in (("bias", bias), ("mask", mask), ("drawn", drawn)):
        if x is not None and _broadcast(shape_of(x), scores) != scores:
            raise ShapeError(
                f"attention: {name} has shape {shape_of(x)}, expected one that broadcasts to "
                f"{scores} = (..., L, S), because {given}"
            )
    if drawn is not None and shape_of(drawn) != scores:
        raise ShapeError(f"attention: drawn has shape {shape_of(drawn)}, expected {scores}")
    if mask is not None and "bool" not in backend.dtype_name(mask):
        raise DtypeError(
            f"attention: mask is {backend.dtype_name(mask)}, expected bool, True where a query may "
            f"look: write mask != 0; numbers to add to the scores are `bias`"
        )
    if not 0 <= p < 1:
        raise OptionError(f"attention: p={p}, expected a probability of dropping in [0, 1)")
    if rows is not None and rows < 1:
        raise OptionError(f"attention: rows={rows}, expected at least 1")


def _broadcast(a, b):
    """The shape that both broadcast to; None if there is none."""
    a, b = (1,) * (len(b) - len(a)) + a, (1,) * (len(a) - len(b)) + b
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        return None
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))
