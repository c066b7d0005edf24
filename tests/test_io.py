"""Saving and loading: the same values come back, and an error changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as serialize

import nnx
from nnx import layers as L


class Holder(L.Layer):
    """A layer with the parameters given."""

    def __init__(self, **arrays: Any) -> None:
        for name, x in arrays.items():
            setattr(self, name, nnx.Parameter(x, requires_grad=False))


def net(seed: int = 0, hidden: int = 5) -> L.Sequential:
    nnx.seed(seed)
    return L.Sequential(L.Linear(4, hidden), L.Relu(), L.Linear(hidden, 3))


def state_bytes(layer: L.Layer) -> dict[str, bytes]:
    return {k: v.tobytes() for k, v in layer.state_dict().items()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    nnx.save(net(), path)
    return path


def test_round_trip(saved: Path) -> None:
    other = net(seed=1)
    assert state_bytes(other) != state_bytes(net())
    nnx.load(other, saved)
    assert state_bytes(other) == state_bytes(net())


def test_file_is_plain_safetensors(saved: Path) -> None:
    held = load_file(saved)
    assert list(held) == ["0.W", "0.b", "2.W", "2.b"]
    np.testing.assert_array_equal(held["0.W"], net().state_dict()["0.W"])
    with safe_open(saved, framework="np") as f:
        assert f.metadata() == {"format": "nnx", "version": "1"}


BASE = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize(
    "x",
    [BASE.T, np.asfortranarray(BASE), BASE[::2, 1::2], BASE[::-1], BASE[:, 2:3], BASE[1:, 1:]],
    ids=["transposed", "fortran", "strided", "reversed", "column", "window"],
)
def test_arrays_not_in_c_order(x: np.ndarray[Any, Any], tmp_path: Path) -> None:
    """torch reads the file: safetensors' own reader would agree with its writer's mistake."""
    from safetensors.torch import load_file as torch_load

    path = tmp_path / "x.safetensors"
    nnx.save(Holder(x=x), path)
    expected = [[float(x[i, j]) for j in range(x.shape[1])] for i in range(x.shape[0])]
    assert torch_load(path)["x"].tolist() == expected
    fresh = Holder(x=np.zeros(x.shape, np.float32))
    nnx.load(fresh, path)
    assert fresh.state_dict()["x"].tolist() == expected


@pytest.mark.parametrize(
    "x",
    [np.full((), 3, np.float32), np.zeros((0, 3), np.float64), np.ones(2, ">f4"), np.ones(2, "f2")],
    ids=["0-d", "empty", "big-endian", "float16"],
)
def test_shapes_and_dtypes(x: np.ndarray[Any, Any], tmp_path: Path) -> None:
    nnx.save(Holder(x=x), tmp_path / "x")
    held = load_file(tmp_path / "x")["x"]
    assert held.dtype == x.dtype.newbyteorder("=") and held.shape == x.shape
    np.testing.assert_array_equal(held, x)


def test_layer_without_parameters(tmp_path: Path) -> None:
    nnx.save(L.Relu(), tmp_path / "x")
    nnx.load(L.Relu(), tmp_path / "x")


def test_values_are_cast_to_the_parameters_dtype(saved: Path) -> None:
    double = net(seed=1).astype("float64")
    nnx.load(double, saved)
    assert double.state_dict()["0.W"].dtype == np.float64
    np.testing.assert_array_equal(double.state_dict()["0.W"], net().state_dict()["0.W"])


def test_file_of_another_program(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.tensor([1.0, 2.0])}, tmp_path / "x")
    layer = Holder(x=np.zeros(2, np.float32))
    nnx.load(layer, tmp_path / "x")
    assert layer.state_dict()["x"].tolist() == [1.0, 2.0]


def test_file_can_be_overwritten_after_loading(saved: Path) -> None:
    model = net(seed=1)
    nnx.load(model, saved)
    nnx.save(net(seed=2), saved)
    assert state_bytes(model) == state_bytes(net())


def test_same_model_same_file(tmp_path: Path) -> None:
    """In other processes too: the order of safetensors' own metadata changes with each."""
    code = (
        "import sys, nnx\n"
        "from nnx import layers as L\n"
        "nnx.seed(0)\n"
        "nnx.save(L.Sequential(L.Linear(4, 5), L.Relu(), L.Linear(5, 3)), sys.argv[1])\n"
    )
    nnx.save(net(), tmp_path / "x")
    expected = (tmp_path / "x").read_bytes()
    assert int.from_bytes(expected[:8], "little") % 8 == 0
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=True)
        assert (tmp_path / "x").read_bytes() == expected


