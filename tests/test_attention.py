"""Embeddings, positions, attention and transformers, against PyTorch."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from against_torch import agree, put, torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import layers as L
from nnx.random import generator

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.integers(1, 5)


def wide(layer: L.Layer, seed: int = 0) -> Any:
    """In float64, with every parameter drawn, so that none is 0 or 1 by chance."""
    layer.astype("float64")
    rng = np.random.default_rng(seed)
    for p in layer.parameters():
        p.data = rng.normal(size=p.shape) * 0.5
    return layer


def linear(ours: L.Linear, W: Any, b: Any) -> list[tuple[Any, Any]]:
    """Give PyTorch's weight and bias the values of a Linear; the pairs of their gradients."""
    put(W, ours.W.numpy().T)
    pairs: list[tuple[Any, Any]] = [(ours.W, lambda: W.grad.T)]
    if ours.b is not None:
        put(b, ours.b)
        pairs.append((ours.b, lambda: b.grad))
    return pairs


@SETTINGS
@given(sizes, sizes, st.lists(st.integers(0, 4), min_size=1, max_size=2), st.booleans())
def test_embedding(size: int, dim: int, shape: list[int], pads: bool) -> None:
    layer = wide(L.Embedding(size, dim, padding=size - 1 if pads else None))
    theirs = torch.nn.Embedding(size, dim, padding_idx=layer.padding, dtype=torch.float64)
    put(theirs.weight, layer.W)
    ids = np.random.default_rng(1).integers(0, size, shape)
    agree(layer, theirs, [ids], [(layer.W, lambda: theirs.weight.grad)])


def test_the_padding_of_an_embedding_begins_as_zeros_and_stays() -> None:
    layer = L.Embedding(5, 3, padding=2)
    optimizer = nnx.optim.SGD(layer.parameters(), lr=1.0)
    loss = nnx.sum(layer(nnx.Tensor(np.array([2, 2, 1]))) + 1)
    loss.backward()
    optimizer.step()
    assert not layer.W.numpy()[2].any() and layer.W.numpy()[1].all()


def test_sinusoidal_positions_are_the_papers() -> None:
    layer = L.SinusoidalPositions(7, 5)
    P = layer.P.numpy()
    for t in range(7):
        for i in range(5):
            angle = t / 10000 ** ((i - i % 2) / 5)
            assert P[t, i] == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-6)
    x = np.ones((2, 4, 5), np.float32)
    np.testing.assert_array_equal(layer.forward(x), x + P[:4])
    assert [n for n, _ in layer.named_state()] == ["P"] and not layer.parameters()


@SETTINGS
@given(sizes, sizes)
def test_learned_positions(length: int, dim: int) -> None:
    layer = wide(L.LearnedPositions(length, dim))
    used = max(1, length - 1)
    P = torch.tensor(layer.P.numpy(), requires_grad=True)
    x = np.random.default_rng(0).normal(size=(2, used, dim))
    agree(layer, lambda x: x + P[:used], [x], [(layer.P, lambda: P.grad)])


def _attention(layer: L.MultiHeadAttention, bias: bool) -> tuple[Any, list[tuple[Any, Any]]]:
    theirs = torch.nn.MultiheadAttention(
        layer.dim, layer.heads, bias=bias, batch_first=True, dtype=torch.float64
    )
    pairs = linear(layer.qkv, theirs.in_proj_weight, theirs.in_proj_bias)
    return theirs, pairs + linear(layer.out, theirs.out_proj.weight, theirs.out_proj.bias)


