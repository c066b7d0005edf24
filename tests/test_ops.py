"""What holds for every op, on every sample of it, on the backend under test."""

from __future__ import annotations

import itertools
from typing import Any

import calculus
import numpy as np
import pytest
import recording
import samples
from calculus import Host, host, outputs, placed, smooth_positions
from makers import Case, Maker

import nnx
from nnx.backend import override_for

FLOATS = ("float32", "float64")
Attrs = dict[str, Any]
each_case = pytest.mark.parametrize("case", samples.CASES, ids=lambda c: c.id)
each_dtype = pytest.mark.parametrize("dtype", FLOATS)
with_derivative = pytest.mark.parametrize(
    "case", [c for c in samples.CASES if c.op.differentiable], ids=lambda c: c.id
)
ELEMENTWISE = sorted(set(samples.ELEMENTWISE) - {"astype", "dropout"})


@pytest.fixture(autouse=True)
def supported(request: pytest.FixtureRequest) -> None:
    """Cases beyond the standard are for libraries that go beyond it."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if {"case", "backend"} <= parameters.keys() and not parameters["case"].standard:
        calculus.skip_where_strict(request.getfixturevalue("backend"))


def test_every_op_has_samples() -> None:
    assert set(samples.SAMPLES) == set(samples.ops())


def test_samples_cover_what_ops_must_stand() -> None:
    """Arrays without elements everywhere, 0-d arrays and broadcasting wherever they make sense."""
    for name, cases in samples.SAMPLES.items():
        made = [[a.shape for a in c.args if isinstance(a, Maker)] for c in cases]
        assert any(0 in shape for shapes in made for shape in shapes), name
        assert name in samples.NEEDS_AN_AXIS or any(() in shapes for shapes in made), name
    for name in ("add", "subtract", "multiply", "divide", "pow", "maximum", "minimum", "where"):
        assert any(len({a.shape for a in c.args if isinstance(a, Maker)}) > 1
                   for c in samples.SAMPLES[name])  # fmt: skip


def test_attributes_are_all_sampled() -> None:
    for name, op in samples.ops().items():
        given = {k for c in samples.SAMPLES[name] for k in c.attrs}
        assert set(op.signature.attributes) <= given, name


@pytest.mark.gpu
def test_the_suite_runs_on_cupy() -> None:
    info = nnx.backends().get("cupy")
    if info is None or not info.available:
        pytest.skip(info.reason if info else "nnx is not installed, so cupy is not registered")


def on_backend(args: list[Any], attrs: Attrs) -> tuple[list[Any], Attrs]:
    return list(map(placed, args)), {k: placed(v) for k, v in attrs.items()}


@each_dtype
@each_case
def test_dtype_is_kept_and_results_are_arrays(case: Case, dtype: str, backend: nnx.Backend) -> None:
    args, attrs = on_backend(*case.make(dtype))
    y = outputs(case.op(*args, **attrs))
    expected = case.attrs["dtype"] if case.op.name == "astype" else dtype
    assert calculus.owned(backend, y)
    assert {backend.dtype_name(v) for v in y} == {expected}
    douts = [nnx.asarray(d) for d in calculus.like(host(y))]
    again, grads = calculus.gradients(case.op, args, attrs, douts)
    for bare, recorded in zip(y, again, strict=True):
        assert np.array_equal(nnx.to_numpy(bare), nnx.to_numpy(recorded))
    assert calculus.owned(backend, [*again, *grads])
    assert {backend.dtype_name(g) for g in grads} <= {dtype}
    shapes = [tuple(args[i].shape) for i in smooth_positions(case.op, args)]
    assert [tuple(g.shape) for g in grads] == shapes


@each_case
def test_inputs_stay_as_they_are(case: Case, backend: nnx.Backend) -> None:
    args, attrs = case.make("float64")
    given, placed_attrs = on_backend(args, attrs)
    y = calculus.value(case.op, args, attrs)
    douts = [nnx.asarray(d) for d in calculus.like(y)]
    before = host(douts)
    calculus.gradients(case.op, given, placed_attrs, douts)
    for a, b in zip(args, given, strict=True):
        assert not isinstance(a, np.ndarray) or np.array_equal(a, nnx.to_numpy(b))
    for a, b in zip(before, douts, strict=True):
        assert np.array_equal(a, nnx.to_numpy(b))


LAYOUTS = ("transposed", "strided", "reversed")


def laid_out(a: Host, layout: str) -> Any:
    """The same values in memory of another order, made by the backend's own indexing."""
    every = (slice(None, None, 2),) * a.ndim
    if layout == "transposed":
        return nnx.permute_dims(nnx.asarray(a.T.copy()), tuple(reversed(range(a.ndim))))
    if layout == "reversed":
        back = (slice(None, None, -1),) * a.ndim
        return nnx.asarray(a[back].copy())[back]
    wide = np.full([2 * n for n in a.shape], 7, a.dtype)
    wide[every] = a
    return nnx.asarray(wide)[every]


