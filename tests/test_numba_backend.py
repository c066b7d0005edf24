"""The numba backend: each compiled loop against NumPy's and the portable kernel.

Tolerance: float32 4e-6 and float64 1e-14, relative to the larger of 1 and the value (a loop's exp
is within 2 units in the last place, sums of a row add a few more); optimizers are equal.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plugin_dirs
import pytest
from capture_tools import batches, both, equal, model, trainer, values
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_optim_kernels import _arguments

import nnx
from nnx import cli, optim
from nnx import layers as L
from nnx.capture import capture
from nnx.optim import kernels

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None,
    reason="numba is not installed: pip install '.[numba]'",
)
TOLERANCE = {"float32": 4e-6, "float64": 1e-14}
ELEMENTWISE = {
    "relu": {}, "sigmoid": {}, "tanh": {}, "silu": {}, "softplus": {},
    "gelu": {"approximate": "none"}, "gelu ": {"approximate": "tanh"},
}  # fmt: skip
UPDATES = [
    v
    for v in vars(kernels).values()
    if type(v).__name__ == "Update" and v.name not in ("clip", "scale")
]
quick = settings(max_examples=30, deadline=None)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", autouse=True)
def numba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The entry point, as the installed distribution has it."""
    site = tmp_path_factory.mktemp("site")
    plugin_dirs.install(site, "nnx-xp", {"numba": "nnx_numba:NumbaBackend"})
    with plugin_dirs.fresh_process(site):
        yield


def close(got: Any, expected: Any) -> None:
    """Equal within the tolerance of its dtype, NaN and infinity in the same places."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    t = TOLERANCE[str(got.dtype)]
    np.testing.assert_allclose(got, expected, rtol=t, atol=t)


def normal(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 4.0) -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * scale, dtype)


def on(backend: str, f: Any, *args: Any, dy: Any = None, **attrs: Any) -> list[Any]:
    """Result and gradient of the first argument."""
    with nnx.use_backend(backend):
        x = nnx.Tensor(args[0].copy(), requires_grad=True)
        y = f(x, *args[1:], **attrs)
        y.backward(np.ones_like(y.data) if dy is None else dy)
        return [y.data, x.grad]


def portable(op: nnx.op.Op[...], x: Any, *others: Any, dy: Any, **attrs: Any) -> list[Any]:
    """By the portable kernels, in float64 from the same numbers, rounded to x's dtype."""
    wide = x.astype(np.float64)
    y = op.forward(np, wide, *others, **attrs)
    y, extras = y if type(y) is tuple else (np.asarray(y), {})
    (derivative,) = op.derivatives
    known = {"x": wide, "y": y, **attrs, **extras}
    dx = derivative.kernel(np, dy.astype(np.float64), *[known[n] for n in derivative.reads])
    return [np.asarray(a).astype(x.dtype) for a in (y, dx)]


# Values


@needs_numba
@each_dtype
@pytest.mark.parametrize("name", ELEMENTWISE)
@given(shape=shapes, seed=seeds, scale=st.sampled_from([1e-3, 1.0, 5.0, 200.0]))
@quick
def test_activations(
    name: str, dtype: str, shape: tuple[int, ...], seed: int, scale: float
) -> None:
    op, attrs = getattr(nnx, name.strip()), ELEMENTWISE[name]
    x, dy = normal(seed, shape, dtype, scale), normal(seed + 1, shape, dtype, 1.0)
    got = on("numba", op, x, dy=dy, **attrs)
    expected = portable(op, x, dy=dy, **attrs)
    for g, e in zip(got, expected, strict=True):
        # relative to the operands too: gelu multiplies x by a number that cancels
        t = TOLERANCE[dtype] * max(1.0, scale if name.startswith("gelu") else 1.0)
        np.testing.assert_allclose(g, e, rtol=t, atol=t)
        assert g.dtype == x.dtype and g.shape == shape


