"""Any number of steps needs no more memory than two."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training import trainer

import nnx
from nnx import layers as L
from nnx.data import ArrayDataset, DataLoader, RandomWindows, Windows
from nnx.optim import schedules

STEPS, LIMIT = 10_000, 64 * 1024


def loader(rows: int = 200, batch_size: int = 2) -> DataLoader:
    images = nnx.data.load("digits")
    return DataLoader(ArrayDataset(images.x[:rows], images.t[:rows]), batch_size, shuffle=True)


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
def test_ten_thousand_steps(eager: bool, tmp_path: Path) -> None:
    """A hundred epochs with checkpoints, dropout, a schedule, clipping and evaluation."""
    held, note = notes()
    run = trainer(
        schedule=schedules.cosine(), clip_norm=1, folder=tmp_path / "run", eager=eager,
        on_epoch=[note],
    )  # fmt: skip
    traced(run, loader(), loader(100, 50), STEPS)
    assert max(held[2:]) - held[1] < LIMIT, np.diff(held).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
def test_hundreds_of_steps_on_a_text(eager: bool, tmp_path: Path) -> None:
    """Of a transformer and of an LSTM, with dropout, on windows drawn anew for each."""
    windows = Windows(np.random.default_rng(0).integers(0, 9, 300), 6)
    for model in (L.GPT(9, context=6, layers=1, heads=2, width=8, dropout=0.1), Recurrent()):
        held, note = notes()
        run = nnx.Trainer(
            model, nnx.optim.AdamW(model.parameters()), clip_norm=1, eager=eager, on_epoch=[note],
            folder=tmp_path / type(model).__name__,
        )  # fmt: skip
        traced(run, RandomWindows(windows, 2, 50), DataLoader(windows, 16), 400)  # type: ignore[arg-type]
        assert max(held[2:]) - held[1] < LIMIT, np.diff(held).tolist()


class Recurrent(L.Layer):
    def __init__(self) -> None:
        self.tokens, self.out = L.Embedding(9, 6), L.Linear(8, 9)
        self.inner = L.LSTM(6, 8, layers=2, dropout=0.1)

    def forward(self, ids: Any) -> Any:
        return self.out(self.inner(self.tokens(ids)))


def notes() -> tuple[list[int], Callable[[nnx.Trainer], None]]:
    """What memory is held after each epoch, and the callback that notes it."""
    held: list[int] = []

    def measure(run: nnx.Trainer) -> None:
        run.history[:-1] = []  # figures of each epoch are the one thing that is kept
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])

    return held, measure


def traced(run: nnx.Trainer, batches: Any, tests: Any, steps: int) -> None:
    gc.collect()
    gc.freeze()  # what earlier tests left: millions of objects, looked through after each epoch
    tracemalloc.start()
    try:
        run.fit(batches, tests, epochs=steps // len(batches))
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    assert run.step == steps
