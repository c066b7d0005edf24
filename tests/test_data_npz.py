"""The NPZ reader: what NumPy writes, every way an archive can be broken, and mutated bytes."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx.data import npz, read_npz
from nnx.errors import DataError, LabelError, NnxError, ShapeError

Write = Callable[..., Path]
X = np.arange(12, dtype=np.float32).reshape(3, 4)
T = np.array([2, 0, 1])


def saved(compressed: bool = True, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy(header: str, values: bytes, version: bytes = b"\1\0") -> bytes:
    """An `.npy` file by hand: magic, version, the header and its length, the values."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + values


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


def with_x(header: str, values: bytes = b"", **options: Any) -> bytes:
    """An archive whose x has that header."""
    t = npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", bytes(8))
    return archive({"x.npy": npy(header, values, **options), "t.npy": t})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes, name: str = "file.npz") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "?", "<i4", ">i2", "<f8", ">f4", "<f2"])
def test_every_dtype(write: Write, compressed: bool, dtype: str) -> None:
    x = (X % 2).astype(dtype)
    ds = read_npz(write(saved(compressed, x=x, t=T)), classes=3)
    assert ds.x.tolist() == x.tolist() and ds.t.tolist() == T.tolist()
    kept = np.dtype(dtype).newbyteorder("=") if x.dtype.kind == "f" else np.dtype("float32")
    assert (ds.x.dtype, ds.t.dtype, ds.classes) == (kept, np.int64, 3)
    assert ds.x.dtype.isnative
    ds.x[0, 0] = 7  # an array of its own


def test_shapes_stay_and_other_arrays_are_not_looked_at(write: Write) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    for order in (x, np.asfortranarray(x), x[:, ::-1].copy(order="K")):
        content = saved(images=order, labels=T[:2], note=np.array(["text"]))
        ds = read_npz(str(write(content)), "images", "labels", ["a", "b", "c"])
        assert ds.x.tolist() == order.tolist() and ds.x.shape == (2, 3, 4)
        assert (ds.name, ds.class_names, ds.image_shape) == ("file.npz", ("a", "b", "c"), None)
    assert read_npz(write(saved(x=X, t=T)), image_shape=(2, 2)).image_shape == (2, 2)
    assert len(read_npz(write(saved(x=X[:0], t=T[:0])))) == 0


def test_what_the_data_set_refuses(write: Write) -> None:
    with pytest.raises(ShapeError, match=r"file\.npz: x has 3 rows and t has 2"):
        read_npz(write(saved(x=X, t=T[:2])))
    with pytest.raises(LabelError, match=r"file\.npz: t\[0\] is 2, expected a class id in 0\.\.1"):
        read_npz(write(saved(x=X, t=T)), classes=2)
    with pytest.raises(ShapeError, match="x is a single number"):
        read_npz(write(saved(x=1.0, t=T)))


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("key", ["x", "t"])
def test_a_pickle_is_not_run(write: Write, tmp_path: Path, key: str) -> None:
    trap = tmp_path / "run"
    arrays: dict[str, Any] = {"x": X, "t": T}
    arrays[key] = np.array([Code(trap)] * 3, object)
    path = write(saved(**arrays))
    np.load(path, allow_pickle=True)[key]
    assert trap.exists()  # the trap works
    trap.unlink()
    with pytest.raises(DataError, match=rf"array '{key}' holds Python objects, which to read may"):
        read_npz(path)
    # Nor one in place of an array, without NumPy's header.
    import pickle

    members = {"x.npy": pickle.dumps(Code(trap)), "t.npy": pickle.dumps(Code(trap))}
    with pytest.raises(DataError, match="damaged or not an"):
        read_npz(write(archive(members)))
    with pytest.raises(DataError, match="damaged or not an"):
        read_npz(write(pickle.dumps(Code(trap))))
    assert not trap.exists()


