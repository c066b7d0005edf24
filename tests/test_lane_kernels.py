"""LSTMs, GRUs, convolutions and products in lanes and in pieces, against independent results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lane_tools import BACKENDS, Floats, can_be_asked, examples, floats, small  # noqa: F401

import nnx
import nnx_numpy.patches as patches
import nnx_numpy.table as table
from nnx import ops

pytestmark = can_be_asked


@pytest.fixture(params=[0, 1 << 12, 1 << 20], ids=["whole", "small pieces", "pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether products are made by some rows or columns at a time, and how large these may be."""
    monkeypatch.setattr(table, "_copies_nothing", lambda: bool(request.param))
    monkeypatch.setattr(table, "UNPACKED", request.param)


def gradients(f: Any, dys: tuple[Floats, ...], *arrays: Floats) -> list[Floats]:
    """Results, and the gradients of their sums weighted by dys."""
    given = [nnx.Tensor(a, requires_grad=True) for a in arrays]
    made = f(*given)
    made = made if isinstance(made, tuple) else (made,)
    loss = nnx.sum(made[0] * dys[0])
    for y, dy in zip(made[1:], dys[1:], strict=True):
        loss = loss + nnx.sum(y * dy)
    loss.backward()
    return [np.asarray(y.data) for y in made] + [np.asarray(t.grad) for t in given]


def portable(op: Any, attrs: dict[str, Any], dy: Any, *arrays: Floats) -> list[Floats]:
    """The portable kernels in float64."""
    wide = [a.astype("f8") for a in arrays]
    y, extras = op.forward(np, *wide, **attrs)
    many = isinstance(y, tuple)
    found: list[Floats] = [*(y if many else (y,))]
    names = dict(zip(op.signature.arrays, wide, strict=False))
    every = {**names, **attrs, **extras, "lengths": None, "y": y}
    for d in op.derivatives:
        code = d.kernel.__code__
        read = code.co_varnames[2 : code.co_argcount]
        given = tuple(v.astype("f8") for v in dy) if many else dy[0].astype("f8")
        made = d.kernel(np, given, *[every[n] for n in read])
        found += made if isinstance(made, tuple) else (made,)
    return found


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("what", ["lstm", "gru"])
@examples
@given(
    st.integers(1, 5), st.integers(1, 40), st.integers(1, 24), st.integers(1, 3), st.booleans(),
    st.sampled_from(["f4", "f8"]), st.integers(0, 9),
)  # fmt: skip
def test_lstms_and_grus_in_lanes_compute_what_the_portable_kernels_do(
    name: str, what: str, steps: int, rows: int, n: int, count: int, reverse: bool, dtype: str,
    seed: int,
) -> None:  # fmt: skip
    rng, lstm = np.random.default_rng(seed), what == "lstm"
    k = 4 * n if lstm else 3 * n
    shapes = (steps, rows, k), (n, k), (rows, n) if lstm else (k,), (rows, n)
    arrays = [floats(rng, *s, dtype=dtype) for s in shapes]
    results = [(steps, rows, n), *[(rows, n)] * (2 if lstm else 1)]
    dys = tuple(floats(rng, *s, dtype=dtype) for s in results)
    nnx.set_num_threads(count)
    with nnx.use_backend(name):
        op = nnx.lstm if lstm else nnx.gru
        found = gradients(lambda *a: op(*a, reverse=reverse), dys, *arrays)
    expected = portable(ops.lstm if lstm else ops.gru, {"reverse": reverse}, dys, *arrays)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        scale = max(1.0, float(abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=scale * (2e-5 if dtype == "f4" else 1e-12))


SHAPES = st.tuples(st.sampled_from([1, 3, 8]), *[st.integers(1, n) for n in (3, 9, 9, 4, 3, 3)])


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("wide", [1, 16], ids=["few channels", "many channels"])
@examples
@given(
    shape=SHAPES, stride=st.integers(1, 2), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    groups=st.integers(1, 2), line=st.booleans(), count=st.integers(1, 3),
    block=st.sampled_from([1 << 8, 1 << 20]), seed=st.integers(0, 9),
)  # fmt: skip
def test_convolutions_in_lanes_compute_what_pytorch_does(
    name: str, wide: int, shape: Any, stride: int, padding: int, dilation: int, groups: int,
    line: bool, count: int, block: int, seed: int, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of images and of lines, with blocks of few entries, of which each lane has some, and with
    large ones.
    """
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(patches, "BLOCK", block)
    batch, inner, h, w, out, kh, kw = shape
    rng, attrs = np.random.default_rng(seed), {"stride": stride, "padding": padding}
    attrs |= {"dilation": dilation, "groups": groups}
    sizes, lengths = ((kw,), (3 * h + w,)) if line else ((kh, kw), (h, w))
    lengths = tuple(n + dilation * (k - 1) for n, k in zip(lengths, sizes, strict=True))
    inner, out = wide * inner, wide * out * groups
    arrays = [
        floats(rng, batch, inner * groups, *lengths), floats(rng, out, inner, *sizes),
        floats(rng, out),
    ]  # fmt: skip
    given = [torch.tensor(a.astype("f8"), requires_grad=True) for a in arrays]
    other = torch.nn.functional.conv1d if line else torch.nn.functional.conv2d
    y = other(*given, **attrs)
    dy = floats(rng, *y.shape)
    y.backward(torch.tensor(dy.astype("f8")))
    nnx.set_num_threads(count)
    with nnx.use_backend(name):
        op = nnx.conv1d if line else nnx.conv2d
        found = gradients(lambda *a: op(*a, **attrs), (dy,), *arrays)
    for a, b in zip(found, [y.detach(), *[t.grad for t in given]], strict=True):
        scale = max(1.0, float(abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * scale)


@examples
@given(
    lead=st.lists(st.integers(1, 3), max_size=1), m=st.integers(0, 70), k=st.integers(1, 9),
    n=st.integers(0, 70), vector=st.integers(0, 2), turned=st.booleans(), count=st.integers(1, 5),
)  # fmt: skip
def test_products_in_parts(
    lead: list[int], m: int, k: int, n: int, vector: int, turned: bool, count: int
) -> None:
    """Stacks, a row times a matrix, a matrix times a column; whole numbers, so that all is exact"""
    rng = np.random.default_rng(m + n)
    a: Floats = rng.integers(-9, 9, (*lead, m, k)).astype("f4")
    b: Floats = rng.integers(-9, 9, (*lead, n, k) if turned else (*lead, k, n)).astype("f4")
    b = np.swapaxes(b, -1, -2) if turned else b
    if not lead and vector:
        a, b = (np.ones(k, "f4"), b) if vector == 1 else (a, np.ones(k, "f4"))
    expected = np.matmul(a, b)
    out = np.full(expected.shape, np.nan, "f4")
    nnx.set_num_threads(count)
    table.product_together(a, b, out)
    np.testing.assert_array_equal(out, expected)
