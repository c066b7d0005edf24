"""Choosing a backend: scope, threads, parents, arrays in and out."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import plugin_dirs
import pytest

import nnx
from nnx.backend import backend_of, load_backend
from nnx.override import Overrides
from nnx_numpy import NumpyBackend

strict_installed = pytest.mark.skipif(
    importlib.util.find_spec("array_api_strict") is None,
    reason="array-api-strict is not installed",
)


@pytest.fixture(autouse=True)
def site(tmp_path: Path) -> Iterator[Path]:
    """A site directory in which "toy" is installed: NumPy under another name."""
    plugin_dirs.install_toy(tmp_path)
    with plugin_dirs.fresh_process(tmp_path):
        yield tmp_path


@pytest.fixture
def strict(site: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The plugin over array_api_strict, whose arrays are its own."""
    monkeypatch.syspath_prepend(plugin_dirs.ROOT / "examples" / "strict_backend")
    plugin_dirs.install(site, "nnx-strict", {"strict": "nnx_strict:StrictBackend"})
    return "strict"


def error(kind: type[Exception], f: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(kind) as caught:
        f(*args)
    return str(caught.value)


def in_thread(f: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(f).result()


# Scope


def test_the_default_is_numpy() -> None:
    assert nnx.get_backend().name == "numpy"
    assert nnx.get_backend().xp is np


def test_set_backend_is_process_wide() -> None:
    backend = nnx.set_backend("toy")
    assert nnx.get_backend() is backend
    assert in_thread(nnx.get_backend) is backend
    in_thread(lambda: nnx.set_backend("numpy"))
    assert nnx.get_backend().name == "numpy"


def test_use_backend_is_the_blocks_own() -> None:
    with nnx.use_backend("toy") as toy:
        assert nnx.get_backend() is toy and toy.name == "toy"
        with nnx.use_backend("numpy"):
            assert nnx.get_backend().name == "numpy"
        assert nnx.get_backend() is toy
        assert in_thread(nnx.get_backend).name == "numpy"
        context = copy_context()
        assert in_thread(lambda: context.run(nnx.get_backend)) is toy
        in_thread(lambda: nnx.set_backend("toy"))  # another thread's business is its own
    assert nnx.get_backend() is toy


def test_use_backend_ends_with_the_block_that_raises() -> None:
    with pytest.raises(KeyError), nnx.use_backend("toy"):
        raise KeyError
    assert nnx.get_backend().name == "numpy"


def test_set_backend_inside_use_backend() -> None:
    with nnx.use_backend("toy"):
        assert error(nnx.StateError, nnx.set_backend, "numpy") == (
            "set_backend('numpy') inside `with use_backend('toy')`: it would change other threads "
            "and not this block; leave the block first, or use `with nnx.use_backend('numpy')`"
        )
    assert nnx.get_backend().name == "numpy"


@strict_installed
def test_two_threads_compute_on_different_backends_at_once(strict: str) -> None:
    start = threading.Barrier(2)
    x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)

    def train(name: str) -> tuple[list[float], str]:
        with nnx.use_backend(name):
            w: Any = nnx.Tensor(nnx.asarray(np.ones((5, 1), np.float32)), requires_grad=True)
            losses = []
            start.wait()
            for _ in range(30):
                loss = (nnx.Tensor(nnx.asarray(x)) @ w - 1.0) ** 2
                w.grad = None
                loss.mean().backward()
                w.data = w.data - 0.05 * w.grad
                losses.append(float(loss.mean()))
            return losses, backend_of(w.grad).name

    with ThreadPoolExecutor(2) as pool:
        (a, on_a), (b, on_b) = pool.map(train, ["numpy", strict])
    assert (on_a, on_b) == ("numpy", "strict")
    assert a[-1] < a[0]
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_default_set_while_another_thread_asks_for_the_first_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """get_backend() in one thread must not undo set_backend() in another."""
    load = nnx.backend.load_backend
    asked: list[str] = []

    def slow(name: str) -> nnx.Backend:
        backend = load(name)
        if name == "numpy" and not asked:
            asked.append(name)
            in_thread(lambda: nnx.set_backend("toy"))
        return backend

    monkeypatch.setattr(nnx.backend, "load_backend", slow)
    assert nnx.get_backend().name == "toy"
    assert nnx.get_backend().name == "toy" and asked


def test_one_backend_object_whoever_loads_it() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load_backend, ["toy"] * 32))) == 1


