"""What a data set knows of its rows: classes' names, the images' shape, a part held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnx.data import ArrayDataset
from nnx.errors import LabelError, OptionError, ShapeError


def test_class_names() -> None:
    ds = ArrayDataset(np.ones((3, 1)), [1, 0, 1], ["ham", "spam"], name="mail")
    assert (ds.classes, ds.class_names) == (2, ("ham", "spam"))
    assert ArrayDataset([[1.0]], [0], 1).class_names is None
    with pytest.raises(LabelError, match=r"mail: t\[1\] is 2, expected a class id in 0\.\.1"):
        ArrayDataset(np.ones((2, 1)), [0, 2], ["ham", "spam"], name="mail")
    with pytest.raises(OptionError, match="mail: the class name 'ham' is given twice"):
        ArrayDataset(np.ones((1, 1)), [0], ["ham", "ham"], name="mail")
    wrong: Any
    for wrong in ("ham", ["ham", 1], [], 2.0):
        with pytest.raises(OptionError, match="expected the number of classes or a list of their"):
            ArrayDataset(np.ones((1, 1)), [0], wrong)


def test_image_shape() -> None:
    x = np.zeros((2, 12))
    for good in ((3, 4), (4, 3), (2, 2, 3)):
        assert ArrayDataset(x, [0, 1], image_shape=good).image_shape == good
    message = r"x has shape \(2, 12\) and image_shape is \(3, 3\); expected \(height, width\) or"
    with pytest.raises(ShapeError, match=message):
        ArrayDataset(x, [0, 1], image_shape=(3, 3))
    for rows, shape in ((x, (12,)), (x.reshape(2, 3, 4), (3, 4)), (x, ())):
        with pytest.raises(ShapeError, match="a flattened image in each row of x"):
            ArrayDataset(rows, [0, 1], image_shape=shape)


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(10, 0.2, 2), (11, 0.2, 2), (2, 0.9, 1), (3, 0.01, 1)]
)
def test_split(n: int, fraction: float, held_out: int) -> None:
    ds = ArrayDataset(
        np.arange(4 * n).reshape(n, 4), np.arange(n), n, name="rows", image_shape=(2, 2)
    )
    if n == 2:
        with pytest.raises(ShapeError, match="rows has 2 rows: too few to hold 90% out"):
            ds.split(fraction)
        return
    train, test = ds.split(fraction)
    assert (len(train), len(test)) == (n - held_out, held_out)
    assert sorted([*train.t, *test.t]) == list(range(n))
    for part in (train, test):
        assert part.t.tolist() == sorted(part.t)
        assert part.x[:, 0].tolist() == (4 * part.t).tolist()
        assert (part.classes, part.image_shape) == (n, (2, 2))
    assert (train.name, test.name) == ("rows (train)", "rows (held out)")


def test_a_split_follows_from_its_seed() -> None:
    ds = ArrayDataset(np.zeros((100, 1)), np.arange(100) % 2, ["even", "odd"])
    picks = [ds.split(0.5, seed)[1].t.tolist() for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert ds.split(0.5)[0].class_names == ("even", "odd")
    held_out = ArrayDataset(np.arange(10)[:, None], np.zeros(10)).split(0.3)[1]
    assert held_out.x[:, 0].tolist() == [2, 4, 6]  # in every version


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(OptionError, match=r"expected a fraction between 0 and 1"):
        ArrayDataset(np.ones((4, 1)), np.zeros(4)).split(fraction)
    with pytest.raises(OptionError, match="split: seed=-1, expected an int of 0 or more"):
        ArrayDataset(np.ones((4, 1)), np.zeros(4)).split(0.5, -1)
