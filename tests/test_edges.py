"""Infinities, NaN and other edges, as the ops' documentation has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import calculus
import numpy as np
import pytest
import samples

import nnx

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """NumPy warns where IEEE 754 has an infinity or NaN; here they are expected."""
    with np.errstate(all="ignore"):
        yield


def value(name: str, *args: Any, **attrs: Any) -> Any:
    (y,) = calculus.value(samples.ops()[name], [np.asarray(a, "float64") for a in args], attrs)
    return y


def slope(name: str, *args: Any, **attrs: Any) -> Any:
    """The gradients of the sum, of the first argument."""
    op = samples.ops()[name]
    arrays = [np.asarray(a, "float64") for a in args]
    ones = [np.ones_like(v) for v in calculus.value(op, arrays, attrs)]
    _, grads = calculus.gradients(
        op, list(map(calculus.placed, arrays)), attrs, list(map(calculus.placed, ones))
    )
    return calculus.host(grads)[0]


def error(kind: type[nnx.NnxError], f: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(kind) as caught:
        f(*args)
    return str(caught.value)


AT_THE_ENDS = {  # value and slope at -1e4 and 1e4, where a naive formula overflows
    "sigmoid": ((0, 0), (1, 0)), "tanh": ((-1, 0), (1, 0)), "softplus": ((0, 0), (1e4, 1)),
    "silu": ((0, 0), (1e4, 1)), "gelu": ((0, 0), (1e4, 1)), "elu": ((-1, 0), (1e4, 1)),
    "erf": ((-1, 0), (1, 0)), "relu": ((0, 0), (1e4, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_THE_ENDS)
def test_nothing_overflows(name: str, backend: nnx.Backend) -> None:
    ys, slopes = zip(*AT_THE_ENDS[name], strict=True)
    assert value(name, [-1e4, 1e4]).tolist() == pytest.approx(ys, abs=1e-300)
    assert slope(name, [-1e4, 1e4]).tolist() == pytest.approx(slopes, abs=1e-300)


def test_gelu_with_tanh_at_the_ends(backend: nnx.Backend) -> None:
    assert value("gelu", [-1e4, 1e4], approximate="tanh").tolist() == [0.0, 1e4]
    assert slope("gelu", [-1e4, 1e4], approximate="tanh").tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [("sigmoid", 0, 1), ("tanh", -1, 1), ("softplus", 0, INF), ("relu", 0, INF), ("erf", -1, 1),
     ("elu", -1, INF), ("exp", 0, INF), ("expm1", -1, INF)],
)  # fmt: skip
def test_at_infinity(name: str, lowest: float, highest: float, backend: nnx.Backend) -> None:
    assert value(name, [-INF, INF]).tolist() == [lowest, highest]


@pytest.mark.parametrize(
    "name", sorted(set(samples.ELEMENTWISE) - {"astype", "dropout", "where", "pow"})
)
def test_nan_stays_nan(name: str, backend: nnx.Backend) -> None:
    op = samples.ops()[name]
    others = [1.0] * (len(op.signature.arrays) - 1)
    assert np.isnan(value(name, [NAN], *others)).all()


def test_nan_of_either_argument(backend: nnx.Backend) -> None:
    for name in ("maximum", "minimum"):
        assert np.isnan(value(name, [NAN, 1.0], [1.0, NAN])).all()
    for name in ("max", "min", "sum", "mean", "var"):
        assert np.isnan(value(name, [1.0, NAN]))


def test_log_and_sqrt_at_the_edge_of_their_domain(backend: nnx.Backend) -> None:
    assert value("log", [0.0])[0] == -INF and np.isnan(value("log", [-1.0])[0])
    assert np.isnan(value("sqrt", [-1.0])[0]) and slope("sqrt", [0.0])[0] == INF


def test_division_by_zero(backend: nnx.Backend) -> None:
    y = value("divide", [1.0, -1.0, 0.0], [0.0, 0.0, 0.0])
    assert y[:2].tolist() == [INF, -INF] and np.isnan(y[2])


def test_python_numbers_at_the_edges() -> None:
    """As arrays: infinity or NaN where `math` or Python raises."""
    assert nnx.exp(1e4) == INF and nnx.expm1(1e4) == INF
    assert nnx.log(0.0) == -INF and math.isnan(nnx.log(-1.0)) and nnx.log1p(-1) == -INF
    assert math.isnan(nnx.sqrt(-1.0))
    assert (
        nnx.divide(1.0, 0.0) == INF and nnx.divide(-1, 0) == -INF and math.isnan(nnx.divide(0, 0))
    )
    assert nnx.divide(1.0, -0.0) == -INF
    assert nnx.pow(10.0, 400) == INF and nnx.pow(0.0, -1) == INF and math.isnan(nnx.pow(-8.0, 0.5))
    assert nnx.grad(nnx.log)(0.0) == INF and nnx.grad(nnx.sqrt)(0.0) == INF
    assert nnx.sigmoid(-1e4) == 0.0 and nnx.sigmoid(1e4) == 1.0 and nnx.softplus(1e4) == 1e4


def test_softmax_of_large_and_masked_logits(backend: nnx.Backend) -> None:
    assert value("softmax", [1e300, 1e300, -1e300]).tolist() == [0.5, 0.5, 0.0]
    assert value("softmax", [0.0, -INF]).tolist() == [1.0, 0.0]
    assert value("log_softmax", [1e4, 0.0]).tolist() == [0.0, -1e4]
    assert np.isnan(value("softmax", [-INF, -INF])).all()


def test_logsumexp_of_infinities(backend: nnx.Backend) -> None:
    assert value("logsumexp", [-INF, -INF]) == -INF and value("logsumexp", [INF, 0.0]) == INF
    assert value("logsumexp", [1e4, 1e4]) == 1e4 + math.log(2)
    assert slope("logsumexp", [0.0, -INF]).tolist() == [1.0, 0.0]
    assert slope("logsumexp", [-INF, -INF]).tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(slope("logsumexp", [INF, 0.0, 2.0]), [NAN, 0.0, 0.0])
    np.testing.assert_array_equal(slope("logsumexp", [NAN, 0.0]), [NAN, NAN])


def test_categorical_crossentropy_with_probability_zero(backend: nnx.Backend) -> None:
    """0 ln 0 counts 0; a target on a probability of 0 is infinitely wrong."""
    assert value("categorical_crossentropy", [[0.0, 1.0]], [[0.0, 1.0]]) == 0
    assert slope("categorical_crossentropy", [[0.0, 1.0]], [[0.0, 1.0]]).tolist() == [[0.0, -0.5]]
    assert value("categorical_crossentropy", [[0.0, 1.0]], [[1.0, 0.0]]) == INF


def test_sigmoid_cross_entropy_of_large_logits(backend: nnx.Backend) -> None:
    t = [1.0, 0.0, 0.0, 1.0]
    for far in (1e4, INF):
        x = [far, -far, far, -far]
        assert value("sigmoid_cross_entropy", x, t, reduction="none").tolist() == [0, 0, far, far]
        assert slope("sigmoid_cross_entropy", x, t, reduction="none").tolist() == [0, 0, 1, -1]


def test_means_and_variances_of_nothing(backend: nnx.Backend) -> None:
    """NaN, as NumPy has it, without a warning turned error on the way back."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert np.isnan(value("mean", np.zeros((0, 3)))) and np.isnan(
            value("var", [1.0], correction=1)
        )
        assert slope("mean", np.zeros((0, 3))).shape == (0, 3)
        assert np.isnan(slope("var", [1.0], correction=1)).all()
        assert np.isnan(value("mean_squared_error", np.zeros((0, 3)), np.zeros((0, 3))))


