"""Running statistics beside parameters: in state dicts, files and checkpoints, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import bits, digits, figures, shuffled

import nnx
from nnx import layers as L
from nnx import train


def network(seed: int = 0) -> L.Sequential:
    nnx.seed(seed)
    return L.Sequential(
        L.Unflatten(1, 8, 8), L.Conv2d(1, 4, 3, padding=1, bias=False), L.BatchNorm2d(4), L.Relu(),
        L.MaxPool2d(2), L.Flatten(), L.Linear(64, 20), L.BatchNorm1d(20), L.Relu(), L.Dropout(0.2),
        L.Linear(20, 10),
    )  # fmt: skip


def trainer(seed: int = 0, **options: Any) -> train.Trainer:
    model = network(seed)
    return train.Trainer(model, train.build_optimizer("adam", model.parameters()), **options)


def guesses(model: L.Layer) -> Any:
    model.eval()
    x, _ = next(iter(digits("test")))
    return np.array(nnx.to_numpy(model(x)))


BUFFERS = {"2.mean", "2.var", "7.mean", "7.var"}


def test_names() -> None:
    model = network()
    learned = {name for name, _ in model.named_parameters()}
    assert set(model.state_dict()) - learned == BUFFERS
    assert len(list(model.parameters())) == len(learned)


def test_state_dicts_and_files_hold_them(tmp_path: Path) -> None:
    run = trainer()
    run.fit(shuffled(), epochs=1)
    state = run.model.state_dict()
    fresh = network(1).state_dict()
    assert all(not np.array_equal(state[name], fresh[name]) for name in BUFFERS)

    copied, read = network(1), network(2)
    copied.load_state_dict(state)
    nnx.save(run.model, tmp_path / "model.safetensors")
    nnx.load(read, tmp_path / "model.safetensors")
    expected = guesses(run.model)
    for model in (copied, read):
        assert bits(model) == bits(run.model)
        assert np.array_equal(guesses(model), expected)


def test_a_state_dict_without_them_does_not_fit() -> None:
    state = network().state_dict()
    del state["2.mean"]
    model = network(1)
    before = bits(model)
    with pytest.raises(nnx.StateError, match=r"2\.mean"):
        model.load_state_dict(state)
    assert bits(model) == before


def test_captured_training_equals_eager_training() -> None:
    captured, eager = trainer(), trainer(eager=True)
    for run in (captured, eager):
        run.fit(shuffled(), digits("test"), epochs=2)
    assert bits(captured.model) == bits(eager.model)
    assert figures(captured.history) == figures(eager.history)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("stop", [3, 15, 22])
def test_a_resumed_run_is_the_same_run(stop: int, eager: bool, tmp_path: Path) -> None:
    """Within the first epoch, after it, within the second; into a model of another seed."""
    whole = trainer(eager=eager)
    whole.fit(shuffled(), digits("test"), epochs=2)
    first = trainer(
        folder=tmp_path / "run", eager=eager,
        on_step=[lambda run: run.stop() if run.step == stop else None],
    )  # fmt: skip
    first.fit(shuffled(), digits("test"), epochs=2)
    again = trainer(7, folder=tmp_path / "run", eager=eager)
    assert again.resume() and again.step == stop
    assert bits(again.model) == bits(first.model)
    again.stopped = None
    again.fit(shuffled(), digits("test"), epochs=2)
    assert bits(again.model) == bits(whole.model)
    assert figures(again.history) == figures(whole.history)


def test_evaluation_leaves_them_alone() -> None:
    run = trainer()
    run.fit(shuffled(), epochs=1)
    before = bits(run.model)
    run.evaluate(digits("test"))
    assert bits(run.model) == before