# Parents


class Shared(NumpyBackend):
    """NumPy's arrays, one kernel of its own."""

    name = "shared"
    parent = "numpy"
    kernels = Overrides()


@Shared.kernels.forward(nnx.exp)
def _(xp: Any, x: Any) -> Any:
    return xp.exp(x) + 100


def test_of_backends_that_share_arrays_the_current_wins_else_the_root(site: Path) -> None:
    plugin_dirs.install(site, "nnx-shared", {"shared": f"{__name__}:Shared"})
    x = np.zeros(1)
    with nnx.use_backend("shared") as shared:
        assert backend_of(x) is shared and nnx.exp(x) == 101
        assert nnx.relu(x) == 0, "kernels that it does not replace are the portable ones"
    assert backend_of(x).name == "numpy" and nnx.exp(x) == 1
    assert backend_of(x).name == "numpy"
    with nnx.use_backend("toy"):
        assert backend_of(x).name == "toy"


@strict_installed
def test_among_owners_that_are_not_current_the_root_computes(site: Path, strict: str) -> None:
    plugin_dirs.install(site, "nnx-shared", {"shared": f"{__name__}:Shared"})
    load_backend("shared")
    nnx.set_backend("strict")
    assert backend_of(np.zeros(1)).name == "numpy" and nnx.exp(np.zeros(1)) == 1


# Arrays in and out


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1.0, 2], "float32"), ([[1.5]], "float32"), (2.5, "float32"), ([], "float32"),
        ([1, 2], "int64"), (3, "int64"), ([True], "bool"), ((1, 2), "int64"),
        (np.ones(2), "float64"), (np.float64(1), "float64"), (np.ones(2, np.float16), "float16"),
        (np.ones(2, np.uint8), "uint8"),
    ],
)  # fmt: skip
def test_asarray_dtypes(data: Any, dtype: str) -> None:
    array = nnx.asarray(data)
    assert type(array) is np.ndarray and array.dtype == dtype
    np.testing.assert_array_equal(array, data)


def test_asarray_with_a_dtype_does_not_round_on_the_way() -> None:
    assert nnx.asarray([0.1], "float64")[0] == 0.1
    assert nnx.asarray([0.1], "float32").dtype == np.float32


def test_asarray_shares_what_it_can() -> None:
    x = np.ones(3)
    assert nnx.asarray(x) is x
    torch = pytest.importorskip("torch")
    t = torch.zeros(3)
    nnx.asarray(t)[0] = 7
    assert t[0] == 7


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([[1], [2, 3]], "asarray: nested lists of unequal length"),
        (["a"], "asarray: expected numbers, got a list of dtype <U1"),
        ([None], "asarray: expected numbers, got a list of dtype object"),
        ([1j], "asarray: expected numbers, got a list of dtype complex128"),
        ("text", "asarray: cannot make an array of 'str'; give nested lists, a NumPy array"),
        ({"a": 1}, "asarray: cannot make an array of 'dict'"),
        (None, "asarray: cannot make an array of 'NoneType'"),
        (np.array(["a"]), "numpy: dtype <U1 is not supported; give"),
    ],
)
def test_asarray_refuses(data: Any, words: str) -> None:
    assert error(nnx.DtypeError, nnx.asarray, data).startswith(words)


