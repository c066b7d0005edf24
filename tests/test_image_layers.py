"""Convolutions, pools and norms as layers, with all options, in train and eval: PyTorch's too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch_images
from against_torch import CLOSE, agree, put, torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L

F = torch.nn.functional
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
small, sizes = st.integers(1, 3), st.integers(1, 4)
Pairs = list[tuple[Any, Any]]


def wide(layer: Any) -> Any:
    """In float64, with every parameter drawn."""
    rng = np.random.default_rng(5)
    layer.astype("float64")
    for p in layer.parameters():
        p.data = rng.normal(size=p.shape)
    return layer


def same(layer: Any, theirs: Any, **names: str) -> Pairs:
    """Give PyTorch's layer our parameters; the pairs of gradients."""
    pairs: Pairs = []
    for ours, other in names.items():
        p, q = getattr(layer, ours), getattr(theirs, other)
        if p is None:
            assert q is None
            continue
        put(q, p)
        pairs.append((p, lambda q=q: q.grad))
    return pairs


def in_both_modes(layer: Any, theirs: Any, x: Any, pairs: Pairs) -> None:
    for mode in (True, False):
        layer.train(mode)
        if isinstance(theirs, torch.nn.Module):
            theirs.train(mode).zero_grad()
        agree(layer, theirs, [x], pairs)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


@st.composite
def convolutions(draw: Any, n: int) -> tuple[Any, Any, tuple[int, ...]]:
    """The layer, PyTorch's, and a shape of images that are large enough for the window."""
    size = draw(st.tuples(*[st.integers(1, 3)] * n))
    groups = draw(st.sampled_from([1, 2, 3]))
    deep = draw(st.booleans())  # a kernel for each channel alone
    n_in = groups if deep else groups * draw(small)
    n_out = groups * draw(small)
    options: dict[str, Any] = {
        "stride": draw(st.tuples(*[small] * n)), "dilation": draw(st.tuples(*[small] * n)),
        "groups": groups, "bias": draw(st.booleans()),
    }  # fmt: skip
    padding = draw(st.sampled_from(["same", "valid", 0, 1, (2, 1)[:n]]))
    if padding == "same":
        options["stride"] = (1,) * n
        # PyTorch warns where the two sides differ
        size = tuple(k if d * (k - 1) % 2 == 0 else k + 1
                     for k, d in zip(size, options["dilation"], strict=True))  # fmt: skip
    options["padding"] = padding
    ours, other = {1: (L.Conv1d, torch.nn.Conv1d), 2: (L.Conv2d, torch.nn.Conv2d)}[n]
    spans = [d * (k - 1) + 1 for d, k in zip(options["dilation"], size, strict=True)]
    image = [span + draw(st.integers(0, 4)) for span in spans]
    layer = wide(ours(n_in, n_out, size if n > 1 else size[0], **options))
    theirs = other(n_in, n_out, size, dtype=torch.float64, **options)
    return layer, theirs, (draw(sizes), n_in, *image)


@SETTINGS
@given(case=convolutions(1))
def test_conv1d(case: Any) -> None:
    layer, theirs, shape = case
    in_both_modes(layer, theirs, normal(*shape), same(layer, theirs, W="weight", b="bias"))


@SETTINGS
@given(case=convolutions(2))
def test_conv2d(case: Any) -> None:
    layer, theirs, shape = case
    in_both_modes(layer, theirs, normal(*shape), same(layer, theirs, W="weight", b="bias"))


@SETTINGS
@given(
    st.integers(1, 2), small, small, st.tuples(small, small), st.tuples(small, small),
    st.tuples(small, small), st.tuples(st.integers(0, 1), st.integers(0, 1)), st.booleans(),
    st.data(),
)  # fmt: skip
def test_conv_transpose2d(
    groups: int, inner: int, outer: int, size: Any, stride: Any, dilation: Any, padding: Any,
    bias: bool, data: Any,
) -> None:  # fmt: skip
    options = {
        "stride": stride, "dilation": dilation, "padding": padding, "groups": groups, "bias": bias,
        "output_padding": tuple(data.draw(st.integers(0, s - 1)) for s in stride),
    }  # fmt: skip
    n_in, n_out = inner * groups, outer * groups
    layer = wide(L.ConvTranspose2d(n_in, n_out, size, **options))
    theirs = torch.nn.ConvTranspose2d(n_in, n_out, size, dtype=torch.float64, **options)
    x = normal(2, n_in, data.draw(st.integers(3, 5)), data.draw(st.integers(3, 5)))
    in_both_modes(layer, theirs, x, same(layer, theirs, W="weight", b="bias"))


