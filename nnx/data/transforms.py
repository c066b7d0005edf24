"""Changes of images, for `DataLoader(transform=...)`: whole batches at once, in NumPy.

    DataLoader(train, 100, shuffle=True, seed=0, transform=Compose(Elastic(8, 3), Shift(2)))

Each is a function of (x, rng): x are images (B, height, width) or (B, channels, height, width),
floats; rng is a `numpy.random.Generator`, from which each image's own change is drawn. The result
is a new array of the same shape and dtype. All raise ShapeError for other shapes and DtypeError for
other dtypes, OptionError for options out of range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import DtypeError, OptionError, ShapeError
from .dataset import ArrayDataset, HostArray, check_int

__all__ = ["Compose", "Elastic", "Flip", "Normalize", "Shift"]

if TYPE_CHECKING:
    Rng: TypeAlias = np.random.Generator
AXES = {"horizontal": -1, "vertical": -2}
MOST = 1_000_000  # pixels that an image may be moved by
REACH = 3  # standard deviations to which the Gaussian is summed


class Compose:
    """One transform after another: `Compose(a, b)(x, rng)` is `b(a(x, rng), rng)`."""

    def __init__(self, *transforms: Callable[[HostArray, Rng], HostArray]) -> None:
        for i, t in enumerate(transforms):
            if not callable(t):
                raise OptionError(f"Compose: argument {i} is {t!r}, expected a transform")
        self.transforms = transforms

    def __call__(self, x: HostArray, rng: Rng) -> HostArray:
        for t in self.transforms:
            x = t(x, rng)
        return x

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


class Shift:
    """Move each image by whole pixels, up to `pixels` up, down, left and right.

    fill   what comes in from outside
    """

    def __init__(self, pixels: int, fill: float = 0.0) -> None:
        check_int("Shift", "pixels", pixels, 0)
        if pixels > MOST:
            raise OptionError(f"Shift: pixels={pixels!r}, expected at most {MOST:,}")
        self.pixels, self.fill = int(pixels), _finite("Shift", "fill", fill)

    def __call__(self, x: HostArray, rng: Rng) -> HostArray:
        images, p = _images("Shift", x), self.pixels
        n, _, h, w = images.shape
        down, right = rng.integers(-p, p + 1, (2, n, 1))
        room = np.full((*images.shape[:2], h + 2, w + 2), self.fill, x.dtype)
        room[:, :, 1:-1, 1:-1] = images
        rows = np.clip(np.arange(h) - down, -1, h) + 1
        columns = np.clip(np.arange(w) - right, -1, w) + 1
        # The advanced indices are apart, so the channels come last.
        moved = room[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return np.ascontiguousarray(moved.transpose(0, 3, 1, 2)).reshape(x.shape)

    def __repr__(self) -> str:
        return f"Shift({self.pixels}, fill={self.fill})"


class Flip:
    """Mirror each image with probability p: "horizontal" swaps left and right, "vertical" top and
    bottom.
    """

    def __init__(self, direction: str = "horizontal", p: float = 0.5) -> None:
        if direction not in AXES:
            raise OptionError(f"Flip({direction!r}): expected {' or '.join(map(repr, AXES))}")
        if not 0 <= _finite("Flip", "p", p) <= 1:
            raise OptionError(f"Flip: p={p!r}, expected a probability in 0..1")
        self.direction, self.p = direction, float(p)

    def __call__(self, x: HostArray, rng: Rng) -> HostArray:
        _images("Flip", x)
        made, chosen = x.copy(), rng.random(len(x)) < self.p
        made[chosen] = np.flip(x[chosen], AXES[self.direction])
        return made

    def __repr__(self) -> str:
        return f"Flip({self.direction!r}, p={self.p})"


class Normalize:
    """(x - mean) / std, with a number for all or one for each channel. Nothing is drawn.

    `Normalize.of(dataset)` takes mean and standard deviation of the data set's x. What is learnt of
    normalised images needs them normalised in evaluation too: give both loaders the same one.
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = (np.asarray(a, np.float64) for a in (mean, std))
        if self.mean.shape != self.std.shape or self.mean.ndim > 1:
            raise ShapeError(
                f"Normalize: mean has shape {self.mean.shape} and std {self.std.shape}; expected "
                f"two numbers, or one for each channel in both"
            )
        if not (np.isfinite([self.mean, self.std]).all() and (self.std > 0).all()):
            raise OptionError(f"Normalize({mean!r}, {std!r}): expected finite numbers and std > 0")

    @classmethod
    def of(cls, dataset: ArrayDataset) -> Normalize:
        """Of all numbers in the data set's x; 1 for a standard deviation of 0."""
        if not dataset.x.size:
            raise ShapeError(f"Normalize.of: {dataset.name} is empty, expected at least one row")
        std = float(dataset.x.std(dtype=np.float64))
        return cls(float(dataset.x.mean(dtype=np.float64)), std or 1.0)

    def __call__(self, x: HostArray, rng: Rng | None = None) -> HostArray:
        images = _images("Normalize", x)
        if self.mean.ndim and len(self.mean) != images.shape[1]:
            raise ShapeError(
                f"Normalize: {len(self.mean)} means and deviations, but images of shape {x.shape} "
                f"with {images.shape[1]} channels"
            )
        mean, std = (a.astype(x.dtype).reshape(-1, 1, 1) for a in (self.mean, self.std))
        made: HostArray = ((images - mean) / std).reshape(x.shape)
        return made

    def __repr__(self) -> str:
        return f"Normalize({self.mean.tolist()}, {self.std.tolist()})"