@needs_numba
@each_dtype
def test_activations_at_the_ends(dtype: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e4, -1e4, 0.0, -0.0, 1e-30], dtype)
    for name in ("relu", "sigmoid", "tanh", "softplus"):
        with nnx.use_backend("numba"):
            y = getattr(nnx, name)(x)
        close(y, getattr(nnx, name).forward(np, x))
    t = np.array([1e-8, -1e-8, 1e-3, 0.3, -0.34, 0.35], dtype)
    with nnx.use_backend("numba"):
        np.testing.assert_allclose(nnx.tanh(t), np.tanh(t), rtol=TOLERANCE[dtype], atol=0)


@needs_numba
@each_dtype
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(shape=shapes.filter(lambda s: len(s) > 0 and 0 not in s), seed=seeds, data=st.data())
@quick
def test_rows(
    name: str, dtype: str, shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    op = getattr(nnx, name)
    x, dy = normal(seed, shape, dtype), normal(seed + 1, shape, dtype, 1.0)
    got, expected = on("numba", op, x, dy=dy, axis=axis), portable(op, x, dy=dy, axis=axis)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=4 * TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@needs_numba
@each_dtype
def test_rows_with_what_is_not_finite(dtype: str) -> None:
    inf = np.inf
    x = np.array([[np.nan, 1, 2], [-inf, 1, 2], [-inf] * 3, [inf, 1, 2], [-5, -7, -900]], dtype)
    with nnx.use_backend("numba"):
        y = nnx.softmax(x)
    with np.errstate(invalid="ignore"):
        close(y, nnx.softmax.forward(np, x))
    assert y[1, 0] == 0.0 and y[4, 2] == 0.0 and np.isnan(y[[0, 2, 3]]).all()


@needs_numba
@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(rows=st.integers(0, 20), classes=st.integers(1, 30), seed=seeds, ignore=st.booleans())
@quick
def test_cross_entropy(
    dtype: str, reduction: str, rows: int, classes: int, seed: int, ignore: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, t = normal(seed, (rows, classes), dtype), rng.integers(0, classes, rows)
    if ignore:
        t[rng.random(rows) < 0.5] = -100
    t = t.astype(rng.choice(["int32", "int64"]))
    dy = normal(seed, (rows,) if reduction == "none" else (), dtype, 1.0)
    attrs = {"reduction": reduction, "dy": dy}
    got = [a for b in ("numba", "numpy") for a in on(b, nnx.softmax_cross_entropy, x, t, **attrs)]
    with np.errstate(invalid="ignore", divide="ignore"):  # no row counts: NaN
        expected = portable(nnx.softmax_cross_entropy, x, t, **attrs) * 2
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=8 * TOLERANCE[dtype], atol=8 * TOLERANCE[dtype])
        assert g.dtype == x.dtype


@needs_numba
def test_cross_entropy_of_soft_targets_weights_and_smoothing_falls_back() -> None:
    x, ids = normal(0, (6, 4), "float64"), np.array([0, 1, 2, 3, 0, 1])
    soft, weight = nnx.softmax(normal(1, (6, 4), "float64")), np.array([1.0, 2.0, 3.0, 4.0])
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((soft,), {}), ((ids, weight), {}), ((ids,), {"label_smoothing": 0.1}),
    ]  # fmt: skip
    for args, attrs in cases:
        got = on("numba", nnx.softmax_cross_entropy, x, *args, **attrs)
        assert equal(got, on("numpy", nnx.softmax_cross_entropy, x, *args, **attrs))


