"""The published networks: their sizes as published, and the command on a few images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "papers"))

from idx_files import idx
from networks import PAPERS

ROOT = Path(__file__).resolve().parent.parent


def test_the_published_numbers_of_parameters() -> None:
    """300 and 800 units by arithmetic; LeNet-5 with all maps joined has 61,706."""
    found = {n: sum(p.size for p in paper.network().parameters()) for n, paper in PAPERS.items()}
    assert found["mlp300"] == 785 * 300 + 301 * 10
    assert found["mlp500-150"] == 785 * 500 + 501 * 150 + 151 * 10
    assert found["mlp800"] == 785 * 800 + 801 * 10
    assert found["lenet5"] == 61_706
    assert found["book-two-layer"] == 785 * 50 + 51 * 10
    assert found["book-simple-conv"] == 26 * 30 + 4321 * 100 + 101 * 10


@pytest.mark.parametrize("name", PAPERS)
def test_the_command(name: str, tmp_path: Path) -> None:
    for prefix, n in (("train", 12), ("t10k", 10)):
        pixels = np.random.default_rng(n).integers(0, 256, n * 784).tolist()
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(pixels, (n, 28, 28)))
        labels = [i % 10 for i in range(n)]
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels, (n,)))
    made = tmp_path / "papers.json"
    command = [sys.executable, "benchmarks/papers/run.py", name, "--data-dir", str(tmp_path)]
    command += ["--epochs", "1", "--rows", "11", "--json", str(made), "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{name}: test error ") and "seed 0, 1 epochs" in done.stdout
    (run,) = json.loads(made.read_text())
    assert run["name"] == name and 0 <= run["error"] <= 100
    assert f"| {name} | {run['parameters']:,} | {run['error']:.2f} |" in (
        made.with_suffix(".md").read_text()
    )