@SETTINGS
@given(
    sizes, sizes, sizes, st.sampled_from([(2, 1), (4, 2), (6, 3), (3, 3)]),
    st.booleans(), st.booleans(), st.sampled_from([None, "LS", "NLS", "padding", "heads"]),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_multi_head_attention(
    n: int, length: int, other: int, width: tuple[int, int], bias: bool, causal: bool,
    masked: str | None, crossed: bool, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    dim, heads = width
    keys = other if crossed else length
    layer = wide(L.MultiHeadAttention(dim, heads, causal=causal, bias=bias), seed)
    theirs, pairs = _attention(layer, bias)
    shape = {
        "LS": (length, keys), "NLS": (n, length, keys), "padding": (n, 1, keys),
        "heads": (n, heads, length, keys),
    }.get(masked or "")  # fmt: skip
    mask = None
    seen = np.ones((n, heads, length, keys), bool)
    if shape is not None:
        mask = rng.random(shape) < 0.6
        mask[..., 0] = True  # PyTorch gives NaN where a query may look nowhere
        seen &= mask[:, None] if mask.ndim == 3 else mask
    if causal:
        if keys < length:  # likewise
            return
        seen &= np.tril(np.ones((length, keys), bool), keys - length)
    hidden = torch.tensor(~seen.reshape(n * heads, length, keys))
    x, context = rng.normal(size=(n, length, dim)), rng.normal(size=(n, keys, dim))

    def attend(x: Any, context: Any = None, mask: Any = None) -> Any:
        memory = x if context is None else context
        return theirs(x, memory, memory, attn_mask=hidden, need_weights=False)[0]

    for mode in (True, False):
        layer.train(mode), theirs.train(mode)
        theirs.zero_grad()
        agree(layer, attend, [x, context if crossed else None, mask], pairs)


@SETTINGS
@given(sizes, sizes, st.sampled_from([(2, 1), (4, 2)]), st.booleans(), st.booleans())
def test_transformer_block(
    n: int, length: int, width: tuple[int, int], bias: bool, first: bool
) -> None:
    dim, heads = width
    layer = wide(L.TransformerBlock(dim, heads, hidden=5, bias=bias, norm_first=first, causal=True))
    theirs = torch.nn.TransformerEncoderLayer(
        dim, heads, 5, 0.0, "gelu", batch_first=True, norm_first=first, bias=bias,
        dtype=torch.float64,
    )  # fmt: skip
    attention = theirs.self_attn
    pairs = linear(layer.attention.qkv, attention.in_proj_weight, attention.in_proj_bias)
    pairs += linear(layer.attention.out, attention.out_proj.weight, attention.out_proj.bias)
    pairs += linear(layer.mlp[0], theirs.linear1.weight, theirs.linear1.bias)
    pairs += linear(layer.mlp[3], theirs.linear2.weight, theirs.linear2.bias)
    for norm, other in ((layer.norm1, theirs.norm1), (layer.norm2, theirs.norm2)):
        put(other.weight, norm.gamma)
        pairs.append((norm.gamma, lambda w=other.weight: w.grad))
        if bias:
            put(other.bias, norm.beta)
            pairs.append((norm.beta, lambda b=other.bias: b.grad))
    hidden = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    x = np.random.default_rng(n).normal(size=(n, length, dim))
    agree(layer, lambda x: theirs(x, src_mask=hidden), [x], pairs)


def test_dropped_weights_and_their_gradients() -> None:
    """The draws are made here again, from the same seed; PyTorch does the rest."""
    layer = wide(L.MultiHeadAttention(6, 2, dropout=0.4, causal=True))
    nnx.seed(8)
    drawn = nnx.get_backend().uniform((3, 2, 5, 5), np.dtype("float64"), generator())
    kept = torch.tensor((drawn >= 0.4) / 0.6)
    W, b = (torch.tensor(p.numpy(), requires_grad=True) for p in (layer.qkv.W, layer.qkv.b))
    V, c = (torch.tensor(p.numpy()) for p in (layer.out.W, layer.out.b))

    def attend(x: Any) -> Any:
        parts = (x @ W + b).chunk(3, -1)
        q, k, v = (a.reshape(3, 5, 2, 3).transpose(1, 2) for a in parts)
        s = (q @ k.mT / math.sqrt(3)).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        return ((s.softmax(-1) * kept) @ v).transpose(1, 2).reshape(3, 5, 6) @ V + c

    nnx.seed(8)
    x = np.random.default_rng(0).normal(size=(3, 5, 6))
    leaf = torch.tensor(x, requires_grad=True)
    expected = attend(leaf)
    dout = np.random.default_rng(1).normal(size=x.shape)
    expected.backward(torch.tensor(dout))
    np.testing.assert_allclose(layer.forward(x), expected.detach().numpy(), rtol=1e-9)
    np.testing.assert_allclose(layer.backward(dout), leaf.grad.numpy(), rtol=1e-8, atol=1e-11)
    for p, q in ((layer.qkv.W, W), (layer.qkv.b, b)):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-8, atol=1e-11)


def test_dropout_of_attention_is_of_weights_and_in_training_only() -> None:
    nnx.seed(1)
    layer = wide(L.MultiHeadAttention(4, 2, dropout=0.5))
    x = np.random.default_rng(0).normal(size=(3, 6, 4))
    dropped = [layer.forward(x) for _ in range(2)]
    assert not np.array_equal(*dropped)
    layer.eval()
    kept = [layer.forward(x) for _ in range(2)]
    assert np.array_equal(*kept)


def test_gpt_is_its_formula_and_sees_no_later_ids() -> None:
    nnx.seed(0)
    model = wide(L.GPT(11, context=6, layers=2, heads=2, width=8))
    ids = np.random.default_rng(0).integers(0, 11, (2, 5))
    y = model.forward(ids)
    assert y.shape == (2, 5, 11)
    changed = ids.copy()
    changed[:, 3] = (ids[:, 3] + 1) % 11
    other = model.forward(changed)
    np.testing.assert_allclose(other[:, :3], y[:, :3], rtol=1e-12)
    assert np.abs(other[:, 3:] - y[:, 3:]).min() > 0
    W = torch.tensor(model.tokens.W.numpy(), requires_grad=True)
    P = torch.tensor(model.positions.P.numpy())
    x = W[torch.tensor(ids)] + P[:5]
    for block in model.blocks:
        x = _block(block, x)
    h = torch.nn.functional.layer_norm(x, (8,), torch.tensor(model.norm.gamma.numpy()))
    expected = h @ W.T
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-9)
    expected.sum().backward()
    model.forward(ids)
    model.backward(np.ones_like(y))
    np.testing.assert_allclose(model.tokens.W.grad, W.grad.numpy(), rtol=1e-8, atol=1e-10)


