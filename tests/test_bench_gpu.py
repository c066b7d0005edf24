"""benchmarks/gpu.py from end to end, on the stand-in: what it keeps and says, not its figures."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import time
from pathlib import Path
from statistics import median
from typing import Any

import plugin_dirs
import pytest
from fake_cupy import FakeCupy


class DiedError(BaseException):
    """Stands for the end of a worker's process."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script; its workers run in this process."""
    path = plugin_dirs.ROOT / "benchmarks" / "gpu.py"
    found = importlib.util.spec_from_file_location("bench_gpu", path)
    assert found is not None and found.loader is not None
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.timing = importlib.import_module("on_gpu.timing")
    module.goals = importlib.import_module("on_gpu.goals")
    monkeypatch.setattr(module.timing, "CHUNK_S", 1e-3)
    monkeypatch.setattr(module, "driver", lambda: "999.9")

    def spawn(path: Path, until: float) -> int:
        try:
            code: int = module.worker(path, until)
        except DiedError:
            return -11
        return code

    monkeypatch.setattr(module, "spawn", spawn)
    return module


@pytest.fixture
def with_torch(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch on the CPU in place of its eager steps on the GPU; graphs it has none there."""
    torch = pytest.importorskip("torch")
    torch_cases = importlib.import_module("nnx.bench.torch_cases")
    monkeypatch.setattr(gpu.parts, "torch", lambda: torch)
    monkeypatch.setitem(torch_cases.VARIANTS, "torch-cuda", torch_cases.Variant())
    monkeypatch.setattr(
        gpu.timing, "CLOCKS", {**gpu.timing.CLOCKS, "torch": gpu.timing.on_host}
    )  # fmt: skip
    return torch


def quick(gpu: Any, path: Path, *more: str) -> Any:
    gpu.main(["--quick", "--json", str(path), *more])
    return json.loads(path.read_text())


STEP = "64-32-10, batch 1, SGD, float32"
STEPPING = ("cupy", "cupy replay", "cupy replay fast")
ROWS = [
    "copy", "product, float32", "product, tf32", STEP, STEP.replace("float32", "tf32"),
    "relu 64x256", "softmax 64x256", "matmul 64x256",
    "64-32-10, batch 1, by batch", "64-32-10, batch 4, by batch",
]  # fmt: skip


def only(gpu: Any, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """These parts of a quick run and no others."""
    chosen = [part for part in gpu.parts.parts(True) if part.name in names]
    assert len(chosen) == len(names)
    monkeypatch.setattr(gpu.parts, "parts", lambda quick: chosen)


def cells(shown: str, start: str, count: int = 0) -> list[str]:
    line = [line for line in shown.splitlines() if line.startswith(f"| {start}")][count]
    return [cell.strip() for cell in line.strip("|").split("|")]


def microseconds(cell: str) -> float:
    value, unit = cell.split()[:2]
    return float(value) * {"us": 1.0, "ms": 1e3, "s": 1e6}[unit]


def test_a_quick_run_writes_every_part(
    gpu: Any, standin: FakeCupy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = quick(gpu, tmp_path / "found.json")
    assert list(found["rows"]) == ROWS
    assert found["device"]["device"] == "0: Fake 0" and found["versions"]["driver"] == "999.9"
    assert not (found["errors"] or found["left"] or found["begun"])
    for row in found["rows"].values():
        wanted = {"cupy"} if row["section"] == "ceilings" else {"cupy", "cupy replay"}
        assert wanted <= set(row["seconds"]) and "torch-cuda" not in row["seconds"]
        assert all(len(s) == 3 and min(s) > 0 for s in row["seconds"].values())
    printed = capsys.readouterr().out
    assert f"s] {STEP}: cupy " in printed and "## Goals" in printed
    assert (tmp_path / "found.md").read_text() in printed


def test_the_block_of_the_readme_has_the_files_figures(
    gpu: Any, with_torch: Any, standin: FakeCupy, tmp_path: Path
) -> None:
    rows = quick(gpu, tmp_path / "found.json")["rows"]
    given = gpu.record.read(tmp_path / "found.json")
    shown = gpu.tables.block(given, "benchmarks/results/device-2030-01-31.json")
    step = rows[STEP]["seconds"]
    assert cells(shown, "  ") == [
        "", "PyTorch", "nnx eager", "nnx replay", 'nnx replay, fuse="fast"',
    ]  # fmt: skip
    for count, name in enumerate((STEP, STEP.replace("float32", "tf32"))):
        step, line = rows[name]["seconds"], cells(shown, "64-32-10", count)
        for cell, column in zip(line[1:], ("torch-cuda", *STEPPING), strict=True):
            assert microseconds(cell) == pytest.approx(1e6 * median(step[column]), rel=6e-3)
            if column != "torch-cuda":
                ratio = 1 / median(
                    a / b for a, b in zip(step[column], step["torch-cuda"], strict=True)
                )  # fmt: skip
                assert float(cell.split()[-1][:-1]) == pytest.approx(ratio, rel=6e-2, abs=6e-3)
    copied = 2 * (1 << 20) / median(rows["copy"]["seconds"]["cupy"])
    relu = rows["relu 64x256"]["seconds"]
    best = min(median(relu["cupy"]), median(relu["cupy replay"]))
    reached = 2 * 4 * 64 * 256 / best
    line = cells(shown, "relu")
    assert microseconds(line[1]) == pytest.approx(1e6 * best, rel=6e-3)
    assert float(line[3][:-1]) == pytest.approx(100 * reached / copied, abs=1)
    mine, host = (
        [median(row["seconds"][name]) for row in rows.values() if row["section"] == "sweep"]
        for name in ("cupy replay", "numpy replay")
    )
    ahead = [m < h for m, h in zip(mine, host, strict=True)]
    wins = [batch for i, batch in enumerate((1, 4)) if all(ahead[i:])]
    assert (f"from batch {wins[0]} on" if wins else "at no batch up to 4") in shown
    assert "Fake 0, 80 GiB, driver 999.9, CUDA 12.9, CuPy 14.2.0" in shown
    assert "taken with `python benchmarks/gpu.py --quick`" in shown
    assert "Missing: PyTorch CUDA graphs" in shown


def test_what_fails_is_told_and_the_others_go_on(
    gpu: Any, with_torch: Any, standin: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(gpu, monkeypatch, "product, tf32", STEP)
    torch_cases, asked = importlib.import_module("nnx.bench.torch_cases"), list[str]()
    monkeypatch.setattr(torch_cases, "set_precision", asked.append)
    found = quick(gpu, tmp_path / "found.json")
    assert "CUDA" in found["errors"][STEP]["torch-cuda-graphs"]
    assert set(found["rows"][STEP]["seconds"]) == {"torch-cuda", *STEPPING}
    assert set(found["errors"]["product, tf32"]) == {"torch-cuda"}
    assert asked == ["tf32", "float32", "float32", "float32"]  # each part's, and back
    told = (tmp_path / "found.md").read_text()
    assert f"- {STEP}, PyTorch CUDA graphs: " in told


def test_another_result_is_not_timed(
    gpu: Any, standin: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(name: str, case: Any) -> Any:
        made = prepared(name, case)
        if name != "cupy replay" or case.kind == "op":
            return made
        return made._replace(values=lambda y: [made.values(y)[0] + 0.01])

    prepared = gpu.parts._prepared
    monkeypatch.setattr(gpu.parts, "_prepared", spoilt)
    only(gpu, monkeypatch, STEP)
    found = quick(gpu, tmp_path / "found.json")
    assert "result 1 of 5 differs from NumPy's by 0.00999" in found["errors"][STEP]["cupy replay"]
    assert set(found["rows"][STEP]["seconds"]) == {"cupy", "cupy replay fast"}


def dying(gpu: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, *where: str) -> None:
    """An implementation whose preparation, in the step, raises."""

    def prepare(name: str, case: Any) -> Any:
        if name in where and case.kind == "network" and case.sizes == (64, 32, 10):
            raise error
        return prepared(name, case)

    prepared = gpu.parts._prepared
    monkeypatch.setattr(gpu.parts, "_prepared", prepare)


def test_a_worker_that_dies_is_followed_by_another(
    gpu: Any, standin: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying(gpu, monkeypatch, DiedError(), "cupy replay")
    only(gpu, monkeypatch, STEP, "relu 64x256")
    found = quick(gpu, tmp_path / "found.json")
    assert found["errors"][STEP] == {"cupy replay": "its process ended with code -11"}
    assert set(found["rows"][STEP]["seconds"]) == {"cupy", "cupy replay fast"}
    assert list(found["rows"]) == [STEP, "relu 64x256"]


def test_after_a_broken_device_a_new_process_goes_on(
    gpu: Any, standin: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying(gpu, monkeypatch, RuntimeError("cudaErrorIllegalAddress"), "cupy")
    monkeypatch.setattr(gpu.parts, "alive", lambda: False)
    only(gpu, monkeypatch, "copy", STEP)
    codes = []
    spawn = gpu.spawn
    monkeypatch.setattr(gpu, "spawn", lambda *given: codes.append(spawn(*given)) or codes[-1])
    found = quick(gpu, tmp_path / "found.json")
    assert codes == [gpu.AGAIN, 0]
    assert found["errors"][STEP] == {"cupy": "RuntimeError: cudaErrorIllegalAddress"}
    assert set(found["rows"][STEP]["seconds"]) == {"cupy replay", "cupy replay fast"}


def test_a_part_that_fails_as_a_whole(
    gpu: Any, standin: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(case: Any) -> Any:
        raise MemoryError("of the host")

    monkeypatch.setattr(gpu.parts, "_losses", losses)
    only(gpu, monkeypatch, STEP, "relu 64x256")
    found = quick(gpu, tmp_path / "found.json")
    assert gpu.parts.alive() and found["errors"][STEP] == {"all": "MemoryError: of the host"}
    assert list(found["rows"]) == ["relu 64x256"]
    assert f"- {STEP}: MemoryError: of the host" in (tmp_path / "found.md").read_text()


def test_what_nobody_got_to_is_taken_up(
    gpu: Any, standin: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(gpu, monkeypatch, "copy", STEP)
    path = tmp_path / "found.json"
    found = quick(gpu, path, "--minutes", "-1")
    assert found["left"] == ["copy", STEP] and not found["rows"]
    assert "Missing: " in gpu.tables.block(gpu.record.read(path), "x.json")
    gpu.worker(path, time.time() + 60)
    before = json.loads(path.read_text())
    assert not before["left"] and list(before["rows"]) == ["copy", STEP]
    kept = before["rows"].pop(STEP)
    path.write_text(json.dumps(before))
    after = quick(gpu, path, "--resume")
    assert after["rows"]["copy"] == before["rows"]["copy"]
    assert after["rows"][STEP] != kept and not after["left"]


def test_another_machine_does_not_go_on(gpu: Any, standin: FakeCupy, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    found = quick(gpu, path, "--minutes", "-1")
    path.write_text(json.dumps({**found, "versions": {**found["versions"], "driver": "1"}}))
    with pytest.raises(SystemExit, match=r"was begun on .*'driver': '1'"):
        quick(gpu, path, "--resume")


def test_the_goals(gpu: Any, standin: FakeCupy, tmp_path: Path) -> None:
    """By seconds whose ratios can be worked out in the head."""
    quick(gpu, tmp_path / "found.json", "--minutes", "-1")
    result = gpu.record.read(tmp_path / "found.json")

    def step(replay: float, eager: float, **more: Any) -> Any:
        seconds = {"torch-cuda": [2.0] * 3, "torch-cuda-graphs": [1.0] * 3}
        seconds |= {"cupy": [eager] * 3, "cupy replay": [replay] * 3}
        return {"section": "steps", "seconds": seconds, "precision": "float32", **more}

    result["rows"] = {
        "copy": {"section": "ceilings", "seconds": {"cupy": [1.0]}, "bytes": 100},
        "64-32-10, batch 32, SGD, float32": step(0.1, 9),
        "784-100-10, batch 100, SGD, float32": step(0.1, 9),
        "784-100-10, batch 100, Adam, float32": step(0.3, 9),
        "784-2048-2048-2048-10, batch 512, SGD, float32": step(1.5, 1),
        "784-2048-2048-2048-10, batch 512, SGD, tf32": step(1.5, 3, precision="tf32"),
        "relu 4096x4096": {"section": "ops", "seconds": {"cupy": [1.0]}, "bytes": 90},
        "exp 4096x4096": {"section": "ops", "seconds": {"cupy": [1.0]}, "bytes": 80},
        "sum 4096x4096": {"section": "ops", "seconds": {"cupy": [1.0]}, "bytes": 10},
    }
    told = {line[0]: line[2:] for line in map(gpu.tables._goal, gpu.goals.goals(result))}
    assert list(told.values()) == [
        ["0.050 at worst", "1 of 1"],
        ["0.150 at worst", "1 of 2: not 784-100-10, batch 100, Adam, float32"],
        ["-", "not measured"],
        ["0.750 at worst", "1 of 1"],
        ["0.750 at worst", "0 of 1: not 784-2048-2048-2048-10, batch 512, SGD, tf32"],
        ["1.500 at worst", "3 of 5: not 784-2048-2048-2048-10, batch 512, SGD, float32, "
         "784-2048-2048-2048-10, batch 512, SGD, tf32"],
        ["1.500 at worst", "1 of 2: not 784-2048-2048-2048-10, batch 512, SGD, tf32"],
        ["0.800 at worst", "1 of 2: not exp 4096x4096"],
    ]  # fmt: skip


def test_the_full_list(gpu: Any) -> None:
    """What the goals are measured on is in it; elementwise ops and softmax on 64 MB and more."""
    found = gpu.parts.parts(False)
    names = [part.name for part in found]
    assert len(set(names)) == len(names)
    for start, precision, _ in gpu.goals.STEPS:
        assert any(n.startswith(f"{start}, ") and n.endswith(precision) for n in names), start
    assert {"LeNet-5, batch 64, Adam, float32", "LeNet-5, batch 64, Adam, tf32"} <= set(names)
    for part in found:
        case = getattr(part.run, "args", (None,))[0]
        streaming = (*gpu.parts.ELEMENTWISE, *gpu.parts.SOFTMAX)
        if getattr(case, "kind", "") == "op" and case.op in streaming:
            assert 4 * case.shape[0] * case.shape[1] >= 64 << 20
    assert names.index("softmax 4096x4096") > names.index("LeNet-5, batch 64, Adam, tf32")


def test_without_a_gpu_nothing_is_written(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cupy = gpu.nnx.backends().get("cupy")
    if cupy is not None and cupy.available:
        pytest.skip("there is a GPU")
    for known, reason in (({"cupy": cupy} if cupy else {}, "cupy"), ({}, "nothing registers it")):
        monkeypatch.setattr(gpu.nnx, "backends", lambda known=known: known)
        with pytest.raises(SystemExit, match=rf"measures the backend cupy: .*{reason}"):
            gpu.main(["--json", str(tmp_path / "found.json")])
    assert not list(tmp_path.iterdir())


def test_an_illegible_file(gpu: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": 0}')
    with pytest.raises(gpu.nnx.DataError, match=r"format 0, expected 1"):
        gpu.record.read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(gpu.nnx.DataError, match=r"is no result of benchmarks/gpu\.py"):
        gpu.record.read(tmp_path / "x.json")
    with pytest.raises(SystemExit):
        gpu.main(["--no-such-option"])


def test_while_nothing_is_measured_the_readme_says_what_is_missing(gpu: Any) -> None:
    shown = gpu.tables.nothing()
    assert re.search(r"nothing has been timed", shown) and "benchmarks/gpu.py" in shown
    assert not re.search(r"\d+(\.\d+)? (us|ms|GB/s)|\dx", shown)
    for figure in gpu.tables.FIGURES.values():
        assert figure in shown