@needs_numba
@pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.name)
@each_dtype
@pytest.mark.parametrize("shape", [(), (0,), (7,), (30, 50)])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("arrays", [True, False])
def test_optimizers_are_equal_to_the_bit(
    update: Any, dtype: str, shape: tuple[int, ...], plain: bool, arrays: bool
) -> None:
    args, attrs = _arguments(update, dtype, shape, 1)
    if plain:
        attrs |= {k: 0.0 for k in ("weight_decay",) if k in attrs}
        attrs |= {k: False for k in ("nesterov",) if k in attrs}
    expected = update.kernel(np, *args, **attrs)
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    if arrays:  # as a replay gives the step's numbers
        copies = [np.array(a, dtype) if isinstance(a, float) else a for a in copies]
    with nnx.use_backend("numba"):
        held = update(*copies, **attrs)
    held, expected = (v if type(v) is tuple else (v,) for v in (held, expected))
    for e, h, i in zip(expected, held, update.positions, strict=True):
        assert h is copies[i], "written in place"
        np.testing.assert_array_equal(h, e)


@needs_numba
@pytest.mark.parametrize("update", [kernels.sgd, kernels.rmsprop], ids=lambda u: u.name)
def test_optimizers_on_arrays_that_are_not_contiguous(update: Any) -> None:
    args, attrs = _arguments(update, "float64", (40, 30), 2)
    expected = update.kernel(np, *args, **attrs)
    mixed = [np.asfortranarray(a) if isinstance(a, np.ndarray) else a for a in args]
    with nnx.use_backend("numba"):
        held = update(*mixed, **attrs)
    held, expected = (v if type(v) is tuple else (v,) for v in (held, expected))
    for e, h in zip(expected, held, strict=True):
        np.testing.assert_array_equal(h, e)


@needs_numba
def test_other_arrays_run_on_numpys_kernels() -> None:
    x = normal(0, (6, 8), "float64")
    with nnx.use_backend("numba"):
        assert np.array_equal(nnx.relu(np.array([-1, 0, 2])), [0, 0, 2])
        close(nnx.sigmoid(x[::2, ::-1]), nnx.sigmoid(x[::2, ::-1].copy()))
        close(nnx.softmax(x.T), nnx.softmax(x.T.copy()))
        assert nnx.softmax(x, axis=0).sum(axis=0) == pytest.approx(np.ones(8))
        half = nnx.tanh(np.array([0.5, 1.0], np.float16))
        assert half.dtype == np.float16


@needs_numba
@each_dtype
@given(
    shape=st.tuples(st.sampled_from([1, 7, 8, 12]), st.integers(1, 4), *[st.integers(1, 9)] * 2),
    seed=seeds, size=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.integers(1, 3),
    padded=st.booleans(), last=st.booleans(), counted=st.booleans(),
)  # fmt: skip
@quick
def test_pools(
    dtype: str, shape: Any, seed: int, size: Any, stride: int, padded: bool, last: bool,
    counted: bool,
) -> None:  # fmt: skip
    """Images (N, C, H, W) in memory, or (H, C, W, N); values of which some are equal."""
    if any(k > n for k, n in zip(size, shape[2:], strict=True)):
        return
    attrs: Any = {"size": size, "stride": stride}
    attrs["padding"] = tuple(k // 2 for k in size) if padded else 0
    x = normal(seed, shape, dtype).round() if stride > 1 else normal(seed, shape, dtype)
    if last:
        x = np.ascontiguousarray(x.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2)
    for op, more in ((nnx.max_pool2d, {}), (nnx.avg_pool2d, {"count_include_pad": counted})):
        y = op.forward(np, x, **attrs, **more)[0]
        dy = normal(seed + 1, y.shape, dtype, 1.0)
        got = on("numba", op, x, dy=dy, **attrs, **more)
        for g, e in zip(got, portable(op, x, dy=dy, **attrs, **more), strict=True):
            close(g, e)


@needs_numba
@each_dtype
def test_max_pooling_with_what_is_not_finite(dtype: str) -> None:
    inf = np.inf
    x = np.array([[1, np.nan, -inf, -inf], [2, 3, -inf, -inf]], dtype).reshape(1, 1, 2, 4)
    with nnx.use_backend("numba"):
        np.testing.assert_array_equal(nnx.max_pool2d(x, size=2), [[[[np.nan, -inf]]]])


@needs_numba
@each_dtype
@given(shape=shapes.filter(lambda s: len(s) > 0 and 0 not in s[1:]), seed=seeds, data=st.data())
@quick
def test_layer_norm(dtype: str, shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, len(shape)))
    last = shape[len(shape) - ndim :]
    if 0 in last:
        return
    x, dy = normal(seed, shape, dtype) + 3, normal(seed + 1, shape, dtype, 1.0)
    gamma, beta = normal(seed + 2, last, dtype, 1.0), normal(seed + 3, last, dtype, 1.0)
    attrs = {"ndim": ndim, "eps": 0.1}
    with nnx.use_backend("numba"):
        tensors = [nnx.Tensor(a.copy(), requires_grad=True) for a in (x, gamma, beta)]
        nnx.layer_norm(*tensors, **attrs).backward(dy)
        got = [t.grad for t in tensors]
    wide = [a.astype(np.float64) for a in (x, gamma, beta)]
    y, extras = nnx.layer_norm.forward(np, *wide, **attrs)
    known = {"x": wide[0], "gamma": wide[1], "beta": wide[2], **attrs, **extras}
    expected = [
        d.kernel(np, dy.astype(np.float64), *[known[n] for n in d.reads])
        for d in nnx.layer_norm.derivatives
    ]
    t = 60 * TOLERANCE[dtype]  # sums over up to a thousand entries
    np.testing.assert_allclose(on("numba", nnx.layer_norm, x, gamma, beta, **attrs)[0], y, t, t)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=t, atol=t)
        assert g.dtype == x.dtype and g.shape == e.shape


