"""Update kernels: on the bare Array API standard, and NumPy's own against the portable ones."""

from __future__ import annotations

import numpy as np
import pytest

from nnx.optim import kernels


def _arguments(update, dtype, shape, seed):
    """Arrays and numbers for an update kernel; state that a square fills is not negative."""
    rng = np.random.default_rng(seed)
    numbers = {"lr": 0.1, "keep": 0.7, "rate": 0.1, "eps": 1e-6, "shrink": 0.9}
    args = []
    for name in update.signature.arrays:
        if name in numbers:
            args.append(numbers[name])
        elif name == "factor":
            args.append(np.asarray(0.5, dtype))
        else:
            a = np.asarray(rng.standard_normal(shape), dtype)
            args.append(np.asarray(np.abs(a) + 1, dtype) if name in ("s", "v") else a)
    values = {
        "weight_decay": 0.1, "momentum": 0.9, "nesterov": True, "eps": 1e-6, "alpha": 0.9,
        "beta1": 0.9, "beta2": 0.99, "value": 0.5,
    }  # fmt: skip
    return args, {name: values[name] for name in update.signature.attributes}


UPDATES = [v for v in vars(kernels).values() if type(v).__name__ == "Update"]


@pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.name)
def test_portable_kernels_run_on_the_bare_standard(update):
    xp = pytest.importorskip("array_api_strict")
    args, attrs = _arguments(update, "float32", (3, 4), 0)
    expected = update.kernel(np, *args, **attrs)
    strict = [xp.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    got = update.kernel(xp, *strict, **attrs)
    for e, g in zip(_tuple(expected), _tuple(got), strict=True):
        assert g.dtype == xp.float32
        np.testing.assert_array_equal(np.asarray(g), e)


@pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (300, 500)])
@pytest.mark.parametrize("plain", [True, False])
def test_what_numpy_overrides_gives_the_portable_values_to_the_bit(update, dtype, shape, plain):
    args, attrs = _arguments(update, dtype, shape, 1)
    if plain:
        attrs |= {k: 0.0 for k in ("weight_decay",) if k in attrs}
        attrs |= {k: False for k in ("nesterov",) if k in attrs}
    expected = update.kernel(np, *[np.array(a) if np.ndim(a) else a for a in args], **attrs)
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    held = update(*copies, **attrs)
    for e, h, i in zip(_tuple(expected), _tuple(held), update.positions, strict=True):
        assert h is copies[i], "written in place"
        np.testing.assert_array_equal(h, e)
    for i, a in enumerate(args):
        if i not in update.positions:
            np.testing.assert_array_equal(copies[i], a)


@pytest.mark.parametrize("update", [kernels.sgd, kernels.adam], ids=lambda u: u.name)
def test_numpy_overrides_write_into_arrays_that_are_not_contiguous(update):
    args, attrs = _arguments(update, "float64", (400, 300), 2)
    expected = _tuple(update.kernel(np, *args, **attrs))
    mixed = [np.asfortranarray(a) if isinstance(a, np.ndarray) else a for a in args]
    mixed[0] = np.empty((800, 300))[::2]
    mixed[0][...] = args[0]
    held = _tuple(update(*mixed, **attrs))
    assert held[0] is mixed[0]
    for e, h in zip(expected, held, strict=True):
        np.testing.assert_array_equal(h, e)


def _tuple(x):
    return x if type(x) is tuple else (x,)