def check_unchanged(path: Path, kind: type[Exception], match: str, model: L.Layer) -> None:
    before = state_bytes(model)
    with pytest.raises(kind, match=match):
        nnx.load(model, path)
    assert state_bytes(model) == before


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"\(0 bytes\) is not a safetensors file, or it is damaged"),
        (b"\x93NUMPY\x01\x00" + bytes(200), "expected a file that nnx wrote"),
        (b"PK\x03\x04" + bytes(200), "not a safetensors file"),
    ],
    ids=["empty", "npy", "zip"],
)
def test_foreign_file(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    check_unchanged(tmp_path / "x", nnx.DataError, match, net())


def test_truncated_file(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in range(0, len(whole), 7):
        saved.write_bytes(whole[:size])
        check_unchanged(saved, nnx.DataError, "damaged", net(seed=1))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    check_unchanged(tmp_path / "no", nnx.DataError, "cannot read .*no'", net())
    check_unchanged(tmp_path, nnx.DataError, "cannot read ", net())
    check_unchanged(Path("a\0b"), nnx.DataError, "null byte", net())


def test_names_and_shapes_that_do_not_fit(saved: Path) -> None:
    check_unchanged(saved, nnx.StateError, "misshaped: 0.W", net(hidden=6))
    check_unchanged(saved, nnx.StateError, "unexpected: 2.W", L.Sequential(L.Linear(4, 5)))
    deeper = L.Sequential(*net(), L.Linear(3, 3))
    check_unchanged(saved, nnx.StateError, "missing: 3.W", deeper)


def container(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "C64"])
def test_unknown_dtype(dtype: str, tmp_path: Path) -> None:
    size = {"BF16": 2, "F8_E4M3": 1, "C64": 8}[dtype]
    entry = {"dtype": dtype, "shape": [3], "data_offsets": [0, 3 * size]}
    (tmp_path / "x").write_bytes(container({"x": entry}, bytes(3 * size)))
    layer = Holder(x=np.ones(3, np.float32))
    check_unchanged(tmp_path / "x", nnx.DataError, f"tensor 'x' .* has dtype {dtype}, ", layer)


def test_shape_that_numpy_refuses(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0] * 70, "data_offsets": [0, 0]}
    (tmp_path / "x").write_bytes(container({"x": entry}, b""))
    layer = Holder(x=np.ones(3, np.float32))
    check_unchanged(tmp_path / "x", nnx.DataError, "tensor 'x' .* is damaged", layer)


def test_later_version(tmp_path: Path) -> None:
    arrays = {"x": np.zeros(3, np.float32)}
    (tmp_path / "x").write_bytes(serialize(arrays, {"format": "nnx", "version": "2"}))
    layer = Holder(x=np.ones(3, np.float32))
    check_unchanged(tmp_path / "x", nnx.DataError, "has version '2' .* reads '1'", layer)


GOOD = serialize(net().state_dict(), {"format": "nnx", "version": "1"})


@given(data=st.data())
def test_mutated_bytes_give_only_nnx_errors(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        new = data.draw(st.binary(max_size=4))
        content[at : at + data.draw(st.integers(0, 4))] = new
    path.write_bytes(content)
    model = net(seed=1)
    before = state_bytes(model)
    try:
        nnx.load(model, path)
    except nnx.NnxError:
        assert state_bytes(model) == before


@given(content=st.binary(max_size=300))
def test_any_header_gives_only_nnx_errors(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(nnx.NnxError):
        nnx.load(net(), path)
