"""The example plugin, installed as a stranger would: the op registry's suite and a training run on
a library that has the Array API standard and nothing else. The proof that kernels are portable.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

for needed, package in {"array_api_strict": "array-api-strict", "hatchling": "hatchling"}.items():
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

TRAIN = """
import json, sys
import nnx
from nnx import layers as L, optim

nnx.seed(0)
nnx.set_backend(sys.argv[1])
net = L.Sequential(L.Linear(64, 32), L.Relu(), L.Linear(32, 10))
loss, opt = L.SoftmaxCrossEntropy(), optim.SGD(net.parameters(), lr=0.5)
loader = nnx.data.DataLoader(nnx.data.load("digits"), batch_size=100, shuffle=True, seed=0)
losses = []
for x, t in [*loader, *loader]:  # two epochs
    opt.zero_grad()
    l = loss(net(nnx.Tensor(nnx.asarray(x))), nnx.asarray(t))
    l.backward()
    opt.step()
    losses.append(float(l))
assert net.parameters()[0].backend.name == sys.argv[1]
print(json.dumps(losses))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that sees the installed plugin beside this nnx."""
    site = tmp_path_factory.mktemp("site")
    source = ROOT / "examples" / "strict_backend"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*install, "--quiet", "--disable-pip-version-check", "--target", str(site), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (source / "build").exists()
    path = [str(site), str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": "1"}


def python(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def test_it_is_listed_with_its_distribution(environment: dict[str, str]) -> None:
    code = "import nnx; b = nnx.backends()['strict']; print(b.available, b.package)"
    assert python(environment, "-c", code) == "True nnx-strict 1.0\n"


def test_training_equals_numpys(environment: dict[str, str]) -> None:
    on_strict, on_numpy = (
        json.loads(python(environment, "-c", TRAIN, name)) for name in ("strict", "numpy")
    )
    assert sum(on_numpy[-3:]) / 3 < on_numpy[0] / 2
    assert on_strict == pytest.approx(on_numpy, rel=1e-3)


@pytest.mark.slow
def test_the_op_suite_passes(environment: dict[str, str]) -> None:
    suite = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_ops.py")
    assert " passed" in python(environment, *suite, "--backend=strict")
