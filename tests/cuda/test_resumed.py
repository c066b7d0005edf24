"""A run on cupy that is taken up again goes on with the masks that it would have drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fake_cupy import FakeCupy

import nnx
from nnx import layers as L
from nnx import train
from nnx.data import ArrayDataset, DataLoader


def trainer(seed: int, **options: Any) -> train.Trainer:
    nnx.seed(seed)
    model = L.Sequential(
        L.Conv2d(1, 2, 3), L.BatchNorm2d(2), L.Relu(), L.Dropout(0.5), L.Flatten(), L.Linear(32, 3)
    )
    return train.Trainer(model, train.build_optimizer("sgd", model.parameters()), **options)


def data() -> DataLoader:
    rng = np.random.default_rng(0)
    x, t = rng.random((18, 1, 6, 6), "float32"), rng.integers(0, 3, 18)
    return DataLoader(ArrayDataset(x, t), 6, shuffle=True, seed=0)


def test_a_resumed_run_is_the_same_run(cupy: FakeCupy, tmp_path: Path) -> None:
    whole = trainer(0)
    whole.fit(data(), epochs=2)
    assert {"uniform", "dropout", "im2col", "batch_norm"} <= set(cupy.launched)

    first = trainer(
        0, folder=tmp_path / "run", save_every=1,
        on_step=[lambda run: run.stop() if run.step == 4 else None],
    )  # fmt: skip
    first.fit(data(), epochs=2)
    again = trainer(7, folder=tmp_path / "run")
    assert again.resume() and again.step == 4
    again.stopped = None
    again.fit(data(), epochs=2)
    expected = whole.model.state_dict()
    for name, found in again.model.state_dict().items():
        # Replayed products are cuBLASLt's, recorded ones cuBLAS's: they may round otherwise.
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6)

    other = trainer(0)
    other.generator.random()  # so that all masks are others
    other.fit(data(), epochs=2)
    assert np.abs(other.model.state_dict()["0.W"] - expected["0.W"]).max() > 1e-3
