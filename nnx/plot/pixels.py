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

Shape = tuple[int, ...]
FRONTS = ((), (1,), (3,))  # what may stand before (height, width): grey, or red, green and blue


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
    few = f"; the surest {len(first)}" if len(first) < len(wrong) else ""
    picture.suptitle(f"{title}{few}\nclass \u2192 taken for", fontsize=11)
    for ax, i, each in zip(axes, first, titles, strict=True):
        ax.imshow(_image(x[i].reshape(shape)), cmap="gray_r")
        ax.set_title(each, fontsize=9)
        ax.set_axis_off()
    return picture


def _title(actual: int, taken: int, sure: float, classes: Sequence[str] | None) -> str:
    """In two lines where classes have names."""
    if classes is None:
        return f"{actual} \u2192 {taken}  {100 * sure:.0f} %"
    return f"{classes[actual]}\n\u2192 {classes[taken]}  {100 * sure:.0f} %"


def _images(images: Any, shape: Shape | None) -> tuple[HostArray, HostArray, Shape]:
    """x, class ids, and (height, width) or (channels, height, width)."""
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
    if shape is None and x.ndim in (3, 4):
        shape = x.shape[1:]
    return x, t, _shape("mistakes", math.prod(x.shape[1:]), shape)


def _shape(what: str, size: int, shape: Shape | None) -> Shape:
    """That of an image of `size` numbers: as given, or a square."""
    side = math.isqrt(size)
    if shape is None and side * side == size and side > 1:
        return side, side
    if shape is None:
        raise OptionError(
            f"{what}: a row of {size} numbers is no square image; if it is an image, give "
            f"image_shape=(height, width)"
        )
    given = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    fits = all(isinstance(n, int) for n in given) and math.prod(given) == size
    if len(given) not in (2, 3) or given[:-2] not in FRONTS or not fits:
        raise ShapeError(
            f"{what}: a row has {size} numbers, image_shape is {shape!r}; expected (height, width) "
            f"or (1 or 3, height, width) whose product is {size}"
        )
    return given


def _image(pixels: HostArray) -> HostArray:
    """(height, width), or (height, width, 3) from 0 to 1, of (height, width) or (channels, ...)."""
    if pixels.ndim == 2 or len(pixels) == 1:
        return pixels.reshape(pixels.shape[-2:])
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    return np.moveaxis((pixels - low) / (high - low), 0, -1)


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
    name, W = next(((n, p) for n, p in model.named_parameters() if p.ndim > 1), ("", None))
    if W is None or W.ndim not in (2, 4):
        raise OptionError(
            f"weights: {type(model).__name__} has no first weight of shape (in, out), as "
            f"L.Linear(784, 100) has, or (out, in, height, width); its parameters: "
            f"{', '.join(f'{n} {p.shape}' for n, p in model.named_parameters()) or '-'}"
        )
    data = to_numpy(W.data)
    if W.ndim == 2:
        data = data.T.reshape(-1, *_shape("weights", len(data), shape))
    else:
        _shape("weights", math.prod(data.shape[1:]), data.shape[1:])
    norms = np.linalg.norm(data.reshape(len(data), -1), axis=1)
    units = np.argsort(-norms, kind="stable")[:count]
    largest = float(np.quantile(np.abs(data[units]), 0.999)) or 1.0  # a few would hide the others
    columns = max(4, math.ceil(math.sqrt(len(units))))
    picture, axes = grid(len(units), (1.0, 0.97), columns, "compressed")
    shown: Any = None
    for ax, unit in zip(axes, units, strict=True):
        shown = ax.imshow(_signed(data[unit], largest), cmap="RdBu_r", vmin=-largest, vmax=largest)
        ax.set_title(str(unit), fontsize=7, pad=2)
        ax.set_axis_off()
    if shown.get_array().ndim == 2:
        picture.colorbar(shown, ax=axes, shrink=0.6, label="weight", extend="both")
    few = f"{len(units)} of {len(data)} units" if len(units) < len(data) else f"{len(data)} units"
    picture.suptitle(f"{name}: {few}, largest norm first")
    return picture


def _signed(weight: HostArray, largest: float) -> HostArray:
    """As it is, for a map of colours; three channels as colours, of which grey is 0."""
    return _image(
        weight if weight.shape[:-2] != (3,) else np.clip(weight / largest, -1, 1) / 2 + 0.5
    )
