"""A data set in the host's memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import DtypeError, LabelError, OptionError, ShapeError

HostArray: TypeAlias = np.ndarray[Any, Any]


class ArrayDataset:
    """Inputs `x` and targets `t` of equal length, as NumPy arrays.

    x            (N, ...) numbers; ints and bools become float32, floats keep their width
    t            (N,) class ids, or (N, ...) one-hot, soft or real-valued targets; ints and bools
                 become int64, floats keep their width
    classes      the number of classes: integer targets are then checked to lie in 0..classes-1.
                 Or the classes' names in the order of their ids: `class_names` are these, else None
    name         what errors and reports call it
    image_shape  (height, width) or (channels, height, width) where a row of x is a flattened
                 image, else None
    white        the integer that is 1.0 in x where x was made of uint8 images, else None

    `dataset[index]` is the pair `(x[index], t[index])` for an int, a slice or an array of ints.

    Raises DtypeError for anything but numbers in NumPy arrays or nested lists, ShapeError for
    unequal lengths or rows that are no images of `image_shape`, LabelError, with the first bad
    row, for a class id out of range.
    """

    def __init__(
        self,
        x: Any,
        t: Any,
        classes: int | Sequence[str] | None = None,
        *,
        name: str = "the data set",
        image_shape: tuple[int, ...] | None = None,
        white: int | None = None,
    ) -> None:
        self.name: str = name
        self.class_names: tuple[str, ...] | None = None
        if not (classes is None or isinstance(classes, (int, np.integer))):
            self.class_names = check_names(name, classes)
            classes = len(self.class_names)
        self.classes: int | None = classes
        self.image_shape: tuple[int, ...] | None = image_shape
        self.white: int | None = white
        x, t = _numbers(name, "x", x), _numbers(name, "t", t)
        if len(x) != len(t):
            raise ShapeError(
                f"{name}: x has {len(x)} rows and t has {len(t)}; expected one target for each row"
            )
        if classes is not None:
            _check_classes(name, t, classes)
        if image_shape is not None:
            _check_image_shape(name, x, image_shape)
        self.x: HostArray = _cast(x, np.float32)
        self.t: HostArray = _cast(t, np.int64)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        return self.x[index], self.t[index]

    def split(self, fraction: float, seed: int = 0) -> tuple[ArrayDataset, ArrayDataset]:
        """Two data sets: the rows to train on, and a `fraction` of all rows to hold out.

        Which rows are held out follows from their number, the fraction and the seed alone. Both
        parts keep the order of the rows.

        Raises OptionError unless 0 < fraction < 1 and seed is an int of 0 or more, ShapeError if a
        part would be empty.
        """
        check_int("split", "seed", seed, 0)
        if not 0 < fraction < 1:
            raise OptionError(f"split({fraction!r}): expected a fraction between 0 and 1")
        n = len(self)
        count = max(1, round(n * fraction))
        if n <= count:
            raise ShapeError(f"{self.name} has {n} rows: too few to hold {fraction:.0%} out")
        held_out = np.zeros(n, bool)
        held_out[np.random.Generator(np.random.PCG64(seed)).permutation(n)[:count]] = True
        return self._part(~held_out, "train"), self._part(held_out, "held out")

    def _part(self, rows: HostArray, name: str) -> ArrayDataset:
        x, t = self[rows]
        classes = self.class_names or self.classes
        return ArrayDataset(
            x,
            t,
            classes,
            name=f"{self.name} ({name})",
            image_shape=self.image_shape,
            white=self.white,
        )

    def __repr__(self) -> str:
        classes = f", {self.classes} classes" if self.classes is not None else ""
        return f"<ArrayDataset {self.name!r}: x {self.x.shape}, t {self.t.shape}{classes}>"


def check_int(what: str, option: str, value: object, least: int) -> None:
    """Raise OptionError, in the name of `what`, unless value is an int of `least` or more."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise OptionError(f"{what}: {option}={value!r}, expected an int of {least} or more")


def _numbers(name: str, argument: str, data: Any) -> HostArray:
    if not isinstance(data, (np.ndarray, list, tuple)):
        raise DtypeError(
            f"{name}: {argument} is a {type(data).__qualname__}, expected a NumPy array; "
            f"convert it with nnx.to_numpy({argument})"
        )
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DtypeError(
            f"{name}: {argument} is nested lists of unequal length ({error})"
        ) from error
    if array.dtype.kind not in "iufb":
        raise DtypeError(f"{name}: {argument} has dtype {array.dtype}, expected numbers")
    if array.ndim == 0:
        raise ShapeError(f"{name}: {argument} is a single number, expected one row per example")
    return array


def _cast(array: HostArray, integers_to: Any) -> HostArray:
    """Integers and bools as `integers_to`; floats as they are."""
    return array if array.dtype.kind == "f" else array.astype(integers_to, copy=False)


def check_names(name: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of classes; OptionError unless they are different texts."""
    given = [] if isinstance(classes, str) or not isinstance(classes, Iterable) else [*classes]
    names = tuple(n for n in given if isinstance(n, str))
    if not names or len(names) < len(given):
        raise OptionError(
            f"{name}: classes={classes!r}, expected the number of classes or a list of their names"
        )
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise OptionError(f"{name}: the class name {twice!r} is given twice")
    return names


def _check_image_shape(name: str, x: HostArray, image_shape: tuple[int, ...]) -> None:
    if len(image_shape) in (2, 3) and x.shape[1:] == (math.prod(image_shape),):
        return
    raise ShapeError(
        f"{name}: x has shape {x.shape} and image_shape is {image_shape}; expected (height, width) "
        f"or (channels, height, width), and a flattened image in each row of x"
    )


def _check_classes(name: str, t: HostArray, classes: int) -> None:
    if t.dtype.kind == "f":
        if t.shape[1:] == (classes,):
            return
        raise ShapeError(
            f"{name}: t has shape {t.shape} and dtype {t.dtype}; for {classes} classes expected "
            f"class ids (t.astype('int64'), shape ({len(t)},)) or soft targets of shape "
            f"({len(t)}, {classes})"
        )
    bad = np.argwhere((t < 0) | (t >= classes))
    if len(bad):
        first = tuple(int(i) for i in bad[0])
        raise LabelError(
            f"{name}: t[{', '.join(map(str, first))}] is {t[first]}, expected a class id in "
            f"0..{classes - 1}; {len(bad)} of {t.size} are out of range"
        )