class Elastic:
    """Elastic distortion: each pixel is taken from a place nearby, neighbours from places alike.

        moves = alpha * gauss_sigma(u),  u uniform in -1..1 for each pixel and direction
        y[i, j] = x[i + moves_0[i, j], j + moves_1[i, j]], bilinear between pixels

    alpha   the moves' strength: their standard deviation is about 0.16 alpha / sigma pixels
    sigma   of the Gaussian in pixels: how far neighbours move alike; cut off at 3 sigma
    fill    what lies outside the image

    All channels of an image move alike. alpha=34, sigma=4 for images of 28x28 are the paper's.

    Source: Simard, Steinkraus and Platt (2003), Best Practices for Convolutional Neural Networks
    Applied to Visual Document Analysis.
    """

    def __init__(self, alpha: float = 34.0, sigma: float = 4.0, fill: float = 0.0) -> None:
        if not 0 <= _finite("Elastic", "alpha", alpha) <= MOST:
            raise OptionError(f"Elastic: alpha={alpha!r}, expected a number in 0..{MOST:,}")
        if not 0.01 <= _finite("Elastic", "sigma", sigma) <= 1000:
            raise OptionError(f"Elastic: sigma={sigma!r}, expected a number in 0.01..1000")
        self.alpha, self.sigma = float(alpha), float(sigma)
        self.fill = _finite("Elastic", "fill", fill)

    def __call__(self, x: HostArray, rng: Rng) -> HostArray:
        images = _images("Elastic", x)
        n, _, h, w = images.shape
        noise = rng.random((2, n, h, w), np.float32) * np.float32(2) - np.float32(1)
        moves = smooth(noise, self.sigma) * np.float32(self.alpha)
        rows = np.arange(h, dtype=np.float32)[:, None] + moves[0]
        columns = np.arange(w, dtype=np.float32) + moves[1]
        return bilinear(images, rows, columns, self.fill).reshape(x.shape)

    def __repr__(self) -> str:
        return f"Elastic({self.alpha}, {self.sigma}, fill={self.fill})"


def smooth(field: HostArray, sigma: float) -> HostArray:
    """(..., H, W) summed with a Gaussian's weights along both axes; outside is 0.

    Sums of shifted arrays and no product of matrices: the last bits then depend neither on the
    number of threads nor on which thread this is.
    """
    reach = max(1, math.ceil(REACH * sigma))
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights = (weights / (2 * weights.sum() - 1)).astype(field.dtype)
    h, w = field.shape[-2:]
    # Images last: what is added are then long pieces of memory.
    made = np.ascontiguousarray(field.reshape(-1, h, w).transpose(1, 2, 0))
    for axis in (0, 1):
        source = made.swapaxes(0, axis)
        made = weights[0] * source
        for k in range(1, min(reach + 1, len(source))):
            part = weights[k] * source
            made[k:] += part[:-k]
            made[:-k] += part[k:]
        made = made.swapaxes(0, axis)
    return np.ascontiguousarray(made.transpose(2, 0, 1)).reshape(field.shape)


def bilinear(images: HostArray, rows: HostArray, columns: HostArray, fill: float) -> HostArray:
    """(B, C, H, W) read at fractional places, rows and columns (B, H, W); `fill` is outside."""
    n, c, h, w = images.shape
    room = np.full((n, c, h + 3, w + 3), fill, images.dtype)
    room[:, :, 1 : h + 1, 1 : w + 1] = images
    rows, columns = np.clip(rows, -1, h) + 1, np.clip(columns, -1, w) + 1
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    down, right = (rows - top).astype(images.dtype), (columns - left).astype(images.dtype)
    at = (np.arange(n)[:, None, None] * (c * (h + 3)) + top) * (w + 3) + left
    made, flat = np.empty_like(images), room.reshape(-1)
    for channel in range(c):
        place = at + channel * (h + 3) * (w + 3)
        above = flat.take(place) * (1 - right) + flat.take(place + 1) * right
        below = flat.take(place + w + 3) * (1 - right) + flat.take(place + w + 4) * right
        made[:, channel] = above * (1 - down) + below * down
    return made


def _images(what: str, x: HostArray) -> HostArray:
    """As (B, C, H, W)."""
    if x.ndim not in (3, 4) or 0 in x.shape[1:]:
        raise ShapeError(
            f"{what}: x has shape {x.shape}, expected images (B, height, width) or (B, channels, "
            f"height, width); flat rows need ArrayDataset(x, t, image_shape=(height, width))"
        )
    if x.dtype.kind != "f":
        raise DtypeError(f"{what}: x has dtype {x.dtype}, expected floats: x.astype('float32')")
    return x if x.ndim == 4 else x[:, None]


def _finite(what: str, option: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise OptionError(f"{what}: {option}={value!r}, expected a number")
    if not math.isfinite(value):
        raise OptionError(f"{what}: {option}={value!r}, expected a finite number")
    return float(value)
