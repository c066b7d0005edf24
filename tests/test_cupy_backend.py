"""The cupy backend against a stand-in for cupy: devices, arrays in and out, overrides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cublaslt
import fake_cupy
import numpy as np
import plugin_dirs
import pytest
from fake_cupy import FakeCupy

import nnx
from nnx import layers as L
from nnx import optim

Patch = pytest.MonkeyPatch
MIXED = "matmul: argument 'x2' is an array of backend 'numpy', the others are of 'cupy'"


@pytest.fixture(autouse=True)
def registered(tmp_path: Path) -> Iterator[None]:
    """The entry point, as the installed distribution has it, and nothing loaded."""
    plugin_dirs.install(tmp_path, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        yield


@pytest.fixture
def cupy(monkeypatch: Patch) -> FakeCupy:
    return fake_cupy.install(monkeypatch, FakeCupy())


# Devices


def test_names_of_devices(cupy: FakeCupy) -> None:
    first = nnx.set_backend("cupy")
    assert first.name == "cupy" and nnx.set_backend("cupy:0") is first
    second = nnx.set_backend("cupy:1")
    assert second.name == "cupy:1" and nnx.get_backend() is second
    a, b = nnx.asarray([1.0], backend="cupy"), nnx.asarray([1.0])
    assert (a.device.id, b.device.id) == (0, 1)
    assert first.owns(a) and not first.owns(b) and second.owns(b) and not second.owns(a)
    assert not first.owns(np.ones(1))


def test_the_device_of_the_backend_is_the_current_one(cupy: FakeCupy) -> None:
    """So that users' own arithmetic on arrays runs there."""
    nnx.set_backend("cupy:1")
    assert cupy.current == 1
    with nnx.use_backend("cupy"):
        assert cupy.current == 0
        nnx.exp(nnx.asarray([1.0], backend="cupy:1"))
        assert cupy.current == 0
    assert cupy.current == 1
    with pytest.raises(nnx.DeviceError):
        nnx.set_backend("cupy:2")
    assert cupy.current == 1
    nnx.set_backend("cupy")
    assert cupy.current == 0


def test_what_users_give_runs_on_the_device_of_its_arrays(
    cupy: FakeCupy, monkeypatch: Patch
) -> None:
    """Hooks, metrics and the Trainer's own sums, whatever device is current outside."""
    fake_cublaslt.install(monkeypatch, cupy)
    with nnx.use_backend("cupy:1"):
        net = L.Linear(2, 3)
    x, t = np.ones((4, 2), np.float32), np.array([0, 1, 2, 1])
    nnx.set_backend("cupy")
    remove = net.W.register_hook(lambda g: g * 2)
    data = nnx.data.ArrayDataset(x, t)
    batches = nnx.data.DataLoader(data, 2, backend="cupy:1")

    def trained(**how: Any) -> None:
        trainer = nnx.Trainer(net, optim.SGD(net.parameters(), 0.1), **how)
        history = trainer.fit(batches, batches, epochs=3)
        assert np.isfinite(history[-1]["train_loss"]) and cupy.current == 0
        assert trainer.evaluate(batches).scores["loss"] == history[-1]["test_loss"]
        assert trainer.predict(x, batch_size=3).device.id == 1

    trained(metrics={"half": lambda y, t: nnx.mean(y * 0.5)}, eager=True)
    remove()
    trained()


def test_computation_happens_on_the_device_of_the_arrays(cupy: FakeCupy) -> None:
    backend = nnx.set_backend("cupy:1")
    x: Any = nnx.Tensor([[1.0, -2.0]], requires_grad=True)
    w = nnx.Tensor([[2.0], [0.5]], requires_grad=True)
    nnx.set_backend("numpy")  # computation follows the arrays
    cupy.cuda.Device(0).use()
    y = nnx.relu(x @ w).sum()
    y.backward()
    assert y.data.device.id == x.grad.device.id == 1 and cupy.current == 0
    np.testing.assert_array_equal(nnx.to_numpy(x.grad), [[2.0, 0.5]])
    assert nnx.asarray(x.grad, backend="cupy").device.id == 0
    backend.synchronize()
    backend.free_memory()
    assert cupy.synchronized == [1] and cupy.freed == [1, 1]


