"""Initialisers: their distributions, fans, seeds and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from nnx import init
from nnx.errors import OptionError, ShapeError
from nnx.random import generator, seed

DENSE, CONV = (300, 200), (40, 30, 5, 3)
FANS = {DENSE: (300, 200), CONV: (30 * 15, 40 * 15)}


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [DENSE, CONV])
@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he", lambda fan_in, fan_out: 2 / fan_in),
        ("glorot", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("lecun", lambda fan_in, fan_out: 1 / fan_in),
    ],
)
def test_variance_and_bounds(name, variance, shape):
    std = math.sqrt(variance(*FANS[shape]))
    for kind in ("normal", "uniform"):
        w = getattr(init, f"{name}_{kind}")(shape, rng())
        assert w.shape == shape and w.dtype == np.float64
        assert abs(w.std() / std - 1) < 0.02
        assert abs(w.mean()) < 5 * std / math.sqrt(w.size)
        if kind == "uniform":
            bound = std * math.sqrt(3)
            assert 0.99 * bound < np.abs(w).max() <= bound
        else:
            within = (np.abs(w) < std).mean()
            assert abs(within - math.erf(1 / math.sqrt(2))) < 0.02


def test_fans_are_pytorchs_for_convolutions():
    nn_init = pytest.importorskip("torch.nn.init")
    import torch

    assert init.fans(CONV) == nn_init._calculate_fan_in_and_fan_out(torch.empty(CONV))
    assert init.fans((64, 100)) == (64, 100)  # x @ W: PyTorch's weight is the transpose


def test_normal_uniform_constant_zeros_ones():
    w = init.normal(mean=3, std=0.5)((100, 100), rng())
    assert abs(w.mean() - 3) < 0.03 and abs(w.std() - 0.5) < 0.02
    w = init.uniform(low=-1, high=3)((100, 100), rng())
    assert -1 <= w.min() < -0.99 and 2.99 < w.max() < 3
    assert (init.constant(0.1)((3,), rng()) == 0.1).all()
    assert (init.zeros((3,)) == 0).all() and (init.ones((3,)) == 1).all()
    for initial in (init.normal(), init.uniform(), init.constant(1), init.zeros, init.ones):
        w = initial((4,), rng())
        assert w.shape == (4,) and w.dtype == np.float64


@pytest.mark.parametrize("shape", [(6, 6), (8, 3), (3, 8), (4, 3, 2, 2), (20, 2, 3, 1)])
def test_orthogonal(shape):
    w = init.orthogonal(gain=2)(shape, rng())
    assert w.shape == shape and w.dtype == np.float64 and w.flags.c_contiguous
    m = w.reshape(shape[0], -1)
    square = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(square, 4 * np.eye(min(m.shape)), atol=1e-12)


def test_orthogonal_has_no_preferred_sign():
    diagonal = [init.orthogonal()((3, 3), np.random.default_rng(i))[0, 0] for i in range(200)]
    assert abs(np.mean(diagonal)) < 0.15


def test_the_same_generator_state_gives_the_same_weights():
    for make in (init.he_normal, init.glorot_uniform, init.normal(), init.orthogonal()):
        np.testing.assert_array_equal(make(DENSE, rng()), make(DENSE, rng()))
        r = rng()
        assert (make(DENSE, r) != make(DENSE, r)).any()


@pytest.mark.parametrize("n", ["a", -1, 1.5, True, None])
def test_what_is_no_seed(n):
    with pytest.raises(nnx.OptionError, match=r"seed\(.*\): expected an int of at least 0"):
        seed(n)


@pytest.mark.parametrize(
    "make",
    [
        lambda W: nnx.layers.Linear(2, 3, W_init=W),
        lambda W: nnx.layers.Linear(2, 3, b_init=W),
        lambda W: nnx.layers.Conv2d(2, 3, 3, W_init=W),
        lambda W: nnx.layers.Embedding(2, 3, W_init=W),
        lambda W: nnx.layers.LearnedPositions(2, 3, P_init=W),
    ],
)
def test_what_is_no_initialiser(make):
    with pytest.raises(nnx.OptionError, match="an initialiser is 'he', expected a function of"):
        make("he")
    with pytest.raises(nnx.OptionError, match="an initialiser is array"):
        make(np.ones((2, 3)))
    with pytest.raises(nnx.OptionError, match=r"init.normal makes .*; write init.normal\(...\)"):
        make(init.normal)


def test_without_a_generator_nnx_seed_decides():
    state = generator().bit_generator.state
    try:
        seed(3)
        a = init.he_normal((4, 4))
        seed(3)
        b = init.he_normal((4, 4))
    finally:
        generator().bit_generator.state = state
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, init.he_normal((4, 4), np.random.default_rng(3)))


def test_empty_weights():
    assert init.he_normal((0, 3), rng()).shape == (0, 3)
    assert init.orthogonal()((0, 3), rng()).shape == (0, 3)


@pytest.mark.parametrize("name", ["he_normal", "glorot_uniform", "lecun_normal"])
def test_fans_need_two_axes(name):
    message = rf"{name}: the shape \(5,\) has no fan_in and fan_out; expected \(in, out\)"
    with pytest.raises(ShapeError, match=message):
        getattr(init, name)((5,), rng())
    with pytest.raises(ShapeError, match="orthogonal: the shape"):
        init.orthogonal()((5,), rng())


def test_option_errors():
    with pytest.raises(OptionError, match=r"normal: std=-1, expected a standard deviation >= 0"):
        init.normal(std=-1)
    with pytest.raises(OptionError, match=r"uniform: low=1, high=0, expected low <= high"):
        init.uniform(low=1, high=0)
    with pytest.raises(OptionError, match=r"rng is int 7, expected .*; write np\.random\.default"):
        init.he_normal((2, 2), 7)
