"""The IDX reader: every dtype, every way a file can be broken, and mutated bytes."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_files import CODES, idx

from nnx.data import read_idx
from nnx.errors import DataError, NnxError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes, name: str = "file.idx") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("code", "dtype", "values"),
    [
        ("B", "uint8", [0, 1, 127, 128, 255, 7]),
        ("b", "int8", [0, -1, 127, -128, 5, 7]),
        ("h", "int16", [0, -1, 258, -32768, 5, 7]),
        ("i", "int32", [0, -1, 16909060, -(2**31), 5, 7]),
        ("f", "float32", [0.0, -1.5, 0.25, 1e6, 5.0, 7.0]),
        ("d", "float64", [0.0, -1.5, 0.1, 1e300, 5.0, 7.0]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_dtype_plain_and_gzip(
    write: Write,
    code: str,
    dtype: str,
    values: list[float],
    packed: bool,
) -> None:
    content = idx(values, (2, 3), code)
    array = read_idx(write(gzip.compress(content) if packed else content))
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.tolist() == [values[:3], values[3:]]
    array[0, 0] = 1  # an array of its own


def test_content_and_not_the_name_says_whether_it_is_gzip(write: Write) -> None:
    content = idx([1, 2], (2,))
    assert read_idx(write(content, "unpacked.gz")).tolist() == [1, 2]
    assert read_idx(write(gzip.compress(content), "packed")).tolist() == [1, 2]
    assert read_idx(str(write(content))).tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), (1,) * 64])
def test_odd_shapes(write: Write, shape: tuple[int, ...]) -> None:
    n = int(np.prod(shape))
    assert read_idx(write(idx([7] * n, shape))).shape == shape


def test_longer_than_one_piece(write: Write) -> None:
    values = np.arange(3_000_000, dtype=np.uint32).astype(np.uint8)
    content = idx([], (3000, 1000)) + values.tobytes()
    assert np.array_equal(read_idx(write(gzip.compress(content, 1))).ravel(), values)


GOOD = idx(range(6), (2, 3))
BROKEN = {
    "empty": (b"", r"not an IDX file: it begins with nothing, expected 00 00, a dtype \(08, 09"),
    "magic": (b"\x89PNG" + GOOD, "not an IDX file: it begins with 89 50 4e 47"),
    "dtype": (b"\0\0\x0a\x01", "not an IDX file: it begins with 00 00 0a 01"),
    "scalar": (b"\0\0\x08\0\x05", "0 dimensions, expected 1 to 64"),
    "dimensions": (b"\0\0\x08\xff" + b"\0" * 1020, "255 dimensions, expected 1 to 64"),
    "header": (GOOD[:9], "truncated: 2 dimensions take 8 bytes of header, 5 are there"),
    "values": (GOOD[:-1], "truncated: its header says 2 x 3 of uint8, 6 bytes, and 5 follow"),
    "trailing": (GOOD + b"\0", "goes on after the 6 bytes of 2 x 3 uint8"),
    "huge": (idx([], (2**32 - 1,) * 2), "more than an address space holds"),
    "huge, but for an axis of length 0": (
        idx([], (0, 2**32 - 1, 2**32 - 1)),
        "more than an address space holds",
    ),
    "claims 4 GB": (idx([], (2**32 - 1,)), "4294967295 bytes, and 0 follow"),
    "gzip cut": (gzip.compress(GOOD)[:-3], "damaged gzip file .*get it again"),
    "gzip checksum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "damaged gzip file .*CRC"),
    "gzip of a truncated file": (gzip.compress(GOOD[:-2]), "truncated: .* 6 bytes, and 4 follow"),
    "gzip data": (gzip.compress(GOOD)[:10] + b"\xff" * 20, "damaged gzip file"),
    "gzip and more": (gzip.compress(GOOD) + b"more", "damaged gzip file"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_malformed_files_say_what_is_wrong_and_where(
    write: Write,
    content: bytes,
    message: str,
) -> None:
    path = write(content, "broken.idx")
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent cannot be read \(No such file.*expected an IDX"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_alone_allocates_nothing(write: Write, packed: bool) -> None:
    content = idx([], (2**31,)) + b"\0" * 1000
    path = write(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="and 1000 follow"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


SEEDS = [idx(range(6), (2, 3)), idx([0.5, -2.0], (2,), "f"), idx([1, -1, 300], (3, 1), "h")]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file, packed or not, with a few bytes set, taken out or put in."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    packed = draw(st.sampled_from(["no", "before", "after"]))
    if packed == "before":
        content = bytearray(gzip.compress(bytes(content), mtime=0))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        byte = draw(st.integers(0, 255))
        match draw(st.sampled_from(["set", "cut", "insert", "end"])):
            case "set" if at < len(content):
                content[at] = byte
            case "cut":
                del content[at : at + byte % 5]
            case "insert":
                content.insert(at, byte)
            case "end":
                del content[at:]
    return gzip.compress(bytes(content), mtime=0) if packed == "after" else bytes(content)


def decode(content: bytes) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
    """What an IDX file means, by `struct`; None where it is malformed."""
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        code = {number: code for code, number in CODES.items()}[content[2]]
        shape = struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]])
        values = struct.unpack(
            f">{int(np.prod(shape, dtype=object))}{code}", content[4 + 4 * content[3] :]
        )
    except Exception:
        return None
    return (shape, values) if content[:2] == b"\0\0" and shape else None


@settings(max_examples=400, deadline=None)
@given(content=mutated())
def test_any_bytes_give_an_nnx_error_or_what_they_mean(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.idx"
    path.write_bytes(content)
    meaning = decode(content)
    try:
        array = read_idx(path)
    except NnxError as error:
        assert meaning is None or "address space" in str(error) or "dimensions" in str(error)
    else:
        assert meaning is not None
        shape, values = meaning
        assert array.shape == shape
        # NaN differs from itself: compare the bytes that the values have in the file.
        code = {1: "bB", 2: "h", 4: "if", 8: "d"}[array.dtype.itemsize]
        code = next(c for c in code if np.dtype(c) == array.dtype)
        assert struct.pack(f">{array.size}{code}", *array.ravel().tolist()) == struct.pack(
            f">{len(values)}{code}", *values
        )