GOOD = saved(x=X, t=T)
F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
BROKEN = {
    "empty": (b"", "damaged or not an .*expected what np.savez wrote"),
    "text": (b"x,t\n1,2\n", "damaged or not an"),
    "cut": (GOOD[:-30], "damaged or not an"),
    "one array alone": (npy(F4, bytes(4)), "damaged or not an"),
    "values flipped": (
        saved(False, x=X, t=T).replace(X.tobytes(), X.tobytes()[::-1]),
        "damaged or not an .*CRC",
    ),
    "no x": (saved(a=X, b=T), r"no array 'x', it holds 'a', 'b'; say .* read_npz\(path, x=NAME"),
    "nothing in it": (archive({}), "no array 'x', it holds nothing"),
    "text in x": (saved(x=np.array(["a"]), t=T), "array 'x' has dtype <U1, expected numbers"),
    "complex": (saved(x=np.array([1j]), t=T), "array 'x' has dtype complex128, expected numbers"),
    "record": (saved(x=np.zeros(1, "f4,i4"), t=T), r"array 'x' has dtype \[\('f0'"),
    "truncated": (with_x(F4, bytes(3)), r"'x' holds fewer bytes than the 4 of float32 and shape"),
    "trailing": (with_x(F4, bytes(5)), "'x' holds more bytes than the 4 of float32"),
    "version": (with_x(F4, bytes(4), version=b"\3\0"), r"is of version \(3, 0\) of .npy, expected"),
    "negative": (with_x(F4.replace("(1,)", "(-1,)")), r"shape \(-1,\) in its header"),
    "huge": (with_x(F4.replace("(1,)", "(2**62,)")), "damaged or not an"),
    "huge product": (with_x(F4.replace("(1,)", f"({2**40}, {2**40})")), "in its header: it is"),
    "claims 16 GB": (with_x(F4.replace("(1,)", f"({2**32},)")), "holds fewer bytes than the 17"),
    "code": (with_x(F4.replace("(1,)", "(print(1),)")), "damaged or not an"),
    "deep": (with_x("(" * 9000), "damaged or not an"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_malformed_files_say_what_is_wrong_and_where(
    write: Write, content: bytes, message: str
) -> None:
    path = write(content, "broken.npz")
    with pytest.raises(DataError, match=message) as caught:
        read_npz(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent cannot be read \(No such file.*expected an \.npz"):
        read_npz(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(tmp_path)


@pytest.mark.parametrize(
    ("offset", "byte", "message"),
    [(0, 1, "damaged or not an .*encrypted"), (2, 99, "damaged or not an .*compression method")],
)
def test_archives_that_zipfile_cannot_unpack(
    write: Write, offset: int, byte: int, message: str
) -> None:
    content = bytearray(saved(False, x=X, t=T))
    for at in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[at + offset] |= byte
    with pytest.raises(DataError, match=message):
        read_npz(write(bytes(content)))


def zeros(write: Write, size: int) -> Path:
    """An archive whose x is that many zeros, a thousandth of them in the file."""
    header = F4.replace("<f4", "|u1").replace("(1,)", f"({size},)")
    t = npy(F4, bytes(4))
    content = archive({"x.npy": npy(header, bytes(size)), "t.npy": t}, zipfile.ZIP_DEFLATED)
    assert len(content) < size / 500
    return write(content)


def test_a_zip_bomb_is_not_unpacked(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zeros(write, 50_000_000)
    with pytest.raises(ShapeError, match="x has 50000000 rows and t has 1"):
        read_npz(path)  # that much is fine
    monkeypatch.setattr(npz, "FREE", 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="'x' would unpack to 50,000,"):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_header_alone_allocates_nothing(write: Write) -> None:
    path = write(with_x(F4.replace("(1,)", f"({2**31},)"), bytes(1000)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="'x' holds fewer bytes than the 8589934592"):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


SEEDS = [
    saved(True, x=X, t=T),
    saved(False, x=X[:1].astype(">i2"), t=T[:1]),
    saved(False, x=np.asfortranarray(X), t=X.astype("f8")),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An archive with a few bytes set, taken out or put in; headers are hit as often as values."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    marks = [i for i in range(len(content)) if content[i : i + 2] in (b"PK", b"\x93N", b"{'")]
    for _ in range(draw(st.integers(0, 4))):
        near = draw(st.sampled_from(marks)) + draw(st.integers(0, 60))
        at = min(len(content), draw(st.sampled_from([near, draw(st.integers(0, len(content)))])))
        byte = draw(st.integers(0, 255))
        match draw(st.sampled_from(["set", "set", "cut", "insert", "end"])):
            case "set" if at < len(content):
                content[at] = byte
            case "cut":
                del content[at : at + byte % 5]
            case "insert":
                content.insert(at, byte)
            case "end":
                del content[at:]
    return bytes(content)


def decode(content: bytes) -> tuple[Any, Any] | None:
    """What NumPy makes of it; None where it refuses."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return file["x"], file["t"]
    except Exception:
        return None


@settings(max_examples=400, deadline=None)
@given(content=mutated())
@pytest.mark.filterwarnings("ignore")  # NumPy's own about odd headers
def test_any_bytes_give_an_nnx_error_or_what_numpy_reads(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    path.write_bytes(content)
    try:
        ds = read_npz(path)
    except NnxError:
        return
    meaning = decode(content)
    assert meaning is not None
    for mine, theirs in zip((ds.x, ds.t), meaning, strict=True):
        assert np.array_equal(mine, theirs.astype(mine.dtype), equal_nan=True)
