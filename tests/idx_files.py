"""IDX files written by `struct` alone, to hold against nnx's reader."""

from __future__ import annotations

import struct
from collections.abc import Sequence

CODES = {"B": 0x08, "b": 0x09, "h": 0x0B, "i": 0x0C, "f": 0x0D, "d": 0x0E}


def idx(values: Sequence[float], shape: Sequence[int], code: str = "B") -> bytes:
    """An IDX file's bytes; `code` is struct's letter for the dtype."""
    header = struct.pack(f">HBB{len(shape)}I", 0, CODES[code], len(shape), *shape)
    return header + struct.pack(f">{len(values)}{code}", *values)
