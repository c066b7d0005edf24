"""Losses.   reduction: "mean", "sum" or "none". The target t is a constant.

y, x: predictions or logits, float; t: of the same shape unless said otherwise
"""

from __future__ import annotations

import math

from ..errors import DtypeError, LabelError, OptionError, ShapeError
from ..op import op
from ._options import one_of


def _reduce(xp, losses, reduction):
    if reduction == "none":
        return losses
    return xp.mean(losses) if reduction == "mean" else xp.sum(losses)


def _scale(dy, shape, reduction):
    """What the reduction passes back to each of the losses."""
    return dy / (math.prod(shape) or 1) if reduction == "mean" else dy


def _like(xp, t, y):
    """Targets may be ints or bools; the loss has the prediction's dtype."""
    if isinstance(t, (int, float)) or t.dtype == y.dtype:
        return t
    return xp.astype(t, y.dtype)


def _check_target(name, y, t, reduction):
    one_of(name, "reduction", reduction, ("mean", "sum", "none"))
    y_shape, t_shape = tuple(getattr(y, "shape", ())), tuple(getattr(t, "shape", ()))
    if y_shape != t_shape:
        raise ShapeError(
            f"{name}: the prediction has shape {y_shape}, the target t {t_shape}; they must be "
            f"equal (reshape one of them)"
        )


@op
def mean_squared_error(xp, y, t, *, reduction="mean"):
    """loss = (y - t)^2, averaged over all entries"""
    e = y - _like(xp, t, y)
    return _reduce(xp, e * e, reduction)


@mean_squared_error.d("y")
def _(xp, dy, y, t, reduction):
    return (y - _like(xp, t, y)) * (2 * _scale(dy, y.shape, reduction))


@mean_squared_error.check
def _(backend, y, t, reduction="mean"):
    _check_target("mean_squared_error", y, t, reduction)


@op
def mean_absolute_error(xp, y, t, *, reduction="mean"):
    """loss = |y - t|, averaged over all entries. The derivative where they agree is 0."""
    return _reduce(xp, xp.abs(y - _like(xp, t, y)), reduction)


@mean_absolute_error.d("y")
def _(xp, dy, y, t, reduction):
    return xp.sign(y - _like(xp, t, y)) * _scale(dy, y.shape, reduction)


@mean_absolute_error.check
def _(backend, y, t, reduction="mean"):
    _check_target("mean_absolute_error", y, t, reduction)


@op
def huber(xp, y, t, *, delta=1.0, reduction="mean"):
    """loss = e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), e = y - t.   Huber (1964)"""
    e = y - _like(xp, t, y)
    a = xp.abs(e)
    return _reduce(xp, xp.where(a <= delta, 0.5 * e * e, delta * (a - 0.5 * delta)), reduction)


@huber.d("y")
def _(xp, dy, y, t, delta, reduction):
    e = y - _like(xp, t, y)
    inner = xp.where(xp.abs(e) <= delta, e, delta * xp.sign(e))
    return inner * _scale(dy, y.shape, reduction)


@huber.check
def _(backend, y, t, delta=1.0, reduction="mean"):
    _check_target("huber", y, t, reduction)
    if not delta > 0:
        raise OptionError(f"huber: delta={delta}, expected a number above 0")


@op
def categorical_crossentropy(xp, y, t, *, reduction="mean"):
    """loss = -t * ln(y), the notebook's: averaged over all entries, rows times columns.

    y: probabilities; t: one-hot or soft targets. Entries with t = 0 count 0, even where y = 0.
    """
    t = _like(xp, t, y)
    return _reduce(xp, -t * xp.log(_safe(xp, y, t)), reduction)


@categorical_crossentropy.d("y")
def _(xp, dy, y, t, reduction):
    t = _like(xp, t, y)
    return -t / _safe(xp, y, t) * _scale(dy, y.shape, reduction)


def _safe(xp, y, t):
    return xp.where(t == 0, xp.ones_like(y), y)


@categorical_crossentropy.check
def _(backend, y, t, reduction="mean"):
    _check_target("categorical_crossentropy", y, t, reduction)


@op
def sigmoid_cross_entropy(xp, x, t, *, reduction="mean"):
    """loss = -t ln s - (1 - t) ln(1 - s), s = sigmoid(x): binary cross-entropy on logits.

    Computed as c x + ln(1 + e^-|x|), c = 1 - t where x >= 0, else -t; c x is 0 where c is.
    t: 0/1 ints or probabilities
    """
    c = xp.astype(x >= 0, x.dtype) - _like(xp, t, x)
    linear = xp.where(c == 0, xp.zeros_like(c), c * x)
    return _reduce(xp, linear + xp.log1p(xp.exp(-xp.abs(x))), reduction)


