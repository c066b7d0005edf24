"""Transforms against SciPy, PyTorch and loops over single images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx.data import ArrayDataset, load
from nnx.data.transforms import Compose, Elastic, Flip, Normalize, Shift, bilinear, smooth
from nnx.errors import DtypeError, OptionError, ShapeError

shapes = st.one_of(
    st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 7)),
    st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 7)),
)
seeds = st.integers(0, 2**32)
ALL = (Shift(2), Flip(), Normalize(0.5, 2.0), Elastic(8, 2), Compose(Flip(), Shift(1)))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> Any:
    return rng(seed).normal(size=shape).astype(dtype)


@settings(max_examples=50, deadline=None)
@given(shape=shapes, seed=seeds, dtype=st.sampled_from(["float16", "float32", "float64"]))
def test_shape_dtype_and_argument_stay_and_the_seed_decides(
    shape: tuple[int, ...], seed: int, dtype: str
) -> None:
    x = drawn(shape, seed, dtype)
    before = x.copy()
    for transform in ALL:
        made, again = transform(x, rng(seed)), transform(x, rng(seed))
        assert (made.shape, made.dtype) == (shape, x.dtype) and not np.shares_memory(made, x)
        assert np.array_equal(made, again) and np.array_equal(x, before)


@settings(max_examples=50, deadline=None)
@given(shape=shapes, seed=seeds, pixels=st.integers(0, 9), fill=st.sampled_from([0.0, -1.5]))
def test_shift_moves_each_image_as_a_loop_does(
    shape: tuple[int, ...], seed: int, pixels: int, fill: float
) -> None:
    x = drawn(shape, seed)
    made = Shift(pixels, fill)(x, rng(seed))
    down, right = rng(seed).integers(-pixels, pixels + 1, (2, len(x), 1))[..., 0]
    h, w = shape[-2:]
    for image, moved, dy, dx in zip(x, made, down, right, strict=True):
        for i in range(h):
            for j in range(w):
                inside = 0 <= i - dy < h and 0 <= j - dx < w
                expected = image[..., i - dy, j - dx] if inside else fill
                assert np.all(moved[..., i, j] == expected)


def test_shift_draws_every_move_for_each_image() -> None:
    x = np.zeros((500, 5, 5), np.float32)
    x[:, 2, 2] = 1
    places = {tuple(map(int, np.argwhere(image)[0])) for image in Shift(1)(x, rng())}
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


@settings(max_examples=50, deadline=None)
@given(shape=shapes, seed=seeds)
def test_flip_is_one_of_two_images(shape: tuple[int, ...], seed: int) -> None:
    x = drawn(shape, seed)
    for direction, mirrored in (("horizontal", x[..., ::-1]), ("vertical", x[..., ::-1, :])):
        assert np.array_equal(Flip(direction, 1)(x, rng()), mirrored)
        assert np.array_equal(Flip(direction, 0)(x, rng()), x)
        made = Flip(direction)(x, rng(seed))
        for image, a, b in zip(made, x, mirrored, strict=True):
            assert np.array_equal(image, a) or np.array_equal(image, b)
    many = Flip()(np.tile(np.arange(2.0), (1000, 1, 1)), rng())
    assert 400 < many[:, 0, 0].sum() < 600


def test_normalize() -> None:
    x = drawn((4, 3, 5, 5), dtype=np.float64)
    mean, std = x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))
    made = Normalize(mean, std)(x)
    np.testing.assert_allclose(made.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(made.std(axis=(0, 2, 3)), 1)
    np.testing.assert_allclose(Normalize(1, 2)(x[:, 0]), (x[:, 0] - 1) / 2)
    digits = load("digits")
    made = Normalize.of(digits)(digits.x.reshape(-1, 8, 8))
    assert abs(made.mean()) < 1e-5 and abs(made.std() - 1) < 1e-5
    assert Normalize.of(ArrayDataset(np.ones((2, 4)), [0, 1])).std == 1


# Elastic


@settings(max_examples=50, deadline=None)
@given(
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    sigma=st.floats(0.3, 8),
    seed=seeds,
)
def test_smooth_is_scipys_gaussian_filter(h: int, w: int, sigma: float, seed: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    field = drawn((2, h, w), seed, np.float64)
    reach = max(1, int(np.ceil(3 * sigma)))
    for image, made in zip(field, smooth(field, sigma), strict=True):
        expected = ndimage.gaussian_filter(image, sigma, mode="constant", radius=reach)
        np.testing.assert_allclose(made, expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    c=st.integers(1, 3),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    fill=st.sampled_from([0.0, 2.5]),
    far=st.sampled_from([0.5, 3.0, 30.0]),
    seed=seeds,
)
def test_bilinear_is_scipys_map_coordinates(
    c: int, h: int, w: int, fill: float, far: float, seed: int
) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x, moves = drawn((2, c, h, w), seed, np.float64), far * drawn((2, 2, h, w), seed + 1)
    rows, columns = np.arange(h)[:, None] + moves[0], np.arange(w) + moves[1]
    made = bilinear(x, rows, columns, fill)
    for n in range(2):
        for channel in range(c):
            expected = ndimage.map_coordinates(
                x[n, channel], [rows[n], columns[n]], order=1, mode="grid-constant", cval=fill
            )
            np.testing.assert_allclose(made[n, channel], expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(c=st.integers(1, 3), h=st.integers(2, 9), w=st.integers(2, 9), seed=seeds)
def test_bilinear_is_pytorchs_grid_sample(c: int, h: int, w: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    x, moves = drawn((2, c, h, w), seed, np.float64), 2 * drawn((2, 2, h, w), seed + 1, np.float64)
    rows, columns = np.arange(h)[:, None] + moves[0], np.arange(w) + moves[1]
    grid = np.stack([2 * columns / (w - 1) - 1, 2 * rows / (h - 1) - 1], -1)
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(x), torch.from_numpy(grid), align_corners=True
    )
    np.testing.assert_allclose(bilinear(x, rows, columns, 0.0), expected.numpy(), atol=1e-9)


def test_elastic_is_the_papers_formula_image_by_image() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = drawn((3, 2, 14, 11))
    made = Elastic(34, 4)(x, rng(5))
    noise = rng(5).random((2, 3, 14, 11), np.float32) * 2 - 1
    for n in range(3):
        moves = [
            34 * ndimage.gaussian_filter(u.astype(float), 4, mode="constant", radius=12)
            for u in noise[:, n]
        ]
        at = np.indices((14, 11)) + moves
        for channel in range(2):
            expected = ndimage.map_coordinates(x[n, channel], at, order=1, mode="grid-constant")
            np.testing.assert_allclose(made[n, channel], expected, atol=1e-4)


def test_elastic_without_strength_changes_nothing_and_with_it_each_image_alone() -> None:
    x = np.tile(drawn((1, 28, 28)), (3, 1, 1))
    assert np.array_equal(Elastic(0, 4)(x, rng()), x)
    made = Elastic(34, 4)(x, rng())
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])
    # As strong as documented: columns tell how far each pixel was taken from.
    ramp = np.tile(np.arange(200, dtype=np.float32), (2, 200, 1))
    moved = (Elastic(34, 4)(ramp, rng()) - ramp)[:, 20:-20, 20:-20]
    assert 0.9 < moved.std() / (0.163 * 34 / 4) < 1.1


# What is refused, and how they are spelt


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_what_are_no_images(transform: Any) -> None:
    with pytest.raises(ShapeError, match=r"shape \(2, 9\), expected images .*image_shape=\(height"):
        transform(np.ones((2, 9), np.float32), rng())
    with pytest.raises(ShapeError, match=r"shape \(2, 0, 3\), expected images"):
        transform(np.ones((2, 0, 3), np.float32), rng())
    with pytest.raises(DtypeError, match=r"x has dtype int64, expected floats: x\.astype"):
        transform(np.ones((2, 3, 3), np.int64), rng())


WRONG: list[tuple[Any, str]] = [
    (lambda: Shift(-1), "Shift: pixels=-1, expected an int of 0 or more"),
    (lambda: Shift(10**30), r"Shift: pixels=10+, expected at most 1,000,000"),
    (lambda: Shift(1.5), r"Shift: pixels=1\.5, expected an int"),  # type: ignore[arg-type]
    (lambda: Shift(1, np.nan), "Shift: fill=nan, expected a finite number"),
    (lambda: Shift(1, "0"), "Shift: fill='0', expected a number"),  # type: ignore[arg-type]
    (lambda: Flip("up"), r"Flip\('up'\): expected 'horizontal' or 'vertical'"),
    (lambda: Flip(p=1.5), r"Flip: p=1\.5, expected a probability in 0\.\.1"),
    (lambda: Normalize(0, 0), r"Normalize\(0, 0\): expected finite numbers and std > 0"),
    (lambda: Normalize([0, 0], 1), r"mean has shape \(2,\) and std \(\); expected two numbers"),
    (lambda: Normalize.of(ArrayDataset(np.ones((0, 2)), [])), "is empty, expected at least one"),
    (lambda: Normalize([0, 1], [1, 1])(np.ones((1, 3, 2, 2))), "2 means .* with 3 channels"),
    (lambda: Elastic(-1), r"Elastic: alpha=-1, expected a number in 0\.\.1,000,000"),
    (lambda: Elastic(1e39), r"Elastic: alpha=1e\+39, expected a number in 0\.\.1,000,000"),
    (lambda: Elastic(sigma=0), r"Elastic: sigma=0, expected a number in 0\.01\.\.1000"),
    (lambda: Elastic(sigma=1e9), r"Elastic: sigma=1000000000\.0, expected a number in"),
    (lambda: Elastic(fill=np.inf), "Elastic: fill=inf, expected a finite number"),
    (lambda: Compose(Flip(), 3), "Compose: argument 1 is 3, expected a transform"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[m for _, m in WRONG])
def test_options_out_of_range(make: Any, message: str) -> None:
    with pytest.raises((OptionError, ShapeError), match=message):
        make()


def test_they_are_spelt_as_they_are_made() -> None:
    """A run is known again by it."""
    names = {"Compose": Compose, "Elastic": Elastic, "Flip": Flip, "Shift": Shift}
    for made in (*ALL, Normalize([0, 1], [2, 3])):
        assert repr(eval(repr(made), {**names, "Normalize": Normalize})) == repr(made)
    assert repr(Elastic(34.00000001, 4)) != repr(Elastic(34, 4)) != repr(Elastic(34, 4, 1e-9))


def test_the_strongest() -> None:
    x = np.ones((3, 1, 9, 5), np.float32)
    for transform in (Shift(1_000_000), Elastic(1_000_000, 0.01), Elastic(1_000_000, 1000)):
        made = transform(x, rng())
        assert made.shape == x.shape and 0 <= made.min() <= made.max() <= 1
    assert np.isfinite(Elastic(1_000_000, 0.01)(x.astype(np.float16), rng())).all()