def test_no_context_is_entered_where_the_device_is_current(cupy: FakeCupy) -> None:
    nnx.set_backend("cupy")
    x = nnx.asarray([1.0, 2.0])
    nnx.exp(x)
    assert cupy.entered == 0


@pytest.mark.parametrize("loaded_before", [True, False])
def test_mixing_devices_names_both(cupy: FakeCupy, loaded_before: bool) -> None:
    nnx.set_backend("cupy")
    x = nnx.asarray([1.0])
    there = cupy.ndarray(np.ones(1, np.float32), 1)
    if loaded_before:
        there = nnx.asarray([1.0], backend="cupy:1")
    with pytest.raises(nnx.MixedBackendsError) as caught:
        nnx.add(x, there)
    assert str(caught.value) == (
        "add: argument 'x2' is an array of backend 'cupy:1', the others are of 'cupy'. Nothing "
        "moves silently: bring all to one of the two, arrays with "
        "nnx.asarray(array, backend=NAME), a model with model.to(NAME)"
    )


def test_mixing_with_numpy_names_both(cupy: FakeCupy) -> None:
    nnx.set_backend("cupy")
    with pytest.raises(nnx.MixedBackendsError, match=MIXED):
        nnx.matmul(nnx.asarray([1.0]), np.ones(1, np.float32))


# Arrays in and out


class CudaTensor:
    """A DLPack object in the memory of a CUDA device."""

    def __init__(self, device: int) -> None:
        self.host, self.device = np.arange(3.0), device

    def __dlpack__(self, **_: Any) -> None: ...

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device


@pytest.mark.parametrize("device", [0, 1])
def test_asarray(cupy: FakeCupy, device: int) -> None:
    backend = nnx.set_backend(f"cupy:{device}")
    own = nnx.asarray(np.arange(3.0))
    other = cupy.ndarray(np.arange(3.0), 1 - device)
    for data in (own, other, CudaTensor(0), CudaTensor(1), np.arange(3.0), [0.0, 1.0, 2.0]):
        array = backend.asarray(data)
        assert array.device.id == device and array.dtype == np.float64
        np.testing.assert_array_equal(nnx.to_numpy(array), [0, 1, 2])
    assert nnx.asarray(own) is own
    assert nnx.asarray(own, "float32").dtype == np.float32
    assert nnx.asarray([1.0]).dtype == np.float32 and nnx.asarray([1]).dtype == np.int64
    assert cupy.current == device


def test_asarray_of_a_torch_tensor(cupy: FakeCupy) -> None:
    torch = pytest.importorskip("torch")
    nnx.set_backend("cupy")
    np.testing.assert_array_equal(nnx.to_numpy(nnx.asarray(torch.ones(2))), [1, 1])


def test_strings_are_refused(cupy: FakeCupy) -> None:
    backend = nnx.set_backend("cupy")
    with pytest.raises(nnx.DtypeError, match="cupy: dtype <U1 is not supported; give numbers"):
        backend.asarray(np.asarray(["a"]))


def test_the_small_methods(cupy: FakeCupy) -> None:
    backend = nnx.set_backend("cupy:1")
    x = backend.zeros((2,), "float32")
    copied = backend.copy(x)
    assert backend.write(x, backend.asarray(np.ones(2, np.float32))) is x
    np.testing.assert_array_equal(backend.to_numpy(x), [1, 1])
    np.testing.assert_array_equal(backend.to_numpy(copied), [0, 0])
    assert backend.dtype_name(x) == "float32" and not backend.on_host
    drawn, again = (
        backend.to_numpy(backend.uniform((3,), np.dtype(np.float64), np.random.default_rng(7)))
        for _ in range(2)
    )
    np.testing.assert_array_equal(drawn, again)
    assert drawn.dtype == np.float64 and ((drawn >= 0) & (drawn < 1)).all()
    assert backend.describe() == {
        "cupy": "14.2.0",
        "cuda runtime": "12.9",
        "cuda driver": "13.0",
        "device": "1: Fake 1",
        "memory": "80 GiB",
    }