@sigmoid_cross_entropy.d("x")
def _(xp, dy, x, t, reduction):
    z = xp.exp(-xp.abs(x))
    s = xp.where(x >= 0, xp.ones_like(z), z) / (1 + z)
    return (s - _like(xp, t, x)) * _scale(dy, x.shape, reduction)


@sigmoid_cross_entropy.check
def _(backend, x, t, reduction="mean"):
    _check_target("sigmoid_cross_entropy", x, t, reduction)


@op
def softmax_cross_entropy(
    xp, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"
):
    """loss_i = -sum_c q_ic w_c ln softmax(x_i)_c, q_i the target distribution of row i.

    x         logits (..., C)
    t         class ids (...), int; or one-hot or soft targets (..., C)
    weight    w, one per class (C,); 1 by default
    label_smoothing   e: q = (1 - e) * target + e / C   Szegedy et al. (2016)
    ignore_index      rows whose class id is this count nothing

    "mean" divides by the sum of the weights of the rows' classes where t holds ids, else by the
    number of rows. No row to count gives NaN. Raises LabelError on ids outside 0..C-1 where the
    data are on the host.
    """
    q, count = _distribution(xp, x, t, weight, label_smoothing, ignore_index)
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    logp = shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
    losses = -xp.sum(q * xp.where(q == 0, xp.zeros_like(q), logp), axis=-1)
    y = losses if reduction == "none" else xp.sum(losses)
    y = y / count if reduction == "mean" else y
    return y, {"p": xp.exp(logp), "q": q, "count": count}


@softmax_cross_entropy.d("x")
def _(xp, dy, p, q, count, reduction):
    if reduction == "mean":
        dy = dy / count
    elif reduction == "none":
        dy = xp.expand_dims(dy, axis=-1)
    return (p * xp.sum(q, axis=-1, keepdims=True) - q) * dy


def _distribution(xp, x, t, weight, label_smoothing, ignore_index):
    """q_ic w_c of every row, and what "mean" divides by."""
    classes = x.shape[-1]
    if t.ndim == x.ndim:
        q, valid = xp.astype(t, x.dtype), 1.0
    else:
        ids = xp.expand_dims(t, axis=-1)
        kept = ids != ignore_index
        q = xp.astype((ids == xp.arange(classes)) & kept, x.dtype)
        valid = xp.astype(kept, x.dtype)
    if t.ndim == x.ndim:
        count = xp.sum(xp.ones_like(x[..., 0]))
    else:
        count = xp.sum(valid if weight is None else q * weight)
    if label_smoothing:
        q = (1 - label_smoothing) * q + (label_smoothing / classes) * valid
    return (q if weight is None else q * weight), count


@softmax_cross_entropy.check
def _(backend, x, t, weight=None, label_smoothing=0.0, ignore_index=-100, reduction="mean"):
    name = "softmax_cross_entropy"
    one_of(name, "reduction", reduction, ("mean", "sum", "none"))
    x_shape, t_shape = tuple(getattr(x, "shape", ())), tuple(getattr(t, "shape", ()))
    if not x_shape or t_shape not in (x_shape, x_shape[:-1]):
        raise ShapeError(
            f"{name}: the logits x have shape {x_shape}, the targets t {t_shape}; expected class "
            f"ids {x_shape[:-1]} or one-hot or soft targets {x_shape}"
        )
    if not 0 <= label_smoothing < 1:
        raise OptionError(f"{name}: label_smoothing={label_smoothing}, expected 0 <= e < 1")
    classes = x_shape[-1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(f"{name}: weight has shape {tuple(weight.shape)}, expected ({classes},)")
    if t_shape == x_shape:
        return None
    if "int" not in backend.dtype_name(t):
        raise DtypeError(
            f"{name}: class ids t are {backend.dtype_name(t)}, expected ints; write "
            f"nnx.asarray(t, 'int64'), or give one-hot targets of shape {x_shape}"
        )
    return check_labels, t, name, classes, ignore_index


_UNSIGNED = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}


def check_labels(ids, name, classes, ignore_index):
    """Raise LabelError at the first class id outside 0..classes-1."""
    # As unsigned numbers negative ids are huge: one pass finds both kinds.
    if ids.size == 0 or ids.view(_UNSIGNED[ids.dtype.itemsize]).max() < classes:
        return
    wrong = ((ids < 0) | (ids >= classes)) & (ids != ignore_index)
    if wrong.any():
        place = tuple(int(i[0]) for i in wrong.nonzero())
        raise LabelError(
            f"{name}: class id {int(ids[place])} at t[{', '.join(map(str, place))}], expected "
            f"0..{classes - 1} for {classes} classes"
        )
