"""Pictures made of images: the ones that were misclassified, and weights as images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..data import ArrayDataset
from ..data.dataset import HostArray
from ..errors import OptionError, ShapeError
from ..layers import Layer
from ..train import predict
from .figures import Picture, grid, host, is_layer, whole

Shape = tuple[int, int]


def mistakes(
    model: Layer, images: Any, count: int, shape: Shape | None, classes: Sequence[str] | None
) -> Picture:
    """See `nnx.plot.mistakes`."""
    is_layer("mistakes", model)
    whole("mistakes", "count", count)
    x, t, shape = _images(images, shape)
    y = to_numpy(predict(model, x))
    taken, sure = _judged(y, t)
    if classes is not None and len(classes) < y.shape[1]:
        raise OptionError(
            f"mistakes: {len(classes)} names in classes, expected at least {y.shape[1]}"
        )
    wrong = np.flatnonzero(taken != t)
    first = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
    title = f"{len(wrong):,} of {len(t):,} wrong"
    if not len(first):
        picture = Picture(5, 1.2)
        picture.suptitle(title)
        return picture
    titles = [_title(int(t[i]), int(taken[i]), float(sure[i]), classes) for i in first]
    lines = [line for each in titles for line in each.splitlines()]
    cell = max(1.25, 0.085 * max(map(len, lines)))  # inches: an image, or its widest line
    columns = max(4, math.ceil(math.sqrt(len(first))))
    high = cell + 0.2 * titles[0].count("\n") + 0.2
    picture, axes = grid(len(first), (cell, high), columns, "compressed")
    picture.suptitle(title + (f"; the surest {len(first)}" if len(first) < len(wrong) else ""))
    for ax, i, each in zip(axes, first, titles, strict=True):
        ax.imshow(x[i].reshape(shape), cmap="gray_r")
        ax.set_title(each, fontsize=9)
        ax.set_axis_off()
    return picture


def _title(actual: int, taken: int, sure: float, classes: Sequence[str] | None) -> str:
    """In two lines where classes have names."""
    if classes is None:
        return f"{actual} \u2192 {taken}  {100 * sure:.0f} %"
    return f"{classes[actual]}\n\u2192 {classes[taken]}  {100 * sure:.0f} %"


def _images(images: Any, shape: Shape | None) -> tuple[HostArray, HostArray, Shape]:
    """x, class ids, and (height, width)."""
    if isinstance(images, ArrayDataset):
        x, t, shape = images.x, images.t, shape or images.image_shape
    elif isinstance(images, (tuple, list)) and len(images) == 2:
        x, t = map(host, images)
    else:
        raise OptionError(
            f"mistakes: images is a {type(images).__name__}, expected an ArrayDataset or a pair "
            f"(x, t)"
        )
    if t.shape != x.shape[:1] or t.dtype.kind not in "iu" or not len(t):
        raise ShapeError(
            f"mistakes: x has shape {x.shape} and t {t.shape}, {t.dtype}; expected at least one "
            f"image, and class ids (N,)"
        )
    if shape is None and x.ndim == 3:
        shape = (x.shape[1], x.shape[2])
    return x, t, _shape("mistakes", math.prod(x.shape[1:]), shape)


def _shape(what: str, size: int, shape: Shape | None) -> Shape:
    """(height, width) of `size` numbers: as given, or a square."""
    side = math.isqrt(size)
    if shape is None and side * side == size and side > 1:
        return side, side
    if shape is None:
        raise OptionError(
            f"{what}: a row of {size} numbers is no square image; if it is an image, give "
            f"image_shape=(height, width)"
        )
    given = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    if len(given) != 2 or not all(isinstance(n, int) for n in given) or math.prod(given) != size:
        raise ShapeError(
            f"{what}: a row has {size} numbers, image_shape is {shape!r}; expected (height, width) "
            f"whose product is {size}"
        )
    return given


def _judged(y: HostArray, t: HostArray) -> tuple[HostArray, HostArray]:
    """What each row was taken for, and the probability of that."""
    if y.ndim != 2 or y.shape[1] <= int(t.max()):
        raise ShapeError(
            f"mistakes: the model gives {y.shape} for class ids up to {int(t.max())}, expected "
            f"(N, C) scores of at least {int(t.max()) + 1} classes"
        )
    taken = y.argmax(axis=1)
    if y.min() >= 0 and np.allclose(y.sum(axis=1), 1, atol=1e-3):
        return taken, y.max(axis=1)
    return taken, 1 / np.exp(y - y.max(axis=1, keepdims=True)).sum(axis=1)


def weights(model: Layer, count: int, shape: Shape | None) -> Picture:
    """See `nnx.plot.weights`."""
    is_layer("weights", model)
    whole("weights", "count", count)
    name, W = next(((n, p) for n, p in model.named_parameters() if p.ndim == 2), ("", None))
    if W is None:
        raise OptionError(
            f"weights: {type(model).__name__} has no weight of shape (in, out), as L.Linear(784, "
            f"100) has; its parameters: {', '.join(n for n, _ in model.named_parameters()) or '-'}"
        )
    data = to_numpy(W.data)
    units = np.argsort(-np.linalg.norm(data, axis=0), kind="stable")[:count]
    shape = _shape("weights", len(data), shape)
    largest = float(np.abs(data[:, units]).max()) or 1.0
    columns = max(4, math.ceil(math.sqrt(len(units))))
    picture, axes = grid(len(units), (1.0, 0.97), columns, "compressed")
    shown: Any = None
    for ax, unit in zip(axes, units, strict=True):
        shown = ax.imshow(data[:, unit].reshape(shape), cmap="RdBu_r", vmin=-largest, vmax=largest)
        ax.set_title(str(unit), fontsize=7, pad=2)
        ax.set_axis_off()
    picture.colorbar(shown, ax=axes, shrink=0.6, label="weight")
    few = len(units) < data.shape[1]
    picture.suptitle(
        f"{name}: {len(units)} of {data.shape[1]} units, largest norm first" if few
        else f"{name}: {len(units)} units, largest norm first"
    )  # fmt: skip
    return picture