@SETTINGS
@given(
    st.tuples(small, small), st.one_of(st.none(), st.tuples(small, small)), st.booleans(),
    st.booleans(), st.tuples(sizes, sizes, st.integers(4, 7), st.integers(4, 7)),
)  # fmt: skip
def test_pools(size: Any, stride: Any, pads: bool, counts: bool, shape: Any) -> None:
    padding = tuple(k // 2 for k in size) if pads else 0
    x = normal(*shape)
    in_both_modes(
        L.MaxPool2d(size, stride, padding), torch.nn.MaxPool2d(size, stride, padding), x, []
    )
    average = torch.nn.AvgPool2d(size, stride, padding, count_include_pad=counts)
    in_both_modes(L.AvgPool2d(size, stride, padding, counts), average, x, [])
    in_both_modes(L.GlobalAvgPool2d(), lambda x: F.adaptive_avg_pool2d(x, 1)[..., 0, 0], x, [])


images = st.tuples(sizes, sizes, st.integers(1, 6), st.integers(1, 6))


@SETTINGS
@given(images, st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2), st.floats(-2, 2))
def test_pad(shape: Any, widths: Any, value: float) -> None:
    (above, below), (left, right) = widths
    layer = L.Pad2d(widths, value)
    x = normal(*shape)
    in_both_modes(layer, torch.nn.ConstantPad2d((left, right, above, below), value), x, [])


@SETTINGS
@given(
    images, st.booleans(), st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([("nearest", False), ("bilinear", False), ("bilinear", True)]),
)  # fmt: skip
def test_upsample(shape: Any, scaled: bool, to: Any, how: tuple[str, bool]) -> None:
    mode, corners = how
    options = {"scale": to} if scaled else {"size": to}
    layer = L.Upsample(**options, mode=mode, align_corners=corners)
    theirs = lambda x: torch_images.upsample(x, **options, mode=mode, align_corners=corners)  # noqa: E731
    in_both_modes(layer, theirs, normal(*shape), [])


BATCHES: dict[str, tuple[Any, Any, Callable[..., tuple[int, ...]]]] = {
    "rows": (L.BatchNorm1d, torch.nn.BatchNorm1d, lambda n, c, a, b: (n + 1, c)),
    "series": (L.BatchNorm1d, torch.nn.BatchNorm1d, lambda n, c, a, b: (n, c, a + 1)),
    "images": (L.BatchNorm2d, torch.nn.BatchNorm2d, lambda n, c, a, b: (n, c, a + 1, b)),
}


@pytest.mark.parametrize("kind", BATCHES)
@SETTINGS
@given(
    st.tuples(sizes, sizes, sizes, sizes), st.booleans(), st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    st.sampled_from([1e-5, 0.1]),
)  # fmt: skip
def test_batch_norm(kind: str, given: Any, affine: bool, momentum: float, eps: float) -> None:
    """Gradients by the batch in training, by what was followed in eval; the statistics too."""
    ours, other, shape_of = BATCHES[kind]
    shape = shape_of(*given)
    layer = wide(ours(shape[1], eps=eps, momentum=momentum, affine=affine))
    theirs = other(shape[1], eps, momentum, affine, dtype=torch.float64)
    pairs = same(layer, theirs, gamma="weight", beta="bias")
    agree(layer, theirs, [normal(*shape)], pairs)
    theirs(torch.tensor(normal(*shape)))  # ours was called twice, on Tensors and on arrays
    for seed in (1, 2):
        x = normal(*shape, seed=seed) * 3 + 2
        layer(x), theirs(torch.tensor(x))
    np.testing.assert_allclose(layer.mean.numpy(), theirs.running_mean.numpy(), **CLOSE)
    np.testing.assert_allclose(layer.var.numpy(), theirs.running_var.numpy(), **CLOSE)
    layer.eval(), theirs.eval()
    theirs.zero_grad()
    before = layer.mean.numpy().copy()
    agree(layer, theirs, [normal(*shape, seed=3)], pairs)
    np.testing.assert_array_equal(layer.mean.numpy(), before)


