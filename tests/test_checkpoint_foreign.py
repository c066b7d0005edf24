"""Checkpoints of other models, programs and versions: restored, or refused and nothing changed."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import DATA, options
from training import bits, digits, network, trainer

import nnx
from nnx import files, train
from nnx.train import checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    run = trainer(folder=tmp_path / "run", **options())
    run.fit(digits("train", 500), digits("test"), epochs=1)
    return tmp_path / "run" / "checkpoint.safetensors"


def state(run: train.Trainer) -> Any:
    """All of it, to compare."""
    found = checkpoint.gather(run)
    return {k: v.tobytes() for k, v in found.arrays.items()}, json.dumps(found.about)


def refused(run: train.Trainer, path: Path, error: type[Exception], message: str) -> None:
    before = state(run)
    with pytest.raises(error, match=message):
        run.resume(path)
    assert state(run) == before


def test_another_model_or_optimizer(saved: Path) -> None:
    wider = network(hidden=30)
    run = nnx.Trainer(wider, nnx.optim.Adam(wider.parameters()))
    refused(run, saved, nnx.StateError, r"does not fit: load_state_dict: .*\n.*misshaped: 0\.W")
    refused(trainer(optimizer="sgd"), saved, nnx.StateError, "it is the state of Adam")
    run = trainer(metrics={})
    refused(run, saved, nnx.StateError, "does not fit: it has loss, accuracy, expected loss")


def stated(text: str) -> bytes:
    about = {"format": "nnx checkpoint", "version": "1", "state": text}
    return files.pack("x", {}, {**about, "crc32": checkpoint._crc32({}, text)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a safetensors file, or it is damaged"),
        (pickle.dumps({"model": 1}), "is not a safetensors file, or it is damaged"),
        (files.pack("x", {}, {"format": "nnx", "version": "1"}), "holds 'nnx' and no checkpoint"),
        (files.pack("x", {}, {"made": "elsewhere"}), "holds 'arrays' and no checkpoint"),
        (
            files.pack("x", {}, {"format": "nnx checkpoint", "version": "99"}),
            "has version '99' of nnx's format, this nnx reads '1': go on with the nnx that w",
        ),
        (files.pack("x", {}, {"format": "nnx checkpoint", "version": "1"}), "is damaged: 'crc32'"),
        (stated("[" * 10**5), "is damaged: "),
        (stated("1" * 10**4), "is damaged: "),
        (stated("[]"), "is damaged: its state is a list"),
        (stated("{}"), "is damaged: KeyError: 'position'"),
    ],
    ids=range(10),
)
def test_foreign_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    refused(trainer(), path, nnx.DataError, message)


def test_truncated_at_any_length(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for n in range(0, len(whole), len(whole) // 40):
        (tmp_path / "torn").write_bytes(whole[:n])
        refused(trainer(), tmp_path / "torn", nnx.DataError, "not a safetensors file, or it is dam")


@pytest.mark.parametrize("where", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_flipped_bit(saved: Path, where: float) -> None:
    content = bytearray(saved.read_bytes())
    content[int(where * len(content))] ^= 4
    saved.write_bytes(content)
    refused(trainer(), saved, nnx.DataError, "is damaged|not a safetensors file")


# where it is resumed


def test_another_environment_warns(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, threads = trainer(**options()), nnx.get_num_threads()
    monkeypatch.setattr(nnx, "__version__", "9.9")
    nnx.set_num_threads(threads + 1)
    try:
        with pytest.warns(UserWarning, match=r"^resume: nnx was .* is 9\.9; threads was ") as seen:
            run.resume(saved)
    finally:
        nnx.set_num_threads(threads)
    assert f"threads was {threads} and is {threads + 1}. The run goes on" in str(seen[0].message)
    assert run.epoch == 1


def test_on_another_backend(tmp_path: Path) -> None:
    whole = trainer(folder=tmp_path / "run")
    whole.fit(digits("train", 500), digits("test"), epochs=1)
    with nnx.use_backend("numba"):
        run = trainer(3, folder=tmp_path / "run")
        with pytest.warns(UserWarning, match="backend was numpy and is numba"):
            run.resume()
        run.fit(digits("train", 500), digits("test"), epochs=2)
    whole.fit(digits("train", 500), digits("test"), epochs=2)
    assert run.history[1]["test_loss"] == pytest.approx(whole.history[1]["test_loss"], rel=1e-4)


# files of released versions


def first_version() -> train.Trainer:
    nnx.seed(0)
    model = train.build_model("mlp:4", 64, 10)
    return nnx.Trainer(model, train.build_optimizer("adam", model.parameters()), **options())


def test_the_first_version_loads() -> None:
    """The file is of a run over two epochs of 100 images each (tests/data/make.py)."""
    run = first_version()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.resume(DATA / "checkpoint-1.safetensors")
    assert (run.epoch, run.batch, run.step, run.rates) == (2, 0, 30, [0.001])
    assert [e["epoch"] for e in run.history] == [1, 2]
    model = train.build_model("mlp:4", 64, 10)
    nnx.load(model, DATA / "model-1.safetensors")
    assert bits(model) == bits(run.model)
    assert run.evaluate(digits("test")).errors == 312


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from paths(inner, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_state_restores_or_is_refused(data: st.DataObject) -> None:
    """One value replaced by anything: no other error, and never half a state."""
    found = checkpoint.read(DATA / "checkpoint-1.safetensors")
    *way, last = data.draw(st.sampled_from(list(paths(found.about))))
    target = found.about
    for key in way:
        target = target[key]
    if data.draw(st.booleans()):
        target[last] = data.draw(JSON)
    else:
        del target[last]
    run = first_version()
    before = state(run)
    try:
        checkpoint.restore(run, found, "changed")
    except nnx.NnxError:
        assert state(run) == before
    else:
        state(run)
