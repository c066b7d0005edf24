"""A device whose memory is full; models that come from a GPU and load where there is none."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cublaslt
import fake_cupy
import numpy as np
import plugin_dirs
import pytest
from capture_tools import batches, model, trainer
from fake_cupy import FakeCupy
from training import digits
from training import trainer as trainer_of_digits

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture

LIMIT = 1 << 24


@pytest.fixture(autouse=True)
def cupy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    made = fake_cupy.install(monkeypatch, FakeCupy(limit=LIMIT))
    fake_cublaslt.install(monkeypatch, made)
    with plugin_dirs.fresh_process(tmp_path):
        nnx.set_backend("cupy")
        yield made


def test_the_error_says_what_was_asked_and_what_is_held(cupy: FakeCupy) -> None:
    held = [nnx.asarray(np.zeros(400_000)) for _ in range(4)]
    del held[0]
    with pytest.raises(nnx.DeviceMemoryError) as caught:
        nnx.asarray(np.zeros(1_280_000))
    text = str(caught.value)
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, nnx.BackendError)
    assert text.startswith("device 0 has no memory left: Out of memory allocating 10,240,000 bytes")
    assert "Arrays hold 9,600,000 bytes of CuPy's pool, which keeps 0 more; " in text
    assert " of the device's 16,777,216 are free, 0 are held by graphs of plans" in text
    assert "nnx.get_backend().free_memory()" in text


def test_an_error_of_cudas_own_is_the_same(cupy: FakeCupy) -> None:
    x = nnx.asarray(np.zeros(3))
    cupy.broken = fake_cupy.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
    with pytest.raises(nnx.DeviceMemoryError, match="cudaErrorMemoryAllocation"):
        nnx.exp(x)
    cupy.broken = fake_cupy.CUDARuntimeError("cudaErrorLaunchFailure: ...")
    with pytest.raises(fake_cupy.CUDARuntimeError, match="cudaErrorLaunchFailure"):
        nnx.exp(x)


@pytest.mark.parametrize("number", [0, 1])
def test_the_device_is_as_it_was(cupy: FakeCupy, number: int) -> None:
    full = pytest.raises(nnx.DeviceMemoryError, match=f"device {number} has no memory left")
    with full, nnx.use_backend(f"cupy:{number}"):
        nnx.exp(nnx.asarray(np.zeros(LIMIT // 10)))
    assert cupy.current == 0


def parameters(net: L.Layer) -> list[np.ndarray[Any, Any]]:
    return [nnx.to_numpy(p.data) for p in net.parameters()]


def test_the_model_stays_usable(cupy: FakeCupy) -> None:
    net = model(hidden=400)
    opt = optim.SGD(net.parameters(), lr=0.1)
    step = trainer(net, opt)
    x, t = batches(1, rows=5000)[0]
    before = parameters(net)
    with pytest.raises(nnx.DeviceMemoryError):
        step(nnx.asarray(x), nnx.asarray(t))
    for a, b in zip(before, parameters(net), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [float(step(nnx.asarray(x[:20]), nnx.asarray(t[:20]))) for _ in range(20)]
    assert losses[-1] < losses[0] / 2


def test_a_plan_that_does_not_fit(cupy: FakeCupy) -> None:
    """The step itself fits, a second copy of what it works in does not."""
    net = model(hidden=64)
    opt = optim.SGD(net.parameters(), lr=0.1)
    step = capture(trainer(net, opt))
    x, t = (nnx.asarray(a) for a in batches(1, rows=64)[0])
    step(x, t)
    held = nnx.asarray(np.zeros((LIMIT - cupy.on.memory.taken) // 8 - 9000))
    with pytest.raises(nnx.DeviceMemoryError):
        step(x, t)
    del held
    nnx.get_backend().free_memory()
    losses = [float(step(x, t)) for _ in range(20)]
    assert losses[-1] < losses[0] and len(cupy.on.graphs) == 1


def load(code: str, *args: Path) -> str:
    """What a process prints in which cupy cannot be imported."""
    code = f"import sys; sys.modules['cupy'] = None\n{code}"
    path = ":".join(str(plugin_dirs.ROOT / part) for part in ("", "backends", "tests"))
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True, text=True, env={"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_pickled_model_loads_where_there_is_no_gpu(tmp_path: Path) -> None:
    net = L.Sequential(L.Linear(3, 4), L.BatchNorm1d(4), L.Relu(), L.Linear(4, 2))
    opt = optim.Adam(net.parameters())
    for _ in range(3):
        x = nnx.asarray(np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32))
        nnx.mean(net(nnx.Tensor(x))).backward()
        opt.step()
    net.eval()
    expected = float(nnx.sum(net(nnx.Tensor(nnx.asarray(np.ones((2, 3), np.float32))))))
    (tmp_path / "model").write_bytes(pickle.dumps((net, opt)))
    code = (
        "import pickle, numpy as np, nnx\n"
        "net, opt = pickle.load(open(sys.argv[1], 'rb'))\n"
        "x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)\n"
        "y = nnx.sum(net(nnx.Tensor(np.ones((2, 3), np.float32))))\n"
        "nnx.mean(net.train()(nnx.Tensor(x))).backward()\n"
        "opt.step()\n"
        "print(float(y), opt.state_dict()['state'][0]['step'])"
    )
    y, step = load(code, tmp_path / "model").split()
    np.testing.assert_allclose(float(y), expected, rtol=1e-5)
    assert step == "4"


def test_saved_parameters_load_where_there_is_no_gpu(tmp_path: Path) -> None:
    net = L.Linear(3, 2)
    nnx.save(net, tmp_path / "net.safetensors")
    code = (
        "import nnx\nfrom nnx import layers as L\nnet = L.Linear(3, 2)\n"
        "nnx.load(net, sys.argv[1])\nprint(float(net.W.data.sum()))"
    )
    found = float(load(code, tmp_path / "net.safetensors"))
    np.testing.assert_allclose(found, nnx.to_numpy(net.W.data).sum(), rtol=1e-5)


RESUME = """
import warnings
import nnx
from training import digits, trainer
run = trainer(3, dropout=0.0, folder=sys.argv[1])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert run.resume()
assert any("backend was cupy and is numpy" in str(w.message) for w in said), said
run.fit(digits("train", 200), epochs=2)
print([float(nnx.to_numpy(p.data).sum()) for p in run.model.parameters()])
"""


def test_a_checkpoint_from_a_gpu_goes_on_where_there_is_none(
    tmp_path: Path, cupy: FakeCupy
) -> None:
    """The same weights as those of a run that stays on the CPU; masks are each device's own."""
    cupy.on.memory.limit = 1 << 28
    trainer_of_digits(dropout=0.0, folder=tmp_path / "run").fit(digits("train", 200), epochs=1)
    with nnx.use_backend("numpy"):
        whole = trainer_of_digits(dropout=0.0)
        whole.fit(digits("train", 200), epochs=2)
    found = load(RESUME, tmp_path / "run")
    expected = [float(p.data.sum()) for p in whole.model.parameters()]
    np.testing.assert_allclose(json.loads(found), expected, rtol=1e-3, atol=1e-4)
