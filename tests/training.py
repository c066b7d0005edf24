"""A small run on the digits, for the tests of training."""

from __future__ import annotations

from typing import Any

import nnx
from nnx import layers as L
from nnx import train
from nnx.data import DataLoader


def digits(split: str = "train", batch_size: int = 100, **options: Any) -> DataLoader:
    return DataLoader(nnx.data.load("digits", split=split), batch_size, **options)


def shuffled(batch_size: int = 100, seed: int = 0) -> DataLoader:
    return digits("train", batch_size, shuffle=True, seed=seed)


def network(seed: int = 0, hidden: int = 20, dropout: float = 0.2) -> L.Sequential:
    nnx.seed(seed)
    return L.Sequential(L.Linear(64, hidden), L.Relu(), L.Dropout(dropout), L.Linear(hidden, 10))


def trainer(
    seed: int = 0, optimizer: str = "adam", dropout: float = 0.2, **options: Any
) -> train.Trainer:
    """With dropout, so that random states count."""
    model = network(seed, dropout=dropout)
    return train.Trainer(model, train.build_optimizer(optimizer, model.parameters()), **options)


def bits(model: L.Layer) -> dict[str, bytes]:
    return {name: x.tobytes() for name, x in model.state_dict().items()}


def figures(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without times."""
    return [{k: v for k, v in e.items() if "second" not in k} for e in history]
