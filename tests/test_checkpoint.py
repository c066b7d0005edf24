"""Checkpoints: a run that is taken up again ends as one never interrupted, to the last bit."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from training import bits, digits, figures, network, shuffled, trainer

import nnx
from nnx import train
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