def _block(block: L.TransformerBlock, x: Any) -> Any:
    F, t = torch.nn.functional, lambda p: torch.tensor(p.numpy())
    q, k, v = (
        a.reshape(*a.shape[:2], 2, 4).transpose(1, 2)
        for a in (F.layer_norm(x, (8,), t(block.norm1.gamma)) @ t(block.attention.qkv.W)).split(
            8, -1
        )
    )
    y = (
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        .transpose(1, 2)
        .reshape(x.shape)
    )
    x = x + y @ t(block.attention.out.W)
    h = F.layer_norm(x, (8,), t(block.norm2.gamma)) @ t(block.mlp[0].W)
    return x + F.gelu(h) @ t(block.mlp[3].W)


def test_gpt_begins_as_its_paper_says() -> None:
    model = L.GPT(65, context=16, layers=8, heads=2, width=64)
    block = model.blocks[3]
    for W in (model.tokens.W, model.positions.P, block.attention.qkv.W, block.mlp[0].W):
        assert W.numpy().std() == pytest.approx(0.02, rel=0.05)
    for W in (block.attention.out.W, block.mlp[3].W):
        assert W.numpy().std() == pytest.approx(0.005, rel=0.05)
    assert all(p.ndim == 2 or (p.ndim == 1 and (p.numpy() == 1).all()) for p in model.parameters())