def test_axes_that_are_not_there(backend: nnx.Backend) -> None:
    x, ids = nnx.asarray(np.ones((2, 3))), nnx.asarray(np.array([0]))
    for name, call in {
        "take": lambda axis: nnx.take(x, ids, axis=axis),
        "split": lambda axis: nnx.split(x, 1, axis=axis),
        "concat": lambda axis: nnx.concat(x, x, axis=axis),
    }.items():
        for axis in (2, -3, None):
            assert error(nnx.ShapeError, call, axis) == (
                f"{name}: axis={axis}, expected an int for an array of 2 axes"
            )
    for op in (nnx.sum, nnx.softmax, nnx.max):
        with pytest.raises(nnx.ShapeError, match=rf"^{op.name}\(x: \(2, 3\) float64, axis=2\): "):
            op(x, axis=2)


def test_pieces_that_do_not_fit(backend: nnx.Backend) -> None:
    x = nnx.asarray(np.ones((5, 2)))
    assert error(nnx.ShapeError, nnx.split, x, 2) == (
        "split: axis 0 of length 5 has no 2 equal pieces"
    )
    assert error(nnx.ShapeError, nnx.split, x, (2, 2)) == (
        "split: sizes (2, 2) do not add up to 5, the length of axis 0"
    )
    assert error(nnx.ShapeError, nnx.concat, []) == (
        "concat: expected arrays of at least one axis, got 0 argument(s)"
    )
    assert error(nnx.ShapeError, nnx.stack) == "stack: expected at least one array, got none"


def test_a_cast_to_ints_has_no_slope(backend: nnx.Backend) -> None:
    x = nnx.Tensor(nnx.asarray(np.array([1.5, 2.5])), requires_grad=True)
    nnx.sum(nnx.astype(nnx.astype(x, "int32"), "float64") * x).backward()
    assert nnx.to_numpy(x.grad).tolist() == [1.0, 2.0]


def test_a_dtype_that_is_none(backend: nnx.Backend) -> None:
    x = nnx.asarray([1.0])
    assert error(nnx.DtypeError, nnx.astype, x, "flaot32").startswith(
        "astype: dtype='flaot32', expected one of float16, float32, float64, "
    )


