"""A data set to train on, from one file of the user's."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .csv import read_csv
from .dataset import ArrayDataset, HostArray
from .npz import read_arrays

FILES = (".npz", ".csv")
HELD_OUT = 0.2
FEW = 1000  # class ids below this are believed whatever the number of rows


def from_file(path: str, split: str, classes: int | Sequence[str] | None = None) -> ArrayDataset:
    """What `load` says of a path."""
    whole = (
        _npz(path, classes) if path.lower().endswith(".npz") else read_csv(path, classes=classes)
    )
    if not len(whole):
        raise DataError(f"{path} has no rows, expected at least two")
    if whole.classes is None and whole.t.ndim == 1 and whole.t.dtype.kind == "i":
        whole = _counted(path, whole)
    if split == "all":
        return whole
    train, test = whole.split(HELD_OUT)
    return train if split == "train" else test


def _npz(path: str, classes: int | Sequence[str] | None) -> ArrayDataset:
    x, t = read_arrays(path, "x", "t")
    image_shape = x.shape[1:] if x.ndim in (3, 4) else None
    white = None
    if x.dtype == np.uint8:
        white = 255
        x = x.astype(np.float32) / np.float32(white)
    name = os.path.basename(path)
    return ArrayDataset(_rows(x), t, classes, name=name, image_shape=image_shape, white=white)


def _rows(x: HostArray) -> HostArray:
    return x.reshape(len(x), -1) if x.ndim != 2 and len(x) else x


def _counted(path: str, whole: ArrayDataset) -> ArrayDataset:
    """With as many classes as the largest id says."""
    least, most = int(whole.t.min()), int(whole.t.max())
    if least < 0 or most >= max(FEW, len(whole)):
        raise DataError(
            f"{path}: the targets are whole numbers from {least} to {most} in {len(whole)} rows, "
            f"expected class ids from 0; if they are values to be learnt give floats (in CSV 1.0 "
            f"for 1), if there are so many classes load({path!r}, classes={most + 1})"
        )
    return ArrayDataset(
        whole.x, whole.t, most + 1,
        name=whole.name, image_shape=whole.image_shape, white=whole.white,
    )  # fmt: skip
