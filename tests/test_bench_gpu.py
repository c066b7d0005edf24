"""benchmarks/gpu.py from end to end, on the stand-in: that it runs, not what it measures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import plugin_dirs
import pytest
from fake_cupy import FakeCupy


@pytest.fixture
def gpu() -> Any:
    path = plugin_dirs.ROOT / "benchmarks" / "gpu.py"
    found = importlib.util.spec_from_file_location("bench_gpu", path)
    assert found is not None and found.loader is not None
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.CHUNK_S = 1e-3
    return module


def test_a_quick_run_writes_every_part(
    gpu: Any, standin: FakeCupy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(["--quick", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["device"]["device"] == "0: Fake 0" and found["device"]["cuda driver"] == "13.0"
    assert set(found["ceilings"]) == {
        "copy_bytes_per_s", "float32_flops_per_s", "tf32_flops_per_s",
    }  # fmt: skip
    assert [row["precision"] for row in found["steps"]] == ["float32", "tf32"]
    for row in found["steps"]:
        assert {"cupy", "cupy replay"} <= set(row["times"]) and not row["wrong"]
        assert all(t["seconds"] > 0 and len(t["quartiles"]) == 3 for t in row["times"].values())
    assert [row["op"] for row in found["ops"]] == ["relu", "softmax", "matmul"]
    assert all(row["of_copy"] > 0 for row in found["ops"]) and found["ops"][2]["of_product"] > 0
    assert {len(s) for s in found["sweep"]["seconds"].values()} == {2}
    assert "64-32-10, batch 1, SGD, tf32: cupy " in capsys.readouterr().out


def test_another_loss_is_not_timed(gpu: Any, standin: FakeCupy, monkeypatch: Any) -> None:
    def spoilt(case: Any) -> Any:
        made = gpu_implementations(case)
        p, clock = made["cupy replay"]
        made["cupy replay"] = (p._replace(values=lambda y: [1e9]), clock)
        return made

    gpu_implementations = gpu.implementations
    monkeypatch.setattr(gpu, "implementations", spoilt)
    row = gpu.step(gpu.STEPS[0], "float32", 2)
    assert set(row["wrong"]) == {"cupy replay"} and "cupy replay" not in row["times"]
