"""Data sets: rows and targets in memory, the embedded digits, MNIST's files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idx_files import idx

from nnx.data import ArrayDataset, load
from nnx.errors import DataError, DtypeError, LabelError, OptionError, ShapeError


def test_rows_attributes_and_indexing() -> None:
    ds = ArrayDataset(
        np.arange(6).reshape(3, 2),
        np.array([2, 0, 1], np.uint8),
        3,
        name="three",
        image_shape=(1, 2),
    )
    assert (len(ds), ds.classes, ds.name, ds.image_shape) == (3, 3, "three", (1, 2))
    assert (ds.x.dtype, ds.t.dtype) == (np.float32, np.int64)
    x, t = ds[1]
    assert (x.tolist(), int(t)) == ([2, 3], 0)
    x, t = ds[np.array([2, 0])]
    assert (x.tolist(), t.tolist()) == ([[4, 5], [0, 1]], [1, 2])
    x, t = ds[1:]
    assert (x.tolist(), t.tolist()) == ([[2, 3], [4, 5]], [0, 1])
    assert [int(ds[i][1]) for i in range(3)] == [2, 0, 1]
    assert repr(ds) == "<ArrayDataset 'three': x (3, 2), t (3,), 3 classes>"


def test_floats_keep_their_width_and_integers_are_cast() -> None:
    ds = ArrayDataset(np.ones((2, 1), np.float64), np.ones((2, 3), np.float16))
    assert (ds.x.dtype, ds.t.dtype) == (np.float64, np.float16)
    ds = ArrayDataset([[True], [False]], [True, False])
    assert (ds.x.dtype, ds.t.dtype) == (np.float32, np.int64)


def test_nothing_is_copied_that_need_not_be() -> None:
    x, t = np.ones((2, 1), np.float32), np.zeros(2, np.int64)
    ds = ArrayDataset(x, t)
    assert ds.x is x
    assert ds.t is t


@pytest.mark.parametrize(
    ("t", "message"),
    [
        ([0, 1, 3, 5], r"digits: t\[2\] is 3, expected a class id in 0\.\.2; 2 of 4 are out of"),
        ([0, -100, 1, 2], r"t\[1\] is -100, expected a class id in 0\.\.2"),
        (np.array([0, 1, 2, 2**63], np.uint64), r"t\[3\] is 9223372036854775808"),
        ([[0, 1], [1, 3], [0, 0], [0, 0]], r"t\[1, 1\] is 3"),
    ],
)
def test_class_ids_out_of_range(t: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        ArrayDataset(np.ones((4, 2)), t, 3, name="digits")


def test_without_classes_targets_are_not_checked() -> None:
    assert ArrayDataset(np.ones((2, 1)), [-100, 7]).t.tolist() == [-100, 7]


def test_float_targets_of_a_classification() -> None:
    soft = np.full((4, 3), 1 / 3)
    assert ArrayDataset(np.ones((4, 2)), soft, 3).t.dtype == np.float64
    with pytest.raises(ShapeError, match=r"shape \(4, 2\).*for 3 classes expected class ids.*4, 3"):
        ArrayDataset(np.ones((4, 2)), soft[:, :2], 3)
    with pytest.raises(ShapeError, match=r"dtype float64.*t\.astype\('int64'\)"):
        ArrayDataset(np.ones((4, 2)), np.zeros(4), 3)


def test_what_is_no_data_set() -> None:
    with pytest.raises(ShapeError, match="x has 3 rows and t has 2; expected one target for each"):
        ArrayDataset(np.ones((3, 2)), [0, 1])
    with pytest.raises(ShapeError, match="x is a single number, expected one row per example"):
        ArrayDataset(np.array(1.0), [0])
    with pytest.raises(DtypeError, match="t has dtype <U1, expected numbers"):
        ArrayDataset([[1.0]], ["a"])
    with pytest.raises(DtypeError, match="x is nested lists of unequal length"):
        ArrayDataset([[1.0], [1.0, 2.0]], [0, 1])
    with pytest.raises(DtypeError, match=r"t is a range, expected a NumPy array.*to_numpy\(t\)"):
        ArrayDataset([[1.0]], range(1))


def test_digits() -> None:
    train, test = load("digits"), load("digits", split="test")
    assert (train.x.shape, test.x.shape) == ((1438, 64), (359, 64))
    for ds in (train, test):
        assert (ds.x.dtype, ds.t.dtype) == (np.float32, np.int64)
        assert (ds.classes, ds.image_shape) == (10, (8, 8))
        assert set(np.unique(ds.x * 16)) == set(range(17))
    # The first row of the source's file optdigits.tes, and its label.
    first = "0,0,5,13,9,1,0,0,0,0,13,15,10,15,5,0,0,3,15,2,0,11,8,0,0,4,12,0,0,8,8,0"
    assert (train.x[0, :32] * 16).tolist() == [int(pixel) for pixel in first.split(",")]
    assert train.t[0] == 0
    # Images of each class, from the source's description of its test part.
    counts = np.bincount(np.concatenate([train.t, test.t]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_the_ones_that_scikit_learn_ships() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    theirs = datasets.load_digits()
    train, test = load("digits"), load("digits", split="test")
    held_out = np.arange(len(theirs.data)) % 5 == 4
    assert np.array_equal(train.x * 16, theirs.data[~held_out])
    assert np.array_equal(test.x * 16, theirs.data[held_out])
    assert np.array_equal(train.t, theirs.target[~held_out])
    assert np.array_equal(test.t, theirs.target[held_out])


def small_mnist(directory: Path, packed: Sequence[str] = (), replaced: Any = None) -> Path:
    """Four IDX files of a few images each; `replaced` is other bytes by name."""
    files = {}
    for prefix, n in (("train", 3), ("t10k", 2)):
        files[f"{prefix}-images-idx3-ubyte"] = idx([i % 256 for i in range(n * 784)], (n, 28, 28))
        files[f"{prefix}-labels-idx1-ubyte"] = idx(range(n), (n,))
    for name, content in files.items():
        content = (replaced or {}).get(name, content)
        if name in packed:
            name, content = f"{name}.gz", gzip.compress(content)
        (directory / name).write_bytes(content)
    return directory


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_from_four_files_some_of_them_packed(tmp_path: Path, name: str) -> None:
    small_mnist(tmp_path, packed=("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
    train, test = load(name, tmp_path), load(name, str(tmp_path), split="test")
    assert (train.x.shape, test.x.shape) == ((3, 784), (2, 784))
    assert (train.t.tolist(), test.t.tolist()) == ([0, 1, 2], [0, 1])
    assert train.name == f"{name} (train)"
    assert train.x[0, 255] == 1
    assert train.x[0, 51] == np.float32(0.2)
    assert (train.x.dtype, train.t.dtype, train.image_shape) == (np.float32, np.int64, (28, 28))


def test_mnist_without_its_files(tmp_path: Path) -> None:
    small_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    load("mnist", tmp_path)
    with pytest.raises(DataError) as caught:
        load("mnist", tmp_path, split="test")
    assert str(caught.value) == (
        f"load('mnist'): neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz is in "
        f"{tmp_path}"
    )
    with pytest.raises(DataError, match=r"neither train-images.*which is not a directory"):
        load("mnist", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("replaced", "error", "message"),
    [
        (
            {"train-images-idx3-ubyte": idx([0, 0, 0], (3,))},
            DataError,
            r"train-images-idx3-ubyte holds uint8 of shape \(3,\), expected images: uint8",
        ),
        (
            {"train-images-idx3-ubyte": idx([0.0] * 784, (1, 28, 28), "f")},
            DataError,
            "holds float32",
        ),
        (
            {"train-labels-idx1-ubyte": idx([0, 0], (2,))},
            DataError,
            r"train-labels-idx1-ubyte holds uint8 of shape \(2,\), expected a label for each",
        ),
        (
            {"train-labels-idx1-ubyte": idx([0, 11, 0], (3,))},
            LabelError,
            r"mnist \(train\): t\[1\] is 11, expected a class id in 0\.\.9",
        ),
        (
            {"train-images-idx3-ubyte": idx([0] * 784, (3, 28, 28))},
            DataError,
            "truncated: its header says 3 x 28 x 28 of uint8, 2352 bytes, and 784 follow",
        ),
    ],
)
def test_mnist_with_other_files(
    tmp_path: Path,
    replaced: dict[str, bytes],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        load("mnist", small_mnist(tmp_path, replaced=replaced))


def test_unknown_names_and_options(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"load\('cifar'\): expected one of 'digits', 'fash"):
        load("cifar")
    with pytest.raises(OptionError, match=r"split='valid'\): expected 'train' or 'test'"):
        load("digits", split="valid")
    with pytest.raises(OptionError, match=r"load\('digits'\) is a part of nnx: leave the direct"):
        load("digits", tmp_path)


def mnist_directory() -> Path | None:
    given = os.environ.get("NNX_MNIST_DIR")
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "mnist"
    return Path(given) if given else beside if beside.is_dir() else None


@pytest.mark.skipif(
    mnist_directory() is None, reason="set NNX_MNIST_DIR to the folder of MNIST's four files"
)
def test_the_real_mnist() -> None:
    directory = mnist_directory()
    train, test = load("mnist", directory), load("mnist", directory, split="test")
    assert (train.x.shape, test.x.shape) == ((60000, 784), (10000, 784))
    assert train.t[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.t[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The mean and deviation of the training pixels that are quoted for MNIST everywhere.
    assert train.x.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert train.x.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)
