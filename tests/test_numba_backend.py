"""The numba backend: training with it, the hint to it, how its loops are compiled and kept."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import plugin_dirs
import pytest
from capture_tools import batches, both, equal, model, trainer, values
from numba_tools import (
    needs_numba,
)

import nnx
from nnx import cli, optim
from nnx import layers as L
from nnx.capture import capture

pytestmark = pytest.mark.usefixtures("numba_installed")


# Training


def trained(backend: str, wrap: Any, name: str = "Adam") -> tuple[Any, list[float]]:
    with nnx.use_backend(backend):
        net = model(L.Gelu(), L.Tanh())
        step = wrap(trainer(net, getattr(optim, name)(net.parameters())))
        return net, [float(step(x, t)) for x, t in batches(30)]


@needs_numba
def test_training_equals_numpys() -> None:
    on_numba, on_numpy = trained("numba", lambda f: f), trained("numpy", lambda f: f)
    assert on_numba[1] == pytest.approx(on_numpy[1], rel=1e-4)
    for a, b in zip(values(on_numba[0]), values(on_numpy[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


@needs_numba
@pytest.mark.parametrize("name", ["SGD", "AdaGrad", "RMSProp", "Adam", "AdamW"])
def test_replayed_training_equals_eager_training_to_the_bit(name: str) -> None:
    both(lambda wrap: trained("numba", wrap, name))


@needs_numba
def test_a_deep_copy_of_model_and_optimizer_trains_alike() -> None:
    with nnx.use_backend("numba"):
        net = model()
        opt = optim.Adam(net.parameters())
        x, t = batches(1)[0]
        trainer(net, opt)(x, t)
        net2, opt2 = copy.deepcopy((net, opt))
        trainer(net, opt)(x, t)
        trainer(net2, opt2)(x, t)
    assert equal(values(net), values(net2))


@needs_numba
def test_a_replay_is_one_program() -> None:
    """Between checking the labels and returning, nothing of Python runs."""
    with nnx.use_backend("numba"):
        net = model(L.Gelu(), L.Softmax())
        step = capture(trainer(net, optim.Adam(net.parameters())))
        for x, t in batches(4):
            step(x, t)
    code = step.plan().code.splitlines()
    assert [line.split("(")[0].strip() for line in code if "#" not in line] == [
        "def replay", "test", "numbers", "program", "return",
    ]  # fmt: skip
    note = next(line for line in code if "#" in line)
    for name in ("gemm", "bias_relu", "gelu", "softmax", "cross_entropy", "gelu_slope", "adam"):
        assert f" {name}" in note


@needs_numba
@pytest.mark.slow
def test_the_op_suite_passes() -> None:
    if "numba" not in nnx.backends():
        pytest.skip("nnx is not installed here, so no entry point names numba")
    suite = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_ops.py")
    assert " passed" in run(*suite, "--backend=numba").stdout


# The hint of `nnx train`


@pytest.mark.parametrize("found", [True, False])
def test_training_on_numpy_points_to_numba_where_it_is_installed(
    found: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    util = types.SimpleNamespace(find_spec=lambda name: name == "numba" if found else None)
    monkeypatch.setattr("nnx.cli.train.importlib", types.SimpleNamespace(util=util))
    assert cli.main(["train", "--epochs", "1", "--model", "linear"]) == 0
    hint = "hint: numba is installed: --backend numba runs small networks faster\n"
    assert capsys.readouterr().out.endswith(hint) is found


@needs_numba
def test_training_on_numba(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--epochs", "3", "--backend", "numba"]) == 0
    shown = capsys.readouterr().out
    assert "backend numba" in shown and "hint" not in shown
    (accuracy,) = [line for line in shown.splitlines() if line.startswith("held-out accuracy")]
    assert float(accuracy.split()[2]) >= 80


# Compilation


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = plugin_dirs.ROOT
    path = [*map(str, (root, root / "backends", root / "tests")), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **environment}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env={**env, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done


RELU = """
import numpy as np, nnx, nnx_numba
kernels = nnx_numba.NumbaBackend().kernels
print(kernels[nnx.relu].forward(np, np.array([-1.0, 2.0])))
"""
LINE = "nnx: compiling kernels for numba, kept for next time ...\n"


@needs_numba
def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, nnx, nnx_numba; print('numba' in sys.modules)"
    assert run("-c", code).stdout == "False\n"


@needs_numba
def test_loops_are_compiled_once_and_kept_on_disk(tmp_path: Path) -> None:
    first = run("-c", RELU, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first.stdout, first.stderr) == ("[0. 2.]\n", LINE)
    again = run("-c", RELU, NUMBA_CACHE_DIR=str(tmp_path))
    assert (again.stdout, again.stderr) == ("[0. 2.]\n", "")


@needs_numba
def test_without_a_folder_to_keep_them_loops_are_compiled_each_time() -> None:
    done = run(
        "-c", RELU, NUMBA_CACHE_DIR=os.path.join(os.devnull, "none"),
        NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator",
    )  # fmt: skip
    assert done.stdout == "[0. 2.]\n"
    assert done.stderr == "nnx: compiling kernels for numba ...\n"


def message(tmp_path: Path) -> str:
    plugin_dirs.install(tmp_path, "nnx-xp", {"numba": "nnx_numba:NumbaBackend"})
    with plugin_dirs.fresh_process(tmp_path):
        with pytest.raises(nnx.errors.BackendPackageError) as caught:
            nnx.set_backend("numba")
        assert nnx.get_backend().name == "numpy", "the previous backend must stay"
    return str(caught.value)


def test_numba_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert message(tmp_path) == (
        "the backend 'numba' needs the package numba, which is not installed; "
        "from nnx's checkout: pip install '.[numba]'"
    )


def test_numba_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def find(name: str) -> Any:
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 2.9.")
        return importlib.import_module(name)

    monkeypatch.setattr("nnx_numba.importlib", types.SimpleNamespace(import_module=find))
    assert message(tmp_path) == (
        "numba fails to import: Numba needs NumPy 2.4 or less. Got NumPy 2.9.; reinstall it, "
        "from nnx's checkout: pip install '.[numba]'"
    )
