"""How good predictions are, as numbers on the arrays' own backend.

Each is a plain function of a batch's predictions and targets: pass it to `nnx.Trainer`, or call it.

    y   (..., C) scores of C classes (logits or probabilities), a row for each prediction
    t   (...) class ids, or (..., C) one-hot or soft targets, of which the largest is the class

Arguments are arrays or Tensors; the results are arrays, which wait for the device only when read.
"""

from __future__ import annotations

from typing import Any

from .backend import Array, backend_of
from .errors import DtypeError, OptionError, ShapeError
from .ops import exp, softmax_cross_entropy


def accuracy(y: Any, t: Any) -> Array:
    """Part of the rows whose largest score is that of their class: (), 0..1, of y's dtype."""
    xp, y, ids = _classes("accuracy", y, t)
    return xp.mean(xp.astype(xp.equal(xp.argmax(y, axis=-1), ids), y.dtype))


def top_k_accuracy(y: Any, t: Any, k: int = 5) -> Array:
    """Part of the rows in which fewer than k scores exceed that of their class: (), 0..1.

    Raises OptionError unless 1 <= k <= C.
    """
    xp, y, ids = _classes("top_k_accuracy", y, t)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= y.shape[1]:
        raise OptionError(f"top_k_accuracy: k={k!r}, expected an int in 1..{y.shape[1]}")
    own = xp.take_along_axis(y, xp.expand_dims(ids, axis=1), axis=1)
    higher = xp.sum(xp.astype(xp.greater(y, own), y.dtype), axis=1)
    return xp.mean(xp.astype(xp.less(higher, k), y.dtype))


def confusion_matrix(y: Any, t: Any) -> Array:
    """(C, C) counts, int64: how many rows of class i have their largest score at j.

    A product of one-hot matrices, which every array library can do.
    """
    xp, y, ids = _classes("confusion_matrix", y, t)
    classes = xp.expand_dims(xp.arange(y.shape[1]), axis=1)
    actual = xp.astype(xp.equal(classes, xp.expand_dims(ids, axis=0)), y.dtype)
    taken = xp.astype(xp.equal(classes, xp.expand_dims(xp.argmax(y, axis=-1), axis=0)), y.dtype)
    return xp.astype(xp.matmul(actual, xp.matrix_transpose(taken)), xp.int64)


def perplexity(y: Any, t: Any, *, ignore_index: int = -100) -> Array:
    """e^(the mean of -ln softmax(y)[t]): among how many classes the model seems to choose; ().

    y   logits (..., C)
    t   class ids (...) or targets (..., C): see `nnx.softmax_cross_entropy`

    Of several batches it is e^(the mean of their losses), not the mean of their perplexities:
    `Evaluation.perplexity`.
    """
    y, t = getattr(y, "__nnx_data__", y), getattr(t, "__nnx_data__", t)
    return exp(softmax_cross_entropy(y, t, ignore_index=ignore_index))


def _classes(what: str, y: Any, t: Any) -> tuple[Any, Array, Array]:
    """The namespace, y (N, C), and the class ids in t (N,); ShapeError or DtypeError if they do
    not fit.
    """
    y, t = getattr(y, "__nnx_data__", y), getattr(t, "__nnx_data__", t)
    backend = backend_of(y)
    xp, shape = backend.xp, tuple(y.shape)
    if y.ndim < 2 or tuple(t.shape) not in (shape[:-1], shape) or 0 in shape:
        raise ShapeError(
            f"{what}: y has shape {shape} and t {tuple(t.shape)}; expected scores (..., C) of at "
            f"least one row, with class ids (...) or targets (..., C)"
        )
    y = xp.reshape(y, (-1, shape[-1]))
    if t.ndim == len(shape):
        return xp, y, xp.argmax(xp.reshape(t, (-1, shape[-1])), axis=-1)
    if "int" not in backend.dtype_name(t):
        raise DtypeError(
            f"{what}: t has dtype {backend.dtype_name(t)}, expected class ids as int64: "
            f"nnx.asarray(t, 'int64')"
        )
    return xp, y, xp.reshape(t, (-1,))