@pytest.mark.parametrize("layout", LAYOUTS)
@each_case
def test_memory_layout_does_not_matter(case: Case, layout: str, backend: nnx.Backend) -> None:
    args, made = case.make("float64")
    straight, attrs = on_backend(args, made)
    other = [
        laid_out(a, layout) if isinstance(a, np.ndarray) and a.ndim else placed(a) for a in args
    ]
    y = calculus.value(case.op, args, made)
    douts = calculus.like(y)
    turned = [laid_out(d, layout) if d.ndim else placed(d) for d in douts]
    expected = calculus.gradients(case.op, straight, attrs, [placed(d) for d in douts])
    found = calculus.gradients(case.op, other, attrs, turned)
    for a, b in zip(itertools.chain(*expected), itertools.chain(*found), strict=True):
        np.testing.assert_allclose(nnx.to_numpy(b), nnx.to_numpy(a), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", [0, 1])
@with_derivative
def test_backward_is_the_adjoint_of_forward(case: Case, seed: int, backend: nnx.Backend) -> None:
    """<J v, w> = <v, J^T w>, with J v by a central difference."""
    if not case.smooth:
        pytest.skip("a cast to float32 is too coarse for a difference; PyTorch is its oracle")
    args, attrs = case.make("float64", seed)
    places = smooth_positions(case.op, args)
    v = calculus.like([args[i] for i in places], seed)
    jv = calculus.directional(case.op, args, attrs, places, v)
    w = calculus.like(jv, seed + 7)
    _, grads = calculus.gradients(case.op, *on_backend(args, attrs), [nnx.asarray(d) for d in w])
    left, right = calculus.inner(jv, w), calculus.inner(v, host(grads))
    assert left == pytest.approx(right, rel=1e-6, abs=1e-7)


@with_derivative
def test_each_entry_of_each_gradient(case: Case, backend: nnx.Backend) -> None:
    if not case.smooth:
        pytest.skip("a cast to float32 is too coarse for a difference; PyTorch is its oracle")
    args, attrs = case.make("float64", 2)
    places = smooth_positions(case.op, args)
    w = calculus.like(calculus.value(case.op, args, attrs))
    _, grads = calculus.gradients(case.op, *on_backend(args, attrs), [nnx.asarray(d) for d in w])
    for place, g in zip(places, host(grads), strict=True):
        expected = np.zeros(args[place].shape)
        for entry in np.ndindex(expected.shape):
            step = np.zeros(expected.shape)
            step[entry] = 1
            jv = calculus.directional(case.op, args, attrs, [place], [step])
            expected[entry] = calculus.inner(jv, w)
        np.testing.assert_allclose(g, expected, rtol=1e-6, atol=1e-7)


@each_case
def test_float32_agrees_with_float64(case: Case, backend: nnx.Backend) -> None:
    args, attrs = case.make("float32", 3)
    wide = [a.astype("float64") if _is_float(a) else a for a in args]
    douts = calculus.like(calculus.value(case.op, args, attrs))
    narrow = calculus.gradients(case.op, *on_backend(args, attrs), [placed(d) for d in douts])
    if case.op.name != "astype":
        douts = [d.astype("float64") for d in douts]
    exact = calculus.gradients(case.op, *on_backend(wide, attrs), [placed(d) for d in douts])
    for a, b in zip(itertools.chain(*narrow), itertools.chain(*exact), strict=True):
        np.testing.assert_allclose(nnx.to_numpy(a), nnx.to_numpy(b), rtol=2e-5, atol=2e-6)


@each_case
def test_recorded_calls_replay_to_the_same_values(case: Case, backend: nnx.Backend) -> None:
    """The portable forward and every derivative, traced on one draw and replayed on another."""
    now, later = (case.make("float64", seed) for seed in (4, 5))
    attrs = {k: placed(v) for k, v in now[1].items()}  # attributes belong to the call
    log = recording.Log(backend)
    args = [recording.Traced(log, placed(a)) if isinstance(a, np.ndarray) else a for a in now[0]]
    y, traced_douts, grads = _portable(
        case, log, args, attrs, lambda d: recording.Traced(log, placed(d))
    )
    fresh = [placed(d) for d in calculus.like(host([t.array for t in traced_douts]), 9)]
    eager_y, _, eager_grads = _portable(
        case, backend.xp, list(map(placed, later[0])), attrs, None, fresh
    )
    arrays = [(t, a) for t, a in zip(args, later[0], strict=True) if isinstance(a, np.ndarray)]
    value_of = log.replay(
        [*((t, placed(a)) for t, a in arrays), *zip(traced_douts, fresh, strict=True)]
    )
    assert log.calls or case.op.name in ("split", "getitem", "clip", "broadcast_to")
    for traced, eager in zip([*y, *grads], [*eager_y, *eager_grads], strict=True):
        assert np.array_equal(
            nnx.to_numpy(backend.result(value_of(traced))), nnx.to_numpy(backend.result(eager)),
            equal_nan=True,
        )  # fmt: skip


def test_overrides_equal_portable_kernels(backend: nnx.Backend) -> None:
    for case in samples.CASES:
        if case.standard and override_for(backend, case.op) is not None:
            check_override(case, backend)


def check_override(case: Case, backend: nnx.Backend) -> None:
    args, attrs = on_backend(*case.make("float64", 6))
    y = host(outputs(case.op(*args, **attrs)))
    douts = [placed(d) for d in calculus.like(y)]
    expected = _portable(case, backend.xp, args, attrs, None, douts)
    found = calculus.gradients(case.op, args, attrs, douts)
    portable = [backend.result(a) for a in (*expected[0], *expected[2])]
    for a, b in zip([*found[0], *found[1]], portable, strict=True):
        a, b = host([a, b])
        b = np.sum(b, axis=tuple(range(b.ndim - a.ndim)))
        b = np.sum(b, axis=tuple(i for i, n in enumerate(a.shape) if n < b.shape[i]), keepdims=True)
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15, err_msg=case.id)


