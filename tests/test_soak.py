"""Ten thousand steps need no more memory than two."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from training import trainer

import nnx
from nnx.data import ArrayDataset, DataLoader
from nnx.optim import schedules

STEPS, LIMIT = 10_000, 64 * 1024


def loader(rows: int = 200, batch_size: int = 2) -> DataLoader:
    images = nnx.data.load("digits")
    return DataLoader(ArrayDataset(images.x[:rows], images.t[:rows]), batch_size, shuffle=True)


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
def test_ten_thousand_steps(eager: bool, tmp_path: Path) -> None:
    """A hundred epochs with checkpoints, dropout, a schedule, clipping and evaluation."""
    held: list[int] = []

    def measure(run: nnx.Trainer) -> None:
        run.history[:-1] = []  # figures of each epoch are the one thing that is kept
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])

    run = trainer(
        schedule=schedules.cosine(), clip_norm=1, folder=tmp_path / "run", eager=eager,
        on_epoch=[measure],
    )  # fmt: skip
    batches = loader()
    tracemalloc.start()
    try:
        run.fit(batches, loader(100, 50), epochs=STEPS // len(batches))
    finally:
        tracemalloc.stop()
    assert run.step == STEPS
    assert max(held[2:]) - held[1] < LIMIT, np.diff(held).tolist()