def test_options_out_of_range(backend: nnx.Backend) -> None:
    x = nnx.asarray(np.ones((2, 3)))
    t = nnx.asarray(np.array([0, 1]))
    for call, message in (
        (lambda: nnx.softmax_cross_entropy(x, t, reduction="avg"),
         "softmax_cross_entropy: reduction='avg', expected 'mean' or 'sum' or 'none'"),
        (lambda: nnx.softmax_cross_entropy(x, t, label_smoothing=1.5),
         "softmax_cross_entropy: label_smoothing=1.5, expected 0 <= e < 1"),
        (lambda: nnx.huber(x, x, delta=0), "huber: delta=0, expected a number above 0"),
        (lambda: nnx.gelu(x, approximate="erf"),
         "gelu: approximate='erf', expected 'none' or 'tanh'"),
        (lambda: nnx.dropout(x, x, p=1),
         "dropout: p=1, expected a probability of dropping in [0, 1)"),
    ):  # fmt: skip
        assert error(nnx.OptionError, call) == message


def test_targets_that_do_not_fit(backend: nnx.Backend) -> None:
    x = nnx.asarray(np.ones((2, 3)))
    for t, kind, message in (
        (np.array([0, 3]), nnx.LabelError, "class id 3 at t[1], expected 0..2 for 3 classes"),
        (np.array([-1, 0]), nnx.LabelError, "class id -1 at t[0], expected 0..2 for 3 classes"),
        (np.array([0.0, 1.0]), nnx.DtypeError,
         "class ids t are float64, expected ints; write nnx.asarray(t, 'int64'), or give one-hot "
         "targets of shape (2, 3)"),
        (np.ones((3, 2)), nnx.ShapeError,
         "the logits x have shape (2, 3), the targets t (3, 2); expected class ids (2,) or one-hot "
         "or soft targets (2, 3)"),
    ):  # fmt: skip
        if kind is nnx.LabelError and not backend.on_host:
            continue  # reading ids would cost a synchronisation
        assert error(kind, nnx.softmax_cross_entropy, x, nnx.asarray(t)) == (
            f"softmax_cross_entropy: {message}"
        )
    ids, weight = nnx.asarray(np.array([0, 1])), nnx.asarray(np.ones(2))
    assert error(nnx.ShapeError, nnx.softmax_cross_entropy, x, ids, weight) == (
        "softmax_cross_entropy: weight has shape (2,), expected (3,)"
    )
    assert error(nnx.ShapeError, nnx.mean_squared_error, x, nnx.asarray(np.ones((2, 1)))) == (
        "mean_squared_error: the prediction has shape (2, 3), the target t (2, 1); they must be "
        "equal (reshape one of them)"
    )


def test_int_and_bool_targets_are_cast(backend: nnx.Backend) -> None:
    y, t = np.array([0.25, 0.75]), np.array([0, 1])
    for name in ("mean_squared_error", "mean_absolute_error", "huber", "categorical_crossentropy",
                 "sigmoid_cross_entropy"):  # fmt: skip
        expected = value(name, y, t.astype("float64"))
        for kind in ("int64", "bool"):
            loss = getattr(nnx, name)(nnx.asarray(y), nnx.asarray(t.astype(kind)))
            assert nnx.to_numpy(loss) == expected


@pytest.mark.parametrize("name", ["max", "min", "logsumexp", "softmax", "log_softmax"])
def test_no_largest_of_nothing(name: str, backend: nnx.Backend) -> None:
    with pytest.raises(nnx.ShapeError, match=rf"{name}\(x: \(0,\) float64"):
        value(name, np.zeros(0))


@pytest.mark.parametrize("size", [0.3, 3.0, 30.0])
def test_erf_is_libm_s(size: float, backend: nnx.Backend) -> None:
    x = np.random.default_rng(0).uniform(-size, size, 500)
    expected = [math.erf(v) for v in x]
    np.testing.assert_allclose(value("erf", x), expected, rtol=1e-15)


def test_pow_at_zero(backend: nnx.Backend) -> None:
    """As documented, and as PyTorch has it: 0 for x1 where x2 = 0, 0 for x2 where 0 = x1 <= x2."""
    op, args = nnx.pow, [np.array([0.0, 0.0, 0.0]), np.array([0.0, 2.0, -1.0])]
    _, (dx1, dx2) = calculus.gradients(
        op, [calculus.placed(a) for a in args], {}, [calculus.placed(np.ones(3))]
    )
    assert nnx.to_numpy(dx1).tolist() == [0.0, 0.0, -INF]
    assert nnx.to_numpy(dx2).tolist() == [0.0, 0.0, -INF]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ignored_rows_leave_the_others_alone(
    dtype: str, reduction: str, backend: nnx.Backend
) -> None:
    """Plain class ids, which backends have kernels of their own for; the first row counts."""
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(dtype)
    t = np.array([3, -100, 1, -100, 0])
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    expected = p - np.eye(4)[np.maximum(t, 0)]
    expected[t < 0] = 0
    if reduction == "mean":
        expected /= 3
    logits = nnx.Tensor(nnx.asarray(x), requires_grad=True)
    nnx.softmax_cross_entropy(logits, nnx.asarray(t), reduction=reduction).backward()
    np.testing.assert_allclose(nnx.to_numpy(logits.grad), expected, atol=1e-6)
