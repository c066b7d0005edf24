"""Crossings between host and device, counted on a library that plays the device."""

from __future__ import annotations

import linecache
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from training import digits, network

import nnx
from nnx.backend import load_backend


@pytest.fixture
def device(strict: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The array library "strict", as if its arrays lay on a device."""
    monkeypatch.setattr(load_backend(strict), "on_host", False, raising=False)
    with nnx.use_backend(strict):
        yield strict


X = np.ones((3, 4), np.float32)


def test_what_is_counted(device: str) -> None:
    with nnx.transfers() as t:
        x = nnx.asarray(X)
        nnx.asarray(x)  # is there
        nnx.to_numpy(x)
        nnx.asarray(x, backend="numpy")
        tensor = nnx.Tensor([1.0, 2.0])
        float(tensor.sum())
        tensor.numpy()
        repr(tensor)
        tensor.data = np.zeros(2, np.float32)
    directions = [(c.direction.split()[-1], c.nbytes, bool(c.how)) for c in t.log]
    assert directions == [
        ("device", 48, False), ("host", 48, False), ("host", 48, False), ("device", 8, False),
        ("host", 4, True), ("host", 8, False), ("host", 8, True), ("device", 8, True),
    ]  # fmt: skip
    assert (t.to_device, t.to_host, len(t), t.nbytes) == (3, 5, 8, 180)
    assert {c.line[0] for c in t.log} == {__file__}
    assert repr(t) == "<transfers: 3 to the device, 5 to the host, 180 bytes>"
    t.clear()
    assert len(t) == 0


def test_the_host_has_none() -> None:
    with nnx.transfers(forbid=True) as t:
        x = nnx.Tensor(X)
        float(x.sum())
        x.data = X
        nnx.to_numpy(x)
    assert len(t) == 0


@pytest.mark.parametrize(
    ("read", "how"),
    [
        (float, "reading a Tensor's values"), (bool, "reading a Tensor's values"),
        (lambda t: t.item(), "reading a Tensor's values"), (repr, "reading a Tensor's values"),
        (lambda t: setattr(t, "data", np.zeros((), np.float32)), "assigning to .data moves 4 byte"),
    ],
)  # fmt: skip
def test_forbidden(read: Any, how: str, device: str) -> None:
    t = nnx.Tensor(nnx.asarray(2.0))
    with nnx.transfers(forbid=True) as seen:
        with pytest.raises(nnx.TransferError) as error:
            read(t)  # here
        nnx.to_numpy(t)
    assert str(error.value).startswith(f"{__file__}:") and how in str(error.value)
    assert "move it where you mean to, by nnx.to_numpy(array)" in str(error.value)
    line = int(str(error.value).removeprefix(f"{__file__}:").split(":")[0])
    source = linecache.getline(__file__, line)
    assert "# here" in source or "lambda" in source
    assert isinstance(error.value, RuntimeError) and len(seen) == 1


def test_blocks_in_blocks_and_other_threads(device: str) -> None:
    t = nnx.Tensor(nnx.asarray(2.0))
    with nnx.transfers() as outer:
        with nnx.transfers() as inner:
            float(t)
        float(t)
        thread = threading.Thread(target=lambda: float(t))
        thread.start()
        thread.join()
    float(t)
    assert (len(inner), len(outer)) == (1, 2)


def test_training_makes_one_transfer_per_batch(device: str) -> None:
    """And reads sums once per epoch: loss and accuracy, and those of the held-out images."""
    seen: list[list[tuple[str, int, bool]]] = []
    model = network(dropout=0)

    def after_step(_: nnx.Trainer) -> None:
        seen.append([(c.direction, c.arrays, bool(c.how)) for c in t.log])
        t.clear()

    run = nnx.Trainer(model, nnx.optim.Adam(model.parameters()), clip_norm=1, on_step=[after_step])
    with nnx.transfers(forbid=True) as t:
        run.fit(digits("train", 500), digits("test"), epochs=2)
    for step, log in enumerate(seen):
        batches = [c for c in log if c[:2] == ("to the device", 2)]
        if step % 3:
            assert log == batches and len(batches) == 1
        else:  # with the checkpoint before it, and the held-out images
            assert all(not how for _, _, how in log)
    assert len(seen) == 6
