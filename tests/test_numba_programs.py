"""numba's replays: programs of instructions, and matrix products with the bits of NumPy's."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, both, equal, model, train, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture

pytest.importorskip("numba")

from nnx_numba import blas, dense, images, loops, program, rows, strided, translate, updates
from nnx_numba.instructions import SPECS, operands

needs_blas = pytest.mark.skipif(not blas.bits(), reason="NumPy's BLAS is not its wheels' OpenBLAS")


@pytest.fixture(autouse=True)
def on_numba() -> Any:
    with nnx.use_backend("numba"):
        yield


def matrix(rng: np.random.Generator, rows: int, columns: int, turned: bool, dtype: Any) -> Any:
    shape = (columns, rows) if turned else (rows, columns)
    a = rng.standard_normal(shape).astype(dtype)
    return a.T if turned else a


@needs_blas
@settings(max_examples=200, deadline=None)
@given(
    m=st.integers(1, 40), k=st.integers(1, 40), n=st.integers(1, 40), turned=st.tuples(
        st.booleans(), st.booleans()), dtype=st.sampled_from(["float32", "float64"]),
)  # fmt: skip
def test_products_have_the_bits_of_numpys(m: int, k: int, n: int, turned: Any, dtype: str) -> None:
    rng = np.random.default_rng([m, k, n])
    a, b = matrix(rng, m, k, turned[0], dtype), matrix(rng, k, n, turned[1], dtype)
    out = np.full((m, n), np.nan, dtype)
    for f in (np.dot, np.matmul):
        made = translate.translated((f, (a, b, out), {}))
        if made is None:
            assert min(m, k, n) == 1
            continue
        program.Program(made, {}).runner()()
        assert np.array_equal(out, f(a, b))


@needs_blas
@given(k=st.integers(2, 30), n=st.integers(2, 30))
def test_a_vector_times_a_matrix(k: int, n: int) -> None:
    rng = np.random.default_rng([k, n])
    v, W, out = rng.standard_normal(k), rng.standard_normal((k, n)), np.empty(n)
    made = translate.translated((np.dot, (v, W, out), {}))
    assume(made is not None)
    program.Program(made, {}).runner()()
    assert np.array_equal(out, np.dot(v, W))


@needs_blas
def test_what_numpy_does_in_other_ways_is_left_to_it() -> None:
    a = np.ones((4, 4))
    for x, y in ((a, a.T), (a[:, ::2], np.ones((2, 4))), (a[:, :1].T, a[:, :1]), (a[0], a[0])):
        assert blas.product(x, y, np.empty((x.shape[0], y.shape[-1]))) is None


def loops_of(module: Any) -> set[Any]:
    found = [f for n, f in vars(module).items() if not n.startswith("_") and hasattr(f, "py_func")]
    return {f for f in found if f.py_func.__module__ == module.__name__}


def test_every_loop_of_a_kernel_is_an_instruction() -> None:
    helpers = {loops.below}
    modules = (loops, dense, images, rows, strided, updates)
    assert set().union(*map(loops_of, modules)) == set(SPECS) | helpers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loop", SPECS, ids=lambda f: f.py_func.__name__)
def test_an_instruction_does_what_its_loop_does(loop: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)

    def made(kind: str) -> Any:
        rng_of = {
            "v": lambda: rng.random(5).astype(dtype), "m": lambda: rng.random((3, 5)).astype(dtype),
            "l": lambda: rng.integers(0, 5, 3), "n": lambda: np.array(0.25, dtype),
            "i": lambda: -100, "b": lambda: True, "f": lambda: 0.75, "w": lambda: (1, 1),
            "q": lambda: rng.random((2, 5, 3)).astype(dtype), "z": lambda: (1, 1, 1, 1, 1),
            "p": lambda: rng.random((2, 3, 1, 4, 2)).astype(dtype),
            "s": lambda: (rng.random(1).astype(dtype), 1, 0, (0, 0, 0, 0, 1)),
        }  # fmt: skip
        return rng_of[kind]()

    spec = SPECS[loop].split()
    args = [made(kind) for kind in spec]
    if loop is strided.combined:
        return  # its arguments are of another form: see below
    if loop in (rows.layer_norm, rows.layer_norm_slope):
        for i in [i for i, kind in enumerate(spec) if kind == "v"][-2:]:
            args[i] = np.ones(3 if loop is rows.layer_norm else 5, dtype)
    if loop is rows.layer_norm_slope:
        args[3], args[4] = np.ones(3, dtype), np.ones(3, dtype)
    if loop in vars(images).values() and "w" in spec:
        args[spec.index("w") + 2] = (0, 0)
    if loop is loops.cross_entropy:
        args[4] = np.zeros(3, dtype)
    if loop is loops.scaled_rows:
        args[1] = np.ones(3, dtype)
    same = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    loop(*args)
    program.Program([(loop, np.dtype(dtype), operands(loop, tuple(same)))], {}).runner()()
    for a, b in zip(args, same, strict=True):
        assert np.array_equal(a, b)


@st.composite
def arrays(draw: Any) -> Any:
    """Up to four, broadcast against the first, each a view: turned, reversed, with gaps."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple))
    made = []
    for i in range(3):
        mine = tuple(1 if i and draw(st.booleans()) else n for n in shape)
        order = draw(st.permutations(range(len(shape))))
        steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
        whole = np.zeros([mine[j] * abs(steps[j]) for j in order])
        view = whole.transpose(np.argsort(order))[tuple(slice(None, None, s) for s in steps)]
        view[...] = np.random.default_rng(i).standard_normal(mine)
        made.append(view)
    return made


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    found=arrays(), dtype=st.sampled_from(["float32", "float64"]),
    what=st.sampled_from(["fill", "copy", "add", "add to", "subtract", "scale", "scale it"]),
)  # fmt: skip
def test_copies_and_sums_of_any_strides(found: Any, dtype: str, what: str) -> None:
    y, a, b = (x.astype(dtype, order="K") for x in found)
    f, args = {
        "fill": (np.copyto, (y, 2.5)), "copy": (np.copyto, (y, a)), "add": (np.add, (a, b, y)),
        "add to": (np.add, (y, a, y)), "subtract": (np.subtract, (a, b, y)),
        "scale": (np.multiply, (a, 0.3, y)), "scale it": (np.multiply, (y, 0.3, y)),
    }[what]  # fmt: skip
    made = translate.translated((f, args, {}))
    if made is None:  # too many axes
        assert sum(n > 1 for n in y.shape) > translate.AXES
        return
    expected = y.copy()
    f(*[expected if x is y else x for x in args])
    program.Program(made, {}).runner()()
    assert np.array_equal(y, expected)


