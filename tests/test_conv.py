"""Convolutions and pools on random shapes and options: PyTorch's values and gradients; replays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnx
from nnx.capture import capture

torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
import torch_ops  # noqa: E402 - it imports torch

Host = np.ndarray[Any, Any]
SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
small = st.integers(1, 3)


class Call(NamedTuple):
    """An op with the shapes of its arrays and its options."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    attrs: dict[str, Any]

    def arrays(self, seed: int = 0) -> list[Host]:
        rng = np.random.default_rng(seed)
        return [rng.standard_normal(shape) for shape in self.shapes]


@st.composite
def options(draw: Any, n: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Stride, dilation and padding: a number, or one for each axis, or pairs."""
    per_axis = draw(st.booleans())
    stride = draw(st.tuples(*[small] * n) if per_axis else small)
    dilation = draw(st.tuples(*[small] * n) if per_axis else small)
    pad = st.integers(0, 3)
    kinds = [pad, st.tuples(*[pad] * n), st.tuples(*[st.tuples(pad, pad)] * n), st.just("valid")]
    if stride in (1, (1,) * n):
        kinds.append(st.just("same"))
    return {"stride": stride, "dilation": dilation, "padding": draw(st.one_of(kinds))}


@st.composite
def convolutions(draw: Any, n: int = 2, many: int = 4) -> Call:
    """Some images smaller than the window: these must be refused."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(st.integers(1, many)), draw(st.integers(1, many))
    sizes = draw(st.tuples(*[st.integers(1, 4)] * n))
    attrs = draw(options(n, sizes))
    image = draw(st.tuples(*[st.integers(1, 12)] * n))
    x = (draw(st.integers(0, 3)), inner * groups, *image)
    b = [(outer * groups,)] if draw(st.booleans()) else []
    shapes = (x, (outer * groups, inner, *sizes), *b)
    return Call(f"conv{n}d", shapes, {**attrs, "groups": groups})


@st.composite
def transposed(draw: Any) -> Call:
    groups = draw(st.sampled_from([1, 1, 2]))
    inner, outer = draw(small), draw(small)
    stride = draw(st.tuples(small, small))
    extra = tuple(draw(st.integers(0, s - 1)) for s in stride)
    pad = st.integers(0, 2)
    padding = draw(st.one_of(pad, st.tuples(pad, pad), st.tuples(*[st.tuples(pad, pad)] * 2)))
    x = (draw(st.integers(0, 3)), inner * groups, draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    W = (inner * groups, outer, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    shapes = (x, W, (outer * groups,)) if draw(st.booleans()) else (x, W)
    attrs = {"stride": stride, "output_padding": extra, "padding": padding, "groups": groups}
    return Call("conv_transpose2d", shapes, {**attrs, "dilation": draw(st.tuples(small, small))})


@st.composite
def pools(draw: Any) -> Call:
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pad = [st.integers(0, k // 2) for k in size]
    padding = draw(st.one_of(st.tuples(*pad), st.tuples(*[st.tuples(p, p) for p in pad])))
    x = (draw(st.integers(0, 3)), draw(small), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    stride = draw(st.one_of(st.none(), st.tuples(small, small)))
    attrs = {"size": size, "stride": stride, "padding": padding}
    name = draw(st.sampled_from(["max_pool2d", "avg_pool2d"]))
    if name == "avg_pool2d":
        attrs["count_include_pad"] = draw(st.booleans())
    return Call(name, (x,), attrs)


def ours(call: Call, arrays: list[Host], dy: Host | None = None) -> list[Host]:
    """y and the gradients; of y itself if no dy is given."""
    tensors = [nnx.Tensor(nnx.asarray(a.copy()), requires_grad=True) for a in arrays]
    y = getattr(nnx, call.op)(*tensors, **call.attrs)
    if y.size:
        y.backward(y.data if dy is None else nnx.asarray(dy.copy()))
    return [np.array(nnx.to_numpy(v)) for v in (y, *(t.grad for t in tensors)) if v is not None]


def theirs(call: Call, arrays: list[Host], dy: Host) -> list[Host]:
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = torch_ops.ORACLE[call.op](*tensors, **call.attrs)
    if y.numel():
        y.backward(torch.tensor(dy))
    return [v.numpy(force=True) for v in (y, *(t.grad for t in tensors)) if v is not None]


def compare(call: Call) -> None:
    arrays = call.arrays()
    try:
        y = getattr(nnx, call.op)(*map(nnx.asarray, arrays), **call.attrs)
    except nnx.ShapeError as error:
        check_refused(call, str(error))
        return
    dy = np.random.default_rng(7).standard_normal(y.shape)
    for a, b in zip(ours(call, arrays, dy), theirs(call, arrays, dy), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, **CLOSE)


def check_refused(call: Call, message: str) -> None:
    """PyTorch refuses it too; the message has the sizes."""
    tensors = [torch.tensor(a) for a in call.arrays()]
    if call.shapes[0][0]:
        try:
            y = torch_ops.ORACLE[call.op](*tensors, **call.attrs)
        except RuntimeError:
            y = None
        assert y is None or y.numel() == 0
    assert str(call.shapes[0]) in message
    what = "gives images of" if call.op == "conv_transpose2d" else "the window covers"
    assert what in message


@SETTINGS
@given(call=convolutions())
def test_conv2d(call: Call, backend: nnx.Backend) -> None:
    compare(call)


@SETTINGS
@given(call=convolutions(1))
def test_conv1d(call: Call, backend: nnx.Backend) -> None:
    compare(call)


@SETTINGS
@given(call=transposed())
def test_conv_transpose2d(call: Call, backend: nnx.Backend) -> None:
    compare(call)


@SETTINGS
@given(call=pools())
def test_pools(call: Call, backend: nnx.Backend) -> None:
    compare(call)


@SETTINGS
@given(
    call=pools().filter(lambda c: c.op == "max_pool2d" and c.shapes[0][0] > 0),
    seed=st.integers(0, 9),
)
def test_of_the_largest_the_first_has_the_gradient(
    call: Call, seed: int, backend: nnx.Backend
) -> None:
    """Of few different values many are equal: PyTorch's choice."""
    x = np.random.default_rng(seed).integers(-1, 2, call.shapes[0]).astype("float64")
    try:
        y = ours(call, [x])[0]
    except nnx.ShapeError:
        return
    dy = np.arange(1.0, y.size + 1).reshape(y.shape)
    found, expected = ours(call, [x], dy), theirs(call, [x], dy)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    leaf = nnx.Tensor(nnx.asarray(x.copy()), requires_grad=True)
    nnx.max_pool2d(leaf, **call.attrs).backward(nnx.asarray(dy), create_graph=True)
    np.testing.assert_array_equal(leaf.grad.numpy(), expected[1])  # by the portable kernel


# NumPy's own ways: blocks of any size, Winograd's products for few channels too, replays.


@pytest.fixture
def numpy_only(backend: nnx.Backend) -> None:
    if backend.name != "numpy":
        pytest.skip("these are the kernels of nnx_numpy")


class Tuned:
    """Kernels with blocks of so many entries, and Winograd's from so many channels on."""

    def __init__(self, block: int, channels: int) -> None:
        self.patch, self.block, self.channels = pytest.MonkeyPatch(), block, channels

    def __enter__(self) -> None:
        from nnx_numpy import layout, patches, winograd

        self.patch.setattr(patches, "BLOCK", self.block)
        self.patch.setattr(patches, "LEAST", 1)
        self.patch.setattr(layout, "BLOCK", self.block)
        self.patch.setattr(winograd, "CHANNELS", self.channels)

    def __exit__(self, *error: object) -> None:
        self.patch.undo()


block_sizes = st.sampled_from([1, 100, 700, 1 << 20])


@SETTINGS
@given(call=st.one_of(convolutions(), transposed()), block=block_sizes)
def test_blocks_of_any_size(call: Call, block: int, numpy_only: None) -> None:
    with Tuned(block, 1000):
        compare(call)


@st.composite
def three_wide(draw: Any) -> Call:
    """Kernels that Winograd's products are for."""
    groups, high = draw(st.integers(1, 2)), draw(st.integers(1, 4))
    inner, outer, batch = draw(small), draw(small), draw(st.sampled_from([1, 2, 9]))
    stride = (draw(st.integers(1, max(1, high - 1))), 1)
    pad = st.integers(0, 3)
    padding = draw(st.one_of(pad, st.tuples(*[st.tuples(pad, pad)] * 2)))
    x = (batch, inner * groups, draw(st.integers(4, 9)), draw(st.integers(3, 12)))
    W, b = (outer * groups, inner, high, 3), (outer * groups,)
    attrs = {"stride": stride, "padding": padding, "groups": groups}
    return Call("conv2d", (x, W, b), attrs)


@SETTINGS
@given(call=three_wide(), block=block_sizes)
def test_winograd(call: Call, block: int, numpy_only: None) -> None:
    with Tuned(block, 1):
        compare(call)


def test_winograd_is_used_from_16_channels_on(numpy_only: None) -> None:
    from nnx_numpy import winograd
    from nnx_numpy.patches import Geometry

    three = Geometry(1, (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
    assert winograd.fits(three, 16, 16) and not winograd.fits(three, 15, 64)
    for other in (
        three._replace(sizes=(3, 5)), three._replace(stride=(1, 2)), three._replace(groups=2),
        three._replace(gaps=(1, 2)), three._replace(gaps=(2, 1)), three._replace(stride=(3, 1)),
    ):  # fmt: skip
        assert not winograd.fits(other, 16, 16)


def test_winograd_in_float32_is_as_exact_as_sums(numpy_only: None) -> None:
    """To some roundings of the largest sum; the oracle is float64."""
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((4, 64, 12, 13)), rng.standard_normal((32, 64, 3, 3)) / 24
    dy = rng.standard_normal((4, 32, 12, 13))
    call = Call("conv2d", (), {"padding": 1})
    exact = theirs(call, [x, W], dy)
    found = ours(call, [x.astype("f4"), W.astype("f4")], dy.astype("f4"))
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == np.float32
        assert np.abs(a - b).max() < 4e-6 * np.abs(b).max()


LAYOUTS: dict[str, Callable[[Host], Host]] = {
    "plain": lambda a: a,
    "batch last": lambda a: np.ascontiguousarray(a.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2),
    "channels last": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "sliced": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
}


@SETTINGS
@given(
    call=st.one_of(convolutions(), three_wide(), transposed(), pools()), block=block_sizes,
    layout=st.sampled_from(sorted(LAYOUTS)), dtype=st.sampled_from(["float32", "float64"]),
)  # fmt: skip
def test_replays_are_equal_to_the_bit(
    call: Call, block: int, layout: str, dtype: str, numpy_only: None
) -> None:
    """y and dx are returned, larger than what is copied; in any layout of x."""

    def f(x: Any, *others: Any) -> Any:
        tensors = [nnx.Tensor(a) for a in (x, *others)]
        for t in tensors:
            t.requires_grad = True
        y = getattr(nnx, call.op)(*tensors, **call.attrs)
        y.backward(nnx.multiply(y.data, 0.5))
        return y, [t.grad for t in tensors]

    with Tuned(block, 1):
        step = capture(f)
        try:
            for seed in range(4):
                x, *others = (a.astype(dtype) for a in call.arrays(seed))
                x = LAYOUTS[layout](x)
                (y, grads), (again, regrads) = f(x, *others), step(x, *others)
                for a, b in zip([y.data, *grads], [again.data, *regrads], strict=True):
                    assert a.dtype == b.dtype == dtype and np.array_equal(a, b)
        except nnx.ShapeError:
            return
    assert "1 plan" in repr(step)
