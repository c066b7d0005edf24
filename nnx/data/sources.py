"""Data sets by name."""

from __future__ import annotations

import os

import numpy as np

from ..errors import DataError, OptionError
from .dataset import ArrayDataset, HostArray
from .idx import read_idx

NAMES = ("digits", "fashion-mnist", "mnist")
SPLITS = {"train": "train", "test": "t10k"}  # and the prefix of MNIST's files
DIGITS_HELD_OUT = 5  # every fifth image
_DIGITS = os.path.join(os.path.dirname(__file__), "digits.npz")


def load(
    name: str, directory: str | os.PathLike[str] | None = None, split: str = "train"
) -> ArrayDataset:
    """A data set of images by name: x float32 in 0..1, one flat image per row, t int64 class ids.

    "digits"         handwritten digits of 8x8 pixels with 17 grey levels, x = pixel / 16; part of
                     nnx (nnx/data/DIGITS.txt has its source and licence). The split is fixed:
                     every fifth of the 1,797 images is for testing (359), the other 1,438 for
                     training.
    "mnist"          handwritten digits of 28x28, x = pixel / 255, 60,000 and 10,000 images
    "fashion-mnist"  the same for ten kinds of clothing

    directory   where the IDX files of the last two lie under their own names
                (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte,
                t10k-labels-idx1-ubyte), plain or with `.gz`
    split       "train" or "test"

    The result's `image_shape` is (8, 8) or (28, 28), its `classes` 10.

    Raises OptionError for another name or split, or a directory that is not wanted or missing;
    DataError for files that are missing, damaged or of other images.
    """
    if name not in NAMES:
        raise OptionError(f"load({name!r}): expected one of {', '.join(map(repr, NAMES))}")
    if split not in SPLITS:
        expected = " or ".join(map(repr, SPLITS))
        raise OptionError(f"load({name!r}, split={split!r}): expected {expected}")
    if name == "digits":
        if directory is not None:
            raise OptionError("load('digits') is a part of nnx: leave the directory out")
        return _digits(split)
    if directory is None:
        raise OptionError(
            f"load({name!r}) reads IDX files: say where they are with load({name!r}, directory=...)"
        )
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