def test_sums_of_arrays_of_no_axes() -> None:
    y, a, b = (np.array(n) for n in (0.0, 1.5, 2.0))
    made = translate.translated((np.add, (a, b, y), {}))
    assert made is not None
    program.Program(made, {}).runner()()
    assert y == 3.5


def test_sums_of_one_column_are_left_to_numpy() -> None:
    """It sums them pairwise, the loop one after the other."""
    x, options = np.ones((9, 2)), {"axis": 0, "out": np.zeros(2)}
    assert translate.translated((np.add.reduce, (x,), options)) is not None
    options = {"axis": 0, "out": np.zeros(1)}
    assert translate.translated((np.add.reduce, (x[:, :1].copy(),), options)) is None


def test_many_short_lines_are_left_to_numpy() -> None:
    y, x = np.zeros((3000, 40)), np.ones((3000, 50))
    assert translate.translated((np.copyto, (y, x[:, :40]), {})) is None
    assert translate.translated((np.copyto, (y[:1000], x[:1000, :40]), {})) is not None


@needs_blas
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 3), lead=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    gap=st.integers(0, 3), turned=st.tuples(st.booleans(), st.booleans()),
)  # fmt: skip
def test_stacks_of_products_have_the_bits_of_numpys(
    sizes: Any, lead: Any, gap: int, turned: Any
) -> None:
    """Matrices whose rows lie apart, some transposed; one stack shorter than the other."""
    (m, k, n), rng = sizes, np.random.default_rng(sizes)
    a = rng.standard_normal((1, lead[1], *((k, m + gap) if turned[0] else (m, k + gap))))
    b = rng.standard_normal((*lead, *((n, k + gap) if turned[1] else (k, n + gap))))
    a = a[..., :m].mT if turned[0] else a[..., :k]
    b = b[..., :k].mT if turned[1] else b[..., :n]
    out = np.zeros((*lead, m, n + gap))[..., :n]
    made = translate.translated((np.matmul, (a, b, out), {}))
    if made is None:
        assert min(sizes) == 1
        return
    assert len(made) == lead[0] * lead[1]
    program.Program(made, {}).runner()()
    assert np.array_equal(out, np.matmul(a, b))