def test_asarray_refuses_what_the_library_refuses() -> None:
    torch = pytest.importorskip("torch")
    text = error(nnx.DtypeError, nnx.asarray, torch.ones(1, requires_grad=True))
    assert text.startswith("asarray: backend 'numpy' cannot take 'Tensor': Can't export")
    assert error(nnx.DtypeError, nnx.asarray, [1.0], "float33").startswith(
        "asarray: backend 'numpy' cannot take 'ndarray' as 'float33': data type 'float33'"
    )


@strict_installed
def test_asarray_moves_between_backends(strict: str) -> None:
    x = np.arange(3.0)
    s = nnx.asarray(x, backend=strict)
    assert backend_of(s).name == "strict" and type(nnx.to_numpy(s)) is np.ndarray
    np.testing.assert_array_equal(nnx.asarray(s), x)
    np.testing.assert_array_equal(nnx.asarray(nnx.Tensor(s)), x)
    backend = load_backend(strict)
    assert backend.dtype_name(nnx.asarray(s, "float32", backend=backend)) == "float32"


@strict_installed
def test_arrays_of_a_plugin_that_nobody_has_named(strict: str) -> None:
    import array_api_strict

    assert backend_of(array_api_strict.ones(2)).name == "strict"
    assert error(nnx.DtypeError, backend_of, [1.0]) == (
        "no installed backend computes on builtins.list; convert it with nnx.asarray(...) "
        "(nnx.backends() lists what is installed)"
    )


def test_to_numpy() -> None:
    x = np.ones(2)
    assert nnx.to_numpy(x) is x
    for number in (1, 2.5, True, np.float32(3)):
        assert nnx.to_numpy(number) == number and type(nnx.to_numpy(number)) is np.ndarray
    np.testing.assert_array_equal(nnx.to_numpy(nnx.Tensor([1.0])), [1])


# Mixing


@strict_installed
def test_mixed_backends(strict: str) -> None:
    x, w = np.ones((1, 2)), nnx.asarray(np.ones((2, 1)), backend=strict)
    assert error(nnx.MixedBackendsError, nnx.matmul, x, w) == (
        "matmul: argument 'x2' is an array of backend 'strict', the others are of 'numpy'. Nothing "
        "moves silently: bring all to one of the two, arrays with "
        "nnx.asarray(array, backend=NAME), a model with model.to(NAME)"
    )
    text = error(nnx.MixedBackendsError, nnx.concat, x, x, nnx.asarray(x, backend=strict))
    assert text.startswith("concat: argument 'xs[2]' is an array of backend 'strict'")


@strict_installed
def test_mixed_backends_in_a_layer_names_the_layer(strict: str) -> None:
    net = nnx.layers.Sequential(nnx.layers.Linear(2, 3))
    x = nnx.asarray(np.ones((1, 2), np.float32), backend=strict)
    text = error(nnx.MixedBackendsError, net, nnx.Tensor(x))
    assert "Linear" in text and "'strict'" in text and "'numpy'" in text


@strict_installed
def test_one_op_on_two_backends_never_compares_their_dtypes(strict: str) -> None:
    """array_api_strict warns when its dtypes meet NumPy's, and warnings are errors here."""
    condition, x = np.array([True, False]), np.ones(2)
    for name in ("numpy", strict, "numpy"):
        with nnx.use_backend(name):
            y = nnx.where(nnx.asarray(condition), nnx.asarray(x), 0.0)
            np.testing.assert_array_equal(nnx.to_numpy(y), [1, 0])


@pytest.mark.parametrize("name", [None, 3, np])
def test_a_backend_is_a_name(name: Any) -> None:
    with pytest.raises(nnx.BackendError, match="a backend is known by its name, such as 'numpy'"):
        nnx.set_backend(name)


def test_there_is_one_of_each_also_after_a_copy() -> None:
    backend = nnx.get_backend()
    assert copy.deepcopy(backend) is backend and pickle.loads(pickle.dumps(backend)) is backend
