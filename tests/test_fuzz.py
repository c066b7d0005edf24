"""Files of runs, mutated and made up: only nnx's own errors come out, and memory stays bounded.

The readers of data have their fuzz beside their tests: test_data_idx, _npz, _csv.
"""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import cli, train
from nnx.cli import config
from nnx.data import read_csv, read_idx, read_npz
from nnx.train import checkpoint

DATA = Path(__file__).parent / "data"
CHECKPOINT = (DATA / "checkpoint-1.safetensors").read_bytes()
MODEL = (DATA / "model-1.safetensors").read_bytes()
MEGABYTE = 1 << 20


@contextmanager
def bounded(bound: int = 20 * MEGABYTE) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < bound
    finally:
        tracemalloc.stop()


def model() -> Any:
    nnx.seed(0)
    return train.build_model("mlp:4", 64, 10)


def run() -> nnx.Trainer:
    net = model()
    return nnx.Trainer(net, train.build_optimizer("adam", net.parameters()))


READERS: dict[str, Callable[[Path], object]] = {
    "load": lambda path: nnx.load(model(), path),
    "checkpoint": checkpoint.read,
    "resume": lambda path: run().resume(path),
    "idx": read_idx,
    "npz": read_npz,
    "csv": read_csv,
    "config": lambda path: config.arguments(str(path.parent)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read(folder: Path, content: bytes, reader: str) -> None:
    """Only an NnxError may come out."""
    path = folder / "config.json"  # a name that every reader takes
    path.write_bytes(content)
    with bounded():
        try:
            READERS[reader](path)
        except nnx.NnxError as error:
            assert str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
SIZES = st.sampled_from([0, 1, 2, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1, -1])


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    """A safetensors file whose header claims what it likes."""
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F64", "BF16", "I64", "BOOL", "F8_E4M3", "X"]),
            "shape": st.lists(SIZES, max_size=3),
            "data_offsets": st.lists(SIZES, min_size=2, max_size=2),
        }
    )
    about = st.dictionaries(st.sampled_from(["format", "version", "state", "crc32"]), st.text())
    header: dict[str, Any] = draw(st.dictionaries(st.text(max_size=4), entry | JSON, max_size=3))
    if draw(st.booleans()):
        header["__metadata__"] = draw(about | JSON)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + draw(st.binary(max_size=40))


@st.composite
def mutated(draw: st.DrawFn, *seeds: bytes) -> bytes:
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, 200), st.integers(0, len(content))))
        content[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(content)


@settings(deadline=None, max_examples=150)
@given(content=tensors() | mutated(MODEL, CHECKPOINT))
@pytest.mark.parametrize("reader", ["load", "checkpoint", "resume"])
@pytest.mark.filterwarnings("ignore:resume")
def test_safetensors(folder: Path, content: bytes, reader: str) -> None:
    read(folder, content, reader)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore:resume")
def test_a_checkpoint_with_other_arrays_and_a_checksum_that_fits(
    folder: Path, data: st.DataObject
) -> None:
    """As a hostile writer would make it: what the checksum cannot find."""
    path = folder / "good.safetensors"
    path.write_bytes(CHECKPOINT)
    found = checkpoint.read(path)
    name = data.draw(st.sampled_from(sorted(found.arrays)))
    shape = data.draw(st.lists(st.integers(0, 5), max_size=3))
    dtype = data.draw(st.sampled_from(["f4", "f8", "f2", "i8", "?", "u1"]))
    other = data.draw(st.text(st.characters(codec="utf-8"), max_size=12) | st.just(name))
    found.arrays.pop(name)
    found.arrays[other] = np.ones(shape, dtype)
    found.write(folder / "config.json")
    read(folder, (folder / "config.json").read_bytes(), "resume")


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=80) | mutated(MODEL[:400], b"PK\3\4" * 9, b"1,2\n3,4\n"))
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes(folder: Path, content: bytes, reader: str) -> None:
    read(folder, content, reader)


@settings(deadline=None, max_examples=100)
@given(value=st.fixed_dictionaries({"arguments": st.dictionaries(st.text(), JSON)}) | JSON)
def test_configurations(folder: Path, value: Any) -> None:
    read(folder, json.dumps(value).encode(), "config")


DEEP = b"[" * 200_000


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "content",
    [DEEP, b'{"arguments":' + DEEP, len(DEEP).to_bytes(8, "little") + DEEP, b"9" * 200_000],
    ids=["deep", "deep arguments", "deep header", "long number"],
)
def test_deep_and_long(folder: Path, content: bytes, reader: str) -> None:
    read(folder, content, reader)


@settings(deadline=None, max_examples=50)
@given(
    content=st.binary(max_size=60)
    | st.lists(JSON).map(lambda a: "\n".join(map(json.dumps, a)).encode())
)
def test_nothing_depends_on_the_metrics(trained: Path, content: bytes) -> None:
    """metrics.jsonl is for people: runs are evaluated and taken up without it."""
    (trained / "metrics.jsonl").write_bytes(content)
    assert cli.main(["eval", str(trained)]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(["train", "--model", "linear", "--epochs", "1", "--out", str(made)]) == 0
    return made


@settings(deadline=None, max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("name", ["config.json", "checkpoint.safetensors", "model.safetensors"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's: a weight may have become NaN
def test_commands_end_with_a_line(trained: Path, name: str, data: st.DataObject) -> None:
    folder = trained.with_name("mutated")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    content = (trained / name).read_bytes()
    (folder / name).write_bytes(data.draw(mutated(content)))
    for command in (["eval", str(folder)], ["train", "--resume", str(folder), "--epochs", "1"]):
        assert cli.main(command) in (0, 2)
