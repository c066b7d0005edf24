"""Every example runs as a script, without a warning, and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PRINTS = {
    "scikit_learn.py": ["weighted avg      0.9", "ROC curve: 0.99", "as nnx has it: 0.9"],
    "notebook.py": ["price: 1870.0000000000002", "banana: 5.5", "banana more: 330.0", "loss 0.00"],
    "xor.py": ["step 300: loss 0.00", "0 xor 0 = 0.0", "0 xor 1 = 0.9", "1 xor 1 = 0.0"],
    "custom_layer.py": ["'0.gate.W'", "the same gradient: True", "step 50: loss 0.0"],
    "custom_op.py": ["second derivative at 0: 0.5", "[-0.05266461  0.5         1.01232643]"],
    "switching_backends.py": ["numpy.ndarray, same values: True", "no backend named 'tpu'"],
}


def run(script: str, *arguments: str) -> str:
    """The script's output, run on the nnx that these tests import."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True, text=True, encoding="utf-8", timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_example_is_run() -> None:
    assert {p.name for p in EXAMPLES.glob("*.py")} == {*PRINTS, "mnist.py", "lenet.py"}


@pytest.mark.parametrize("script", PRINTS)
def test_example(script: str) -> None:
    if script == "scikit_learn.py":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    output = run(script)
    for expected in PRINTS[script]:
        assert expected in output, output
    assert "same values: False" not in output


def test_custom_op_is_right() -> None:
    """What it prints as the gradient and as the measured one are the same figures."""
    lines = dict(line.split(": ", 1) for line in run("custom_op.py").splitlines() if ": " in line)
    assert lines["gradient"] == lines["measured"]


@pytest.mark.parametrize("script", ["mnist.py", "lenet.py"])
def test_mnist(script: str) -> None:
    at = Path(os.environ.get("NNX_MNIST_DIR", ROOT.parent / "shared" / "data" / "mnist"))
    if not (at / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"no MNIST files in {at}; set NNX_MNIST_DIR to the folder that has them")
    output = run(script, "--data-dir", str(at), "--epochs", "1", "--steps", "50")
    accuracy = float(output.rsplit("test accuracy ", 1)[1].rstrip("%\n"))
    assert 80 < accuracy < 100