@SETTINGS
@given(
    st.lists(sizes, min_size=1, max_size=4), st.integers(1, 3), st.booleans(), st.booleans(),
    st.sampled_from([1e-5, 0.1]),
)  # fmt: skip
def test_layer_and_rms_norm(
    shape: list[int], ndim: int, affine: bool, bias: bool, eps: float
) -> None:
    last = tuple(shape[-ndim:])
    one = last[0] if len(last) == 1 else last
    layer = wide(L.LayerNorm(one, eps=eps, affine=affine, bias=bias))
    theirs: Any = torch.nn.LayerNorm(last, eps, affine, bias, dtype=torch.float64)
    x = normal(*shape)
    in_both_modes(layer, theirs, x, same(layer, theirs, gamma="weight", beta="bias"))
    layer = wide(L.RMSNorm(one, eps=eps, affine=affine))
    theirs = torch.nn.RMSNorm(last, eps, affine, dtype=torch.float64)
    in_both_modes(layer, theirs, x, same(layer, theirs, gamma="weight"))


@SETTINGS
@given(small, small, st.lists(sizes, max_size=2), sizes, st.booleans(), st.sampled_from([1e-5, 1]))
def test_group_norm(
    groups: int, each: int, places: list[int], n: int, affine: bool, eps: float
) -> None:
    channels = groups * each
    layer = wide(L.GroupNorm(groups, channels, eps=eps, affine=affine))
    theirs = torch.nn.GroupNorm(groups, channels, eps, affine, dtype=torch.float64)
    x = normal(n, channels, *places)
    if x.size // (n * groups) > 1:  # of one value PyTorch refuses the variance
        in_both_modes(layer, theirs, x, same(layer, theirs, gamma="weight", beta="bias"))


@SETTINGS
@given(st.floats(0, 0.9), st.lists(sizes, min_size=1, max_size=3), st.integers(0, 99))
def test_dropout(p: float, shape: list[int], seed: int) -> None:
    """The mask is drawn here; what is made of it, and passed back, is PyTorch's."""
    nnx.seed(seed)
    layer, x = L.Dropout(p), normal(*shape) + 5
    y = layer.forward(x)
    kept = torch.tensor(np.asarray(y != 0))
    leaf = torch.tensor(x, requires_grad=True)
    expected = torch.where(kept, leaf / (1 - p), 0.0)
    dout = normal(*shape, seed=1)
    expected.backward(torch.tensor(dout))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(dout), leaf.grad.numpy(), rtol=1e-12)
    assert layer.eval().forward(x) is x


def test_pools_of_ints() -> None:
    """As images of bytes are; padding would be no int."""
    x = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(L.MaxPool2d(2)(x), [[[[5, 7], [13, 15]]]])


