"""Random numbers made on the device: a key from the host's generator, a counter for each four.

The host's generator thus decides all: seeds, checkpoints and generators of one's own hold for what
is drawn here too. A graph has a copy of it, which gives the same keys launch after launch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .launch import THREADS, Source, blocks_for

_source = Source("philox.cu")


def key_of(rng: np.random.Generator) -> int:
    """The key of the next array."""
    return int(rng.integers(2**63))


def words_of(state: dict[str, int]) -> list[int]:
    """A PCG64's "state" and "inc" as `next_keys` has them."""
    return [n >> shift & (2**64 - 1) for n in (state["state"], state["inc"]) for shift in (0, 64)]


def next_keys(state: Any, keys: Any) -> None:
    """Into keys what `key_of` gives, by a generator that lies in device memory and goes on.

    state   uint64 of four, see `words_of`;   keys   int64
    """
    _source("next_keys", np.dtype(np.float32))(1, 32, state, keys, keys.size)


def fill(y: Any, key: Any) -> None:
    """Random numbers in [0, 1) into y.   key: an int, or a device array int64 of one"""
    if y.size:
        at, value = (None, key) if isinstance(key, int) else (key, 0)
        run = _source("uniform", y.dtype)
        run(blocks_for(y.size, 4), THREADS, y, at, value, y.size)
