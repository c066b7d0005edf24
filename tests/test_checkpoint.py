"""Checkpoints: a run that is taken up again ends as one never interrupted, to the last bit."""

from __future__ import annotations

import errno
import json
import os
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import bits, digits, figures, network, shuffled, trainer

import nnx
from nnx import files, train
from nnx.optim import schedules
from nnx.train import checkpoint

DATA = Path(__file__).parent / "data"


def options() -> dict[str, Any]:
    return {"schedule": schedules.warmup(1, schedules.cosine()), "clip_norm": 1.0}


@pytest.mark.parametrize("optimizer", train.OPTIMIZERS)
def test_a_resumed_run_is_the_same_run(optimizer: str, tmp_path: Path) -> None:
    """Dropout, a schedule, clipping, and a stop within the second epoch."""
    whole = trainer(optimizer=optimizer, **options())
    whole.fit(shuffled(), digits("test"), epochs=3)

    first = trainer(
        optimizer=optimizer, folder=tmp_path / "run", save_every=1, **options(),
        on_step=[lambda run: run.stop() if run.step == 22 else None],
    )  # fmt: skip
    first.fit(shuffled(), digits("test"), epochs=3)
    again = trainer(7, optimizer, folder=tmp_path / "run", **options())
    assert again.resume()
    assert (again.epoch, again.batch, again.step) == (1, 7, 22)
    assert again.stopped == "stop() was called"
    again.stopped = None
    again.fit(shuffled(), digits("test"), epochs=3)
    assert bits(again.model) == bits(whole.model)
    assert figures(again.history) == figures(whole.history)
    assert again.best == whole.best and again.step == whole.step == 45

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == again.history
    model = network(5)
    nnx.load(model, tmp_path / "run" / "model.safetensors")
    assert bits(model) == bits(whole.model)


def test_every_step_can_be_resumed(tmp_path: Path) -> None:
    states: dict[str, Any] = {}

    def keep(run: train.Trainer) -> None:
        path = tmp_path / f"{run.step}.safetensors"
        checkpoint.gather(run).write(path)
        states[str(path)] = run.step

    whole = trainer(on_step=[keep], **options())
    whole.fit(digits("train", 400), epochs=2)
    for path in states:
        again = trainer(9, **options())
        assert again.resume(path)
        again.fit(digits("train", 400), epochs=2)
        assert bits(again.model) == bits(whole.model), path


def test_the_best_parameters_are_in_the_folder(tmp_path: Path) -> None:
    run = trainer(folder=tmp_path / "run")
    run.fit(shuffled(), digits("test"), epochs=2)
    again = trainer(3, folder=tmp_path / "run")
    again.resume()
    model = again.model
    again.load_best()
    assert bits(model) == bits(run.model) and again.best == run.best


def test_early_stopping_is_remembered(tmp_path: Path) -> None:
    run = trainer(folder=tmp_path / "run", patience=1, monitor="lr")
    run.fit(shuffled(), epochs=9)
    assert (run.epoch, run.stopped) == (2, "lr was best in epoch 1")
    again = trainer(folder=tmp_path / "run", patience=1, monitor="lr")
    again.resume()
    again.fit(shuffled(), epochs=9)
    assert (again.epoch, again.stopped) == (2, "lr was best in epoch 1")


def test_resume_or_begin(tmp_path: Path) -> None:
    """What a script on a cluster writes: the same lines for the first start and all others."""

    def script(epochs: int) -> train.Trainer:
        run = trainer(folder=tmp_path / "run")
        found = run.resume(missing_ok=True)
        assert found is (epochs > 1)
        run.fit(shuffled(), epochs=epochs)
        return run

    script(1)
    whole = trainer()
    whole.fit(shuffled(), epochs=2)
    assert bits(script(2).model) == bits(whole.model)


def test_a_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(nnx.DataError, match="is not empty: give another one, resume the run in it"):
        trainer(folder=tmp_path).fit(shuffled(), epochs=1)
    assert os.listdir(tmp_path) == ["notes.txt"]
    run = trainer(folder=tmp_path, overwrite=True)
    run.fit(shuffled(), epochs=1)
    run = trainer(folder=tmp_path, overwrite=True)
    run.fit(shuffled(), epochs=2)
    assert (tmp_path / "notes.txt").read_text() == "mine" and run.epoch == 2
    assert sorted(os.listdir(tmp_path)) == [
        "best.safetensors", "checkpoint.safetensors", "metrics.jsonl", "model.safetensors",
        "notes.txt",
    ]  # fmt: skip


def test_what_a_kill_left_is_swept_up(tmp_path: Path) -> None:
    trainer(folder=tmp_path).fit(shuffled(), epochs=1)
    (tmp_path / ".nnx-0123456789ab.tmp").write_bytes(b"half a checkpoi")
    trainer(folder=tmp_path).resume()
    assert not list(tmp_path.glob(".nnx-*"))


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(nnx.OptionError, match="resume: give a checkpoint's path, or the trainer a"):
        trainer().resume()
    with pytest.raises(nnx.DataError, match=r"checkpoint: cannot read .*: No such file"):
        trainer(folder=tmp_path / "run").resume()


# what does not fit


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


# what cannot be written


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(folder=tmp_path / "run")
    run.fit(shuffled(), epochs=1)
    before = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(nnx.DataError, match=r"cannot write .*: No space left on device; noth"):
            run.fit(shuffled(), epochs=2)
    assert {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()} == before
    whole = trainer()
    whole.fit(shuffled(), epochs=2)
    run.fit(shuffled(), epochs=2)  # once there is space again
    assert bits(run.model) == bits(whole.model)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(nnx.DataError, match=r"cannot use the folder .*file"):
        trainer(folder=tmp_path / "file").fit(shuffled(), epochs=1)
    with pytest.raises(nnx.DataError, match=r"cannot use the folder .*file"):
        trainer(folder=tmp_path / "file" / "run").fit(shuffled(), epochs=1)


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
