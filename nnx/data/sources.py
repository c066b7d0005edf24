"""Data sets by name."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..errors import DataError, OptionError
from .dataset import ArrayDataset, HostArray
from .files import FILES, from_file
from .idx import read_idx

NAMES = ("digits", "fashion-mnist", "mnist")
SPLITS = {"train": "train", "test": "t10k"}  # and the prefix of MNIST's files
DIGITS_HELD_OUT = 5  # every fifth image
_DIGITS = os.path.join(os.path.dirname(__file__), "digits.npz")


def load(
    name: str | os.PathLike[str],
    directory: str | os.PathLike[str] | None = None,
    split: str = "train",
    classes: int | Sequence[str] | None = None,
) -> ArrayDataset:
    """A data set by name or from a file: x in rows of numbers, t int64 class ids.

    "digits"         handwritten digits of 8x8 pixels with 17 grey levels, x = pixel / 16; part of
                     nnx (nnx/data/DIGITS.txt has its source and licence). The split is fixed:
                     every fifth of the 1,797 images is for testing (359), the other 1,438 for
                     training.
    "mnist"          handwritten digits of 28x28, x = pixel / 255, 60,000 and 10,000 images
    "fashion-mnist"  the same for ten kinds of clothing
    a path           to a .npz file of arrays x and t (`read_npz`), or to a .csv file with the
                     targets in its last column (`read_csv`). Images become flat rows; uint8 are
                     divided by 255. A fifth of the rows is for testing: which, their number alone
                     decides

    directory   where the IDX files of MNIST or Fashion-MNIST lie under their own names
                (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte,
                t10k-labels-idx1-ubyte), plain or with `.gz`. None: they are downloaded, once, and
                checked by their SHA-256 (needs the extra `data`: pooch) into $NNX_DATA_DIR or
                the system's place for caches
    split       "train" or "test"; of a file also "all"
    classes     of a file: the number of classes, or their names. If left out, integer targets have
                as many as the largest says

    The result's `image_shape` is (8, 8), (28, 28) or what each x of the file has, its `classes` 10
    or those of the file, None where targets are no class ids.

    Raises OptionError for another name or split, or a directory that is not wanted; DataError
    for files that are missing, damaged or of other images, or cannot be downloaded.
    """
    name = os.fspath(name)
    path = name not in NAMES and name.lower().endswith(FILES)
    if not path and name not in NAMES:
        raise OptionError(
            f"load({name!r}): expected one of {', '.join(map(repr, NAMES))}, or the path of a "
            f"{' or '.join(FILES)} file"
        )
    splits = (*SPLITS, "all") if path else tuple(SPLITS)
    if split not in splits:
        expected = " or ".join(map(repr, splits))
        raise OptionError(f"load({name!r}, split={split!r}): expected {expected}")
    if path or name == "digits":
        if directory is not None:
            what = "is a file" if path else "is a part of nnx"
            raise OptionError(f"load({name!r}) {what}: leave the directory out")
        return from_file(name, split, classes) if path else _digits(split)
    if directory is None:
        from .download import fetch

        directory = fetch(name, SPLITS[split])
    return _mnist(name, os.fspath(directory), split)


def _digits(split: str) -> ArrayDataset:
    with np.load(_DIGITS, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    held_out = np.arange(1, len(labels) + 1) % DIGITS_HELD_OUT == 0
    rows = held_out if split == "test" else ~held_out
    x = _flat(images[rows], 16)
    return ArrayDataset(x, labels[rows], 10, name=f"digits ({split})", image_shape=(8, 8), white=16)


def _mnist(name: str, directory: str, split: str) -> ArrayDataset:
    images_at = _find(name, directory, f"{SPLITS[split]}-images-idx3-ubyte")
    labels_at = _find(name, directory, f"{SPLITS[split]}-labels-idx1-ubyte")
    images, labels = read_idx(images_at), read_idx(labels_at)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise DataError(
            f"{images_at} holds {images.dtype} of shape {images.shape}, expected images: uint8 "
            f"of shape (N, 28, 28)"
        )
    if labels.dtype != np.uint8 or labels.shape != (len(images),):
        raise DataError(
            f"{labels_at} holds {labels.dtype} of shape {labels.shape}, expected a label for each "
            f"image of {images_at}: uint8 of shape ({len(images)},)"
        )
    x = _flat(images, 255)
    return ArrayDataset(x, labels, 10, name=f"{name} ({split})", image_shape=(28, 28), white=255)


def _find(name: str, directory: str, stem: str) -> str:
    for candidate in (os.path.join(directory, stem), os.path.join(directory, f"{stem}.gz")):
        if os.path.exists(candidate):
            return candidate
    raise DataError(
        f"load({name!r}): neither {stem} nor {stem}.gz is in {directory}"
        f"{'' if os.path.isdir(directory) else ', which is not a directory'}"
    )


def _flat(images: HostArray, white: int) -> HostArray:
    """(N, height, width) uint8 as (N, height * width) float32 with `white` as 1."""
    x = images.reshape(len(images), -1).astype(np.float32)
    x /= np.float32(white)
    return x
