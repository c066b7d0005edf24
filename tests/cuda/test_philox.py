"""Random numbers by Philox4x32-10: the published values, and a NumPy of its own."""

from __future__ import annotations

from typing import Any

import fake_cupy
import harness
import numpy as np
import pytest
from fake_cupy import FakeCupy
from hypothesis import given, settings
from hypothesis import strategies as st
from launches import agree, normal

import nnx
from nnx import layers as L
from nnx_cupy import launch, philox

Words = np.ndarray[Any, Any]
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
# Counter, key and words from Random123's tests/kat_vectors: "philox4x32 10".
PUBLISHED = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def hexadecimal(text: str) -> Words:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def reference(counters: Words, key: int) -> Words:
    """Ten rounds on rows of four words, in 64-bit arithmetic."""
    c = counters.astype(np.uint64)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[:, 0], np.uint64(0xCD9E8D57) * c[:, 2]
        low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
        c = np.stack([
            (p1 >> high) ^ c[:, 1] ^ np.uint64(k0), p1 & low,
            (p0 >> high) ^ c[:, 3] ^ np.uint64(k1), p0 & low,
        ], axis=1)  # fmt: skip
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c.astype(np.uint32)


def expected(size: int, key: int) -> Words:
    """In float64: the upper 24 bits."""
    i = np.arange(-(-size // 4), dtype=np.uint64)
    zero = np.zeros_like(i)
    words = reference(np.stack([i, zero, zero, zero], axis=1), key)
    return (words.reshape(-1)[:size] >> 8).astype(np.float64) / 2**24


def test_the_reference_gives_the_published_words() -> None:
    for counter, key, words in PUBLISHED:
        low, high = map(int, hexadecimal(key))
        got = reference(hexadecimal(counter)[None], low | high << 32)
        np.testing.assert_array_equal(got[0], hexadecimal(words))


@pytest.mark.skipif(harness.COMPILER is None, reason=harness.NEEDS)
def test_the_kernel_gives_the_published_words() -> None:
    library = harness.library(launch.source("philox.cu"), launch.options("float32", {}))
    counters, keys, words = (np.stack([hexadecimal(row[i]) for row in PUBLISHED]) for i in range(3))
    got = np.zeros_like(words)
    library.launch("words", (1,), (32,), [counters, keys, got, 3])
    np.testing.assert_array_equal(got, words)


@each_dtype
@pytest.mark.parametrize("size", [1, 3, 4, 5, 1001, 300000])
def test_uniform(size: int, dtype: str, cupy: FakeCupy) -> None:
    rng = np.random.default_rng(7)
    key = int(np.random.default_rng(7).integers(2**63))
    cupy.launched.clear()
    got = nnx.get_backend().uniform((size,), np.dtype(dtype), rng)
    assert cupy.launched == ["uniform"] and got.dtype == dtype
    np.testing.assert_array_equal(got.get(), expected(size, key))


def test_a_key_in_device_memory_gives_the_same(cupy: FakeCupy) -> None:
    key = 2**62 + 12345
    drawn = [cupy.empty((50,), "float32") for _ in range(2)]
    philox.fill(drawn[0], key)
    philox.fill(drawn[1], nnx.asarray(np.array([key])))
    np.testing.assert_array_equal(drawn[0].get(), drawn[1].get())
    np.testing.assert_array_equal(drawn[0].get(), expected(50, key))


def words_of(rng: np.random.Generator) -> Words:
    return np.array(philox.words_of(rng.bit_generator.state["state"]), np.uint64)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**127 - 1), st.integers(1, 70))
def test_keys_are_those_of_numpys_generator(state: int, half: int, count: int) -> None:
    """From any state; the copy on the device goes on from where it was."""
    rng = np.random.default_rng()
    whole: Any = rng.bit_generator.state
    rng.bit_generator.state = {**whole, "state": {"state": state, "inc": 2 * half + 1}}
    with pytest.MonkeyPatch.context() as patch:
        cupy = fake_cupy.install(patch, FakeCupy())
        words = cupy.asarray(words_of(rng))
        keys = cupy.empty((count,), "int64")
        for _ in range(2):
            philox.next_keys(words, keys)
            expected = [philox.key_of(rng) for _ in range(count)]
            np.testing.assert_array_equal(keys.get(), expected)
            np.testing.assert_array_equal(
                words.get(), np.array(philox.words_of(rng.bit_generator.state["state"]), np.uint64)
            )


def test_numbers_are_uniform_and_not_correlated() -> None:
    """Mean, variance, and products of neighbours and of neighbouring keys, each within 5 sigma."""
    n = 100_000
    u, v = expected(n, 1) - 0.5, expected(n, 2) - 0.5
    assert abs(u.mean()) < 5 / np.sqrt(12 * n)
    assert abs((u * u).mean() - 1 / 12) < 5 / np.sqrt(180 * n)
    for a, b in ((u[1:], u[:-1]), (u, v)):
        assert abs((a * b).mean()) < 5 / (12 * np.sqrt(n))


@each_dtype
@pytest.mark.parametrize("p", [0.0, 0.3, 0.99])
def test_dropout(p: float, dtype: str, cupy: FakeCupy) -> None:
    for shape in ((1,), (33, 40), (7, 3)):
        drawn = np.random.default_rng(1).random(shape).astype(dtype)
        drawn.flat[0] = p  # which is kept
        x = normal(0, shape, dtype)
        agree(cupy, nnx.dropout, x, drawn, launches=["dropout", "dropout"], p=p)


def test_a_seed_gives_the_same_masks_again(cupy: FakeCupy) -> None:
    layer, x = L.Dropout(0.3), nnx.asarray(np.ones((40, 50), "float32"))
    made = []
    for seed in (1, 1, 2):
        nnx.seed(seed)
        made.append([layer(nnx.Tensor(x)).data.get() for _ in range(2)])
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0][0], made[0][1]) and not np.array_equal(made[0], made[2])
    assert 0.25 < (made[0][0] == 0).mean() < 0.35


def test_no_number_is_drawn_for_an_empty_array(cupy: FakeCupy) -> None:
    assert nnx.get_backend().uniform((0, 3), np.dtype("float32"), np.random.default_rng()).size == 0