@needs_numba
def test_layer_norm_without_scale_or_shift_falls_back() -> None:
    x, gamma = normal(0, (6, 8), "float64"), normal(1, (8,), "float64")
    for args in ((), (gamma,), (None, gamma)):
        got = on("numba", nnx.layer_norm, x, *args, dy=x)
        assert equal(got, on("numpy", nnx.layer_norm, x, *args, dy=x))


# Training


def trained(backend: str, wrap: Any, name: str = "Adam") -> tuple[Any, list[float]]:
    with nnx.use_backend(backend):
        net = model(L.Gelu(), L.Tanh())
        step = wrap(trainer(net, getattr(optim, name)(net.parameters())))
        return net, [float(step(x, t)) for x, t in batches(30)]


@needs_numba
def test_training_equals_numpys() -> None:
    on_numba, on_numpy = trained("numba", lambda f: f), trained("numpy", lambda f: f)
    assert on_numba[1] == pytest.approx(on_numpy[1], rel=1e-4)
    for a, b in zip(values(on_numba[0]), values(on_numpy[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


@needs_numba
@pytest.mark.parametrize("name", ["SGD", "AdaGrad", "RMSProp", "Adam", "AdamW"])
def test_replayed_training_equals_eager_training_to_the_bit(name: str) -> None:
    both(lambda wrap: trained("numba", wrap, name))


@needs_numba
def test_a_deep_copy_of_model_and_optimizer_trains_alike() -> None:
    with nnx.use_backend("numba"):
        net = model()
        opt = optim.Adam(net.parameters())
        x, t = batches(1)[0]
        trainer(net, opt)(x, t)
        net2, opt2 = copy.deepcopy((net, opt))
        trainer(net, opt)(x, t)
        trainer(net2, opt2)(x, t)
    assert equal(values(net), values(net2))


@needs_numba
def test_a_replay_is_one_program() -> None:
    """Between checking the labels and returning, nothing of Python runs."""
    with nnx.use_backend("numba"):
        net = model(L.Gelu(), L.Softmax())
        step = capture(trainer(net, optim.Adam(net.parameters())))
        for x, t in batches(4):
            step(x, t)
    code = step.plan().code.splitlines()
    assert [line.split("(")[0].strip() for line in code if "#" not in line] == [
        "def replay", "test", "numbers", "program", "return",
    ]  # fmt: skip
    note = next(line for line in code if "#" in line)
    for name in ("gemm", "bias_relu", "gelu", "softmax", "cross_entropy", "gelu_slope", "adam"):
        assert f" {name}" in note


@needs_numba
@pytest.mark.slow
def test_the_op_suite_passes() -> None:
    if "numba" not in nnx.backends():
        pytest.skip("nnx is not installed here, so no entry point names numba")
    suite = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_ops.py")
    assert " passed" in run(*suite, "--backend=numba").stdout


# The hint of `nnx train`


@pytest.mark.parametrize("found", [True, False])
def test_training_on_numpy_points_to_numba_where_it_is_installed(
    found: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    util = types.SimpleNamespace(find_spec=lambda name: name == "numba" if found else None)
    monkeypatch.setattr("nnx.cli.train.importlib", types.SimpleNamespace(util=util))
    assert cli.main(["train", "--epochs", "1", "--model", "linear"]) == 0
    hint = "hint: numba is installed: --backend numba runs small networks faster\n"
    assert capsys.readouterr().out.endswith(hint) is found


@needs_numba
def test_training_on_numba(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--epochs", "3", "--backend", "numba"]) == 0
    shown = capsys.readouterr().out
    assert "backend numba" in shown and "hint" not in shown
    (accuracy,) = [line for line in shown.splitlines() if line.startswith("held-out accuracy")]
    assert float(accuracy.split()[2]) >= 80


# Compilation


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = plugin_dirs.ROOT
    path = [*map(str, (root, root / "backends", root / "tests")), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **environment}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env={**env, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done


RELU = """
import numpy as np, nnx, nnx_numba
kernels = nnx_numba.NumbaBackend().kernels
print(kernels[nnx.relu].forward(np, np.array([-1.0, 2.0])))
"""
LINE = "nnx: compiling kernels for numba, kept for next time ...\n"


@needs_numba
def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, nnx, nnx_numba; print('numba' in sys.modules)"
    assert run("-c", code).stdout == "False\n"


@needs_numba
def test_loops_are_compiled_once_and_kept_on_disk(tmp_path: Path) -> None:
    first = run("-c", RELU, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first.stdout, first.stderr) == ("[0. 2.]\n", LINE)
    again = run("-c", RELU, NUMBA_CACHE_DIR=str(tmp_path))
    assert (again.stdout, again.stderr) == ("[0. 2.]\n", "")


@needs_numba
def test_without_a_folder_to_keep_them_loops_are_compiled_each_time() -> None:
    done = run(
        "-c", RELU, NUMBA_CACHE_DIR=os.path.join(os.devnull, "none"),
        NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator",
    )  # fmt: skip
    assert done.stdout == "[0. 2.]\n"
    assert done.stderr == "nnx: compiling kernels for numba ...\n"


def message(tmp_path: Path) -> str:
    plugin_dirs.install(tmp_path, "nnx-xp", {"numba": "nnx_numba:NumbaBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        with pytest.raises(nnx.errors.BackendPackageError) as caught:
            nnx.set_backend("numba")
        assert nnx.get_backend().name == "numpy", "the previous backend must stay"
    return str(caught.value)


def test_numba_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert message(tmp_path) == (
        "the backend 'numba' needs the package numba, which is not installed; "
        "from nnx's checkout: pip install '.[numba]'"
    )


def test_numba_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def find(name: str) -> Any:
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 2.9.")
        return importlib.import_module(name)

    monkeypatch.setattr("nnx_numba.importlib", types.SimpleNamespace(import_module=find))
    assert message(tmp_path) == (
        "numba fails to import: Numba needs NumPy 2.4 or less. Got NumPy 2.9.; reinstall it, "
        "from nnx's checkout: pip install '.[numba]'"
    )