def trained(net: L.Layer, rows: int = 16) -> Any:
    return both(lambda wrap: train(wrap, net, optim.Adam(net.parameters()), batches(6, rows=rows)))


@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("hidden", [1, 8])
def test_networks_with_rows_and_columns_train_as_eagerly(rows: int, hidden: int) -> None:
    def make(wrap: Any) -> Any:
        nnx.seed(1)
        between = L.Linear(hidden, hidden)
        net = model(L.Tanh(), between, L.Sigmoid(), hidden=hidden)
        return train(wrap, net, optim.Adam(net.parameters()), batches(6, rows=rows))

    both(make)


def test_without_the_blas_products_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(wrap: Any) -> Any:
        net = model()
        return train(wrap, net, optim.SGD(net.parameters(), 0.1), batches(6))

    with_blas = both(make)
    monkeypatch.setattr(blas, "bits", lambda: 0)
    without = both(make)
    assert equal(values(with_blas), values(without))
    net = model()
    step = capture(lambda x: nnx.relu(net(nnx.Tensor(x))))
    for x, _ in batches(3):
        step(x)
    assert step.plan().code.count("dot(") == 2 and step.plan().code.count("program") == 2


def test_a_program_keeps_all_that_it_needs() -> None:
    """Its operands are addresses: what they are of must live as long as it does."""
    net = model()
    step = capture(net.eval())
    for x, _ in batches(3):
        expected = net(x)
        step(x)
    gc.collect()
    junk = [np.random.default_rng(i).standard_normal(1000) for i in range(200)]
    assert np.array_equal(step(x), expected) and len(junk) == 200


def images_and_labels(count: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((6, 1, 12, 12)).astype("f4"), rng.integers(0, 5, 6))
        for _ in range(count)
    ]


def test_a_step_of_a_network_of_convolutions_is_programs_and_equals_eager() -> None:
    """Products among them are on one thread. Pools of whole images are NumPy's passes; what is
    before, between and after is each a program.
    """

    def make(wrap: Any) -> Any:
        nnx.seed(0)
        net = L.Sequential(
            L.Conv2d(1, 4, 3, padding=1), L.Relu(), L.MaxPool2d(2), L.Conv2d(4, 6, 3, stride=2),
            L.Tanh(), L.AvgPool2d(2, stride=1, padding=1), L.Flatten(), L.Linear(54, 5),
        )  # fmt: skip
        return train(wrap, net, optim.Adam(net.parameters()), images_and_labels(6))

    both(make)
    nnx.seed(0)
    net = L.Sequential(L.Conv2d(1, 4, 3), L.Relu(), L.MaxPool2d(2), L.Flatten(), L.Linear(100, 5))
    step = capture(lambda x, t: loss_and_step(net, opt, x, t))
    opt = optim.SGD(net.parameters(), 0.1)
    for x, t in images_and_labels(4):
        step(x, t)
    calls = [line.split("(")[0].strip() for line in step.plan().code.splitlines()]
    programs = [name for name in calls if name.startswith("program")]
    assert programs == ["program", "program1", "program2", "program3"]
    pools = {"again", "maximum", "greater", "multiply"}
    assert {name for name in calls if name[:1] not in ("#", "")} - {*programs, *pools} == {
        "def replay", "test", "numbers", "return",
    }  # fmt: skip


def test_wrong_labels_are_refused_before_anything_runs() -> None:
    net = model()
    opt = optim.Adam(net.parameters())
    step = capture(lambda x, t: loss_and_step(net, opt, x, t))
    for x, t in batches(3):
        step(x, t)
    before, count = values(net), opt.state_dict()["state"][0]["step"]
    for wrong in (5, -1):
        with pytest.raises(nnx.LabelError, match=f"class id {wrong} at t"):
            step(x, np.full(16, wrong))
    assert equal(values(net), before) and opt.state_dict()["state"][0]["step"] == count
    step(x, np.full(16, -100))  # ignored, all of them


def loss_and_step(net: Any, opt: Any, x: Any, t: Any) -> Any:
    opt.zero_grad()
    loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
    loss.backward()
    opt.step()
    return loss
