"""Random numbers made on the device: a key from the host's generator, a counter for each four.

The host's generator thus stays the only state: seeds, checkpoints and generators of one's own hold
for what is drawn here too. A replay draws a key for each launch and writes it where `fill` looks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .launch import THREADS, Source, blocks_for

_source = Source("philox.cu")


def key_of(rng: np.random.Generator) -> int:
    """The key of the next array."""
    return int(rng.integers(2**63))


def fill(y: Any, key: Any) -> None:
    """Random numbers in [0, 1) into y.   key: an int, or a device array int64 of one"""
    if y.size:
        at, value = (None, key) if isinstance(key, int) else (key, 0)
        run = _source("uniform", y.dtype)
        run(blocks_for(y.size, 4), THREADS, y, at, value, y.size)