# Overrides, against the portable kernels on NumPy


@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_add_and_take(cupy: FakeCupy, axis: int) -> None:
    x = np.arange(24.0).reshape(4, 6)
    indices = np.array([[1, 0, 1], [3, 3, 3]])
    dy = np.random.default_rng(0).normal(size=(*x.shape[:axis], 2, 3, *x.shape[axis + 1 :]))
    expected = nnx.scatter_add(dy, indices, size=5, axis=axis)
    nnx.set_backend("cupy")
    got = nnx.scatter_add(nnx.asarray(dy), nnx.asarray(indices), size=5, axis=axis)
    np.testing.assert_allclose(nnx.to_numpy(got), expected)


@pytest.mark.parametrize("make", [
    lambda a: (slice(1, 3), None, 2),
    lambda a: (a([0, 0, 2]), slice(None)),
    lambda a: (a([0, 0, 2]), a([1, 1, 0])),
])  # fmt: skip
def test_getitem_adjoint(cupy: FakeCupy, make: Any) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    y = x[make(np.asarray)]
    expected = nnx.getitem_adjoint(y, index=make(np.asarray), shape=(4, 3))
    nnx.set_backend("cupy")
    got = nnx.getitem_adjoint(nnx.asarray(y), index=make(nnx.asarray), shape=(4, 3))
    np.testing.assert_allclose(nnx.to_numpy(got), expected)


def test_getitem_adjoint_in_bfloat16(cupy: FakeCupy) -> None:
    """CuPy adds it nowhere; the sum of many small numbers shows that float32 does."""
    dtype = pytest.importorskip("ml_dtypes").bfloat16
    x, rows = np.full(1000, 0.25, dtype), np.zeros(1000, int)
    backend = nnx.set_backend("cupy")
    kernel = backend.kernels[nnx.ops.index.getitem_adjoint].forward
    given = cupy.ndarray(x, 0)
    got = backend.call(kernel, (given,), {"index": nnx.asarray(rows), "shape": (2,)})
    assert got.dtype == dtype and got.get().tolist() == [250, 0]


def test_erf_keeps_the_dtype(cupy: FakeCupy) -> None:
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    expected = nnx.erf(x)
    nnx.set_backend("cupy")
    got = nnx.erf(nnx.asarray(x))
    assert got.dtype == np.float32
    np.testing.assert_allclose(nnx.to_numpy(got), expected, atol=1e-6)


def test_namespace_spells_as_the_standard_does(cupy: FakeCupy) -> None:
    xp = nnx.set_backend("cupy").xp
    x = xp.asarray(np.array([[1.0, 2.0], [4.0, 8.0]]))
    np.testing.assert_allclose(xp.var(x, axis=0, correction=1).get(), [4.5, 18.0])
    np.testing.assert_allclose(xp.std(x, axis=0, correction=1).get(), np.sqrt([4.5, 18.0]))
    np.testing.assert_array_equal(xp.clip(x, max=3).get(), [[1, 2], [3, 3]])
    np.testing.assert_array_equal(xp.clip(x, 2).get(), [[2, 2], [4, 8]])
    assert xp.reshape(x, shape=(4,)).shape == (4,) and len(xp.unstack(x, axis=1)) == 2
    order = xp.asarray(np.array([[1, 0], [0, 1]]))
    np.testing.assert_array_equal(xp.take_along_axis(x, order).get(), [[2, 1], [4, 8]])
    assert repr(xp) == "<the Array API on cupy 14.2.0>"