REFUSED: list[tuple[Any, type[nnx.NnxError], str]] = [
    (lambda: L.Conv2d(1, 2, 5)(np.zeros((1, 1, 3, 7), np.float32)), nnx.ShapeError,
     "in Conv2d(1, 2, size=5): conv2d: the window covers 5 entries of axis 2, but x of shape "
     "(1, 1, 3, 7) has 3 there; pad more, or take a smaller window"),
    (lambda: L.Conv1d(1, 2, 3, dilation=3, padding=1)(np.zeros((1, 1, 4), np.float32)),
     nnx.ShapeError,
     "in Conv1d(1, 2, size=3, padding=1, dilation=3): conv1d: the window covers 7 entries of axis "
     "2 (size 3, dilation 3), but x of shape (1, 1, 4) has 4 there and 6 with its padding (1, 1); "
     "pad more, or take a smaller window"),
    (lambda: L.Conv2d(3, 2, 3)(np.zeros((1, 2, 8, 8), np.float32)), nnx.ShapeError,
     "in Conv2d(3, 2, size=3): conv2d: x has shape (1, 2, 8, 8), so 2 channels; W of shape "
     "(2, 3, 3, 3) = (out, in / groups, ...) with groups=1 expects 3, and 2 must be a multiple of "
     "groups"),
    (lambda: L.Conv2d(3, 2, 3)(np.zeros((1, 8, 8, 3), np.float32)), nnx.ShapeError,
     "in Conv2d(3, 2, size=3): conv2d: x has shape (1, 8, 8, 3), so 8 channels; W of shape "
     "(2, 3, 3, 3) = (out, in / groups, ...) with groups=1 expects 3, and 2 must be a multiple of "
     "groups; of images (N, H, W, in) give nnx.permute_dims(x, (0, 3, 1, 2))"),
    (lambda: L.Conv2d(3, 2, 3, groups=2), nnx.OptionError,
     "Conv2d(3, 2, groups=2): both numbers of channels must be multiples of groups"),
    (lambda: L.Conv2d(1, 2, 3, stride=2, padding="same"), nnx.OptionError,
     "Conv2d: padding='same' needs a stride of 1, given (2, 2); give the padding as numbers"),
    (lambda: L.ConvTranspose2d(1, 1, 2, padding=3)(np.zeros((1, 1, 3, 3), np.float32)),
     nnx.ShapeError,
     "in ConvTranspose2d(1, 1, size=2, padding=3): conv_transpose2d: x of shape (1, 1, 3, 3) with "
     "W of shape (1, 1, 2, 2) and padding=3 gives images of -2 x -2; expected at least 1 x 1"),
    (lambda: L.MaxPool2d(5)(np.zeros((1, 1, 3, 3), np.float32)), nnx.ShapeError,
     "in MaxPool2d(5): max_pool2d: the window covers 5 entries of axis 2, but x of shape "
     "(1, 1, 3, 3) has 3 there; pad more, or take a smaller window"),
    (lambda: L.MaxPool2d(2, padding=1)(np.zeros((1, 1, 3, 3), np.uint8)), nnx.DtypeError,
     "in MaxPool2d(2, padding=1): max_pool2d: x is uint8 and padded, expected floats: "
     "nnx.asarray(x, 'float32')"),
    (lambda: nnx.group_norm(np.zeros((2, 4, 0), np.float32), groups=2), nnx.ShapeError,
     "group_norm: x has shape (2, 4, 0), expected (N, C, ...), all but N at least 1"),
    (lambda: L.AvgPool2d(2, padding=2)(np.zeros((1, 1, 3, 3), np.float32)), nnx.OptionError,
     "in AvgPool2d(2, padding=2): avg_pool2d: padding=2 with size=2, expected at most half the "
     "size, so that each window sees some of x"),
    (lambda: L.GlobalAvgPool2d()(np.zeros((2, 3), np.float32)), nnx.ShapeError,
     "in GlobalAvgPool2d(): x has shape (2, 3), expected (N, C, H, W)"),
    (lambda: L.Pad2d(-1), nnx.OptionError,
     "Pad2d: padding=-1, expected an int of at least 0, or for each of 2 axes an int or a pair "
     "(before, after)"),
    (lambda: L.Upsample(0)(np.zeros((1, 1, 2, 2), np.float32)), nnx.OptionError,
     "in Upsample(0): upsample: scale=0, expected an int of at least 1 or 2 of them"),
    (lambda: L.Upsample(2, mode="cubic")(np.zeros((1, 1, 2, 2), np.float32)), nnx.OptionError,
     "in Upsample(2, mode='cubic'): upsample: mode='cubic', expected 'nearest' or 'bilinear'"),
    (lambda: L.BatchNorm1d(3)(np.zeros((1, 3), np.float32)), nnx.ShapeError,
     "in BatchNorm1d(3): x has shape (1, 3): a channel has 1 value, which has no variance to train "
     "with; give a larger batch, or call eval() first"),
    (lambda: L.BatchNorm2d(3)(np.zeros((2, 4, 5, 5), np.float32)), nnx.ShapeError,
     "in BatchNorm2d(3): x has shape (2, 4, 5, 5), expected (N, 3, H, W)"),
    (lambda: L.LayerNorm((2, 3))(np.zeros((3, 2), np.float32)), nnx.ShapeError,
     "in LayerNorm((2, 3)): x has shape (3, 2), expected (..., 2, 3)"),
    (lambda: L.GroupNorm(2, 3), nnx.OptionError,
     "GroupNorm(2, 3): 3 channels do not fall into 2 groups"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_messages(call: Any, kind: type[nnx.NnxError], message: str) -> None:
    with pytest.raises(kind) as error:
        call()
    assert str(error.value) == message
