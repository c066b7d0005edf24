"""A data set in the host's memory."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ..errors import DtypeError, LabelError, ShapeError

HostArray: TypeAlias = np.ndarray[Any, Any]


class ArrayDataset:
    """Inputs `x` and targets `t` of equal length, as NumPy arrays.

    x            (N, ...) numbers; ints and bools become float32, floats keep their width
    t            (N,) class ids, or (N, ...) one-hot, soft or real-valued targets; ints and bools
                 become int64, floats keep their width
    classes      the number of classes: integer targets are then checked to lie in 0..classes-1
    name         what errors and reports call it
    image_shape  (height, width) where a row of x is a flattened image, else None
    white        the integer that is 1.0 in x where x was made of uint8 images, else None

    `dataset[index]` is the pair `(x[index], t[index])` for an int, a slice or an array of ints.

    Raises DtypeError for anything but numbers in NumPy arrays or nested lists, ShapeError for
    unequal lengths, LabelError, with the first bad row, for a class id out of range.
    """

    def __init__(
        self,
        x: Any,
        t: Any,
        classes: int | None = None,
        *,
        name: str = "the data set",
        image_shape: tuple[int, int] | None = None,
        white: int | None = None,
    ) -> None:
        self.name: str = name
        self.classes: int | None = classes
        self.image_shape: tuple[int, int] | None = image_shape
        self.white: int | None = white
        x, t = _numbers(name, "x", x), _numbers(name, "t", t)
        if len(x) != len(t):
            raise ShapeError(
                f"{name}: x has {len(x)} rows and t has {len(t)}; expected one target for each row"
            )
        if classes is not None:
            _check_classes(name, t, classes)
        self.x: HostArray = _cast(x, np.float32)
        self.t: HostArray = _cast(t, np.int64)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        return self.x[index], self.t[index]

    def __repr__(self) -> str:
        classes = f", {self.classes} classes" if self.classes is not None else ""
        return f"<ArrayDataset {self.name!r}: x {self.x.shape}, t {self.t.shape}{classes}>"


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