@pytest.mark.parametrize("causal", [False, True])
def test_long_sequences_take_memory_by_rows(causal: bool) -> None:
    """8 heads of 2,048: all scores at once are 134 MB, a block of them 4."""
    rng = np.random.default_rng(0)
    q, k, v = (
        nnx.Tensor(rng.normal(size=(8, 2048, 8)).astype(np.float32), requires_grad=True)
        for _ in range(3)
    )
    tracemalloc.start()
    y = nnx.attention(q, k, v, causal=causal)
    y.backward(np.ones(y.shape, np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    again = nnx.attention(q.data, k.data, v.data, causal=causal, rows=2048)
    np.testing.assert_allclose(y.data, again, rtol=1e-4, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    lead=st.lists(st.integers(1, 3), max_size=2), queries=st.integers(1, 150),
    keys=st.integers(1, 150), causal=st.booleans(), masked=st.booleans(), drops=st.booleans(),
    rows=st.none() | st.integers(1, 70), size=st.sampled_from([0.1, 1.0, 30.0]),
    swapped=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_attention_is_its_formula(
    lead: list[int], queries: int, keys: int, causal: bool, masked: bool, drops: bool,
    rows: int | None, size: float, swapped: bool, seed: int,
) -> None:  # fmt: skip
    """In one block of queries or several, with small scores and with ones that would overflow."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(*lead, n, e)) for n, e in ((queries, 4), (keys, 4), (keys, 3)))
    if swapped and lead:  # as heads lie in the rows of a matrix
        q, k, v = (np.swapaxes(np.swapaxes(x, -2, -3).copy(), -2, -3) for x in (q, k, v))
    q *= size
    scores = (*lead, queries, keys)
    mask = rng.random((queries, keys)) < 0.7 if masked else None
    drawn = rng.random(scores) if drops else None
    dy = rng.normal(size=(*lead, queries, 3))
    ours = [nnx.Tensor(x, requires_grad=True) for x in (q, k, v)]
    y = nnx.attention(*ours, None, mask, drawn, causal=causal, p=0.3, rows=rows)
    y.backward(dy)

    theirs = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    seen = torch.ones(scores, dtype=torch.bool)
    seen = seen.tril(keys - queries) if causal else seen
    seen = seen if mask is None else seen & torch.tensor(mask)
    s = (theirs[0] @ theirs[1].mT / 2).masked_fill(~seen, -torch.inf)
    w = torch.where(seen.any(-1, keepdim=True), s, 0.0).softmax(-1).masked_fill(~seen, 0.0)
    if drawn is not None:
        w = w * (torch.tensor(drawn) >= 0.3) / 0.7
    expected = w @ theirs[2]
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.data, expected.detach(), rtol=1e-9, atol=1e-10)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-9, atol=1e-10 * size)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_many_heads_is_that_of_each(causal: bool) -> None:
    """Some heads at a time, or with all scores kept, or with none."""
    rng = np.random.default_rng(0)
    for heads, length in (((3, 5), 130), ((2, 40), 130), ((70,), 100)):
        q, k, v, dy = (rng.normal(size=(*heads, length, 4)).astype(np.float32) for _ in range(4))
        whole = [nnx.Tensor(x, requires_grad=True) for x in (q, k, v)]
        y = nnx.attention(*whole, causal=causal)
        y.backward(dy)
        for at in [*np.ndindex(*heads)][::7]:
            one = [torch.tensor(x[at], requires_grad=True) for x in (q, k, v)]
            z = torch.nn.functional.scaled_dot_product_attention(
                *(x[None] for x in one), is_causal=causal
            )[0]
            z.backward(torch.tensor(dy[at]))
            np.testing.assert_allclose(y.data[at], z.detach(), rtol=1e-4, atol=1e-5)
            for a, b in zip(whole, one, strict=True):
                np.testing.assert_allclose(a.grad[at], b.grad, rtol=1e-4, atol=1e-5)