def _portable(
    case: Case, xp: Any, args: list[Any], attrs: dict[str, Any], dout: Any, douts: Any = None
) -> tuple[list[Any], list[Any], list[Any]]:
    """The op's own kernels called by hand: outputs, their gradients, the gradients found."""
    op, sig = case.op, case.op.signature
    y = op.forward(xp, *args, **attrs)
    y, extras = y if type(y) is tuple and type(y[-1]) is dict else (y, {})
    if douts is None:
        shown = [np.zeros(v.shape, "float64") for v in outputs(y)]
        douts = [dout(d) for d in calculus.like(shown)]
    names = (
        {sig.arrays[0]: tuple(args)} if sig.variadic else dict(zip(sig.arrays, args, strict=False))
    )
    known = {**sig.defaults, **dict.fromkeys(sig.arrays), **names, **attrs, **extras}
    known.setdefault("y", y)  # losses call their first argument so
    grads: list[Any] = []
    for d in op.derivatives:
        there = [sig.variadic or hasattr(known[a], "shape") for a in d.arguments]
        if any(there):
            dy = tuple(douts) if type(y) is tuple else douts[0]
            found = d.kernel(xp, dy, *[known[name] for name in d.reads])
            found = found if type(found) is tuple else (found,)
            grads += found if sig.variadic else itertools.compress(found, there)
    return list(outputs(y)), douts, grads


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_python_numbers_in_numbers_out(name: str) -> None:
    """As arrays give them, and so do the derivatives."""
    op = samples.ops()[name]
    count = sum(isinstance(a, Maker) for a in samples.SAMPLES[name][0].args)
    args: list[Any] = [0.75, 1.25, 0.5][:count]
    if name == "where":
        args[0] = True
    arrays = [nnx.asarray(np.asarray(a)) for a in args]
    y, expected = op(*args), nnx.to_numpy(op(*arrays))
    assert type(y) is float
    assert y == pytest.approx(expected.item(), rel=1e-14)
    for i in smooth_positions(op, arrays):
        slope = nnx.grad(op, i)(*args)
        assert type(slope) in (int, float)  # the derivative of x + 2 is the int 1
        assert slope == pytest.approx(nnx.to_numpy(nnx.grad(op, i)(*arrays)).item(), rel=1e-13)


@pytest.mark.parametrize("kind", ["int32", "int64"])
@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "negative", "maximum", "relu", "sum"]
)
def test_ints_stay_ints(name: str, kind: str, backend: nnx.Backend) -> None:
    op = samples.ops()[name]
    args = [nnx.asarray(np.asarray([-2, 0, 3], kind)) for _ in op.signature.arrays]
    expected = "int64" if name == "sum" else kind  # the standard sums in the default int
    assert backend.dtype_name(op(*args)) == expected


def _is_float(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"
