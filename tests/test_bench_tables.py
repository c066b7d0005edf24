"""The tables, files and chart that `nnx bench` makes of a result."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nnx.bench import plot, report, table
from nnx.errors import DataError, OptionError

ROOT = Path(__file__).resolve().parent.parent
CUPY_REASON = "the package cupy is not installed; pip install '.[cuda12]'"


def synthetic(cupy: bool = False) -> report.Report:
    """Two rows and, with a GPU, a sweep; numbers chosen so that every ratio is exact."""
    times = {"numpy": 1e-3, "naive": 2e-3, "torch": 0.5e-3} | ({"cupy": 0.25e-3} if cupy else {})
    rows = [
        report.Row(
            kind=kind, name=name, size=size, what=what,
            times={k: report.Time(seconds=v, low=v, high=v) for k, v in times.items()},
            speedups={
                a: {b: [times[b] / times[a]] * 3 for b in times if b != a}
                for a in times
                if a in ("numpy", "cupy")
            },
        )
        for kind, name, size, what in (
            ("step", "64-32-10", "batch 32", "training step"),
            ("op", "relu", "128x512", "forward+backward"),
        )
    ]  # fmt: skip
    sweep = report.Sweep(
        step="784-512-512-10", batches=[1, 64],
        seconds={"numpy": [1e-4, 5e-3], "cupy": [2e-4, 4e-4]}, wins_from={"cupy": 64},
    )  # fmt: skip
    return report.Report(
        format=report.FORMAT, date="2030-01-31",
        machine={"cpu": "Some CPU", "cores": "2", "threads": "1", "system": "Linux x86_64"},
        columns=[
            report.ColumnInfo(name="numpy", reason=""),
            report.ColumnInfo(name="cupy", reason="" if cupy else CUPY_REASON),
            report.ColumnInfo(name="naive", reason=""),
            report.ColumnInfo(name="torch", reason=""),
        ],
        rows=rows, sweep=sweep if cupy else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1.234e-6, "1.23 us"), (12.34e-6, "12.3 us"), (412.3e-6, "412 us"), (999.6e-6, "1.00 ms"),
        (1.13e-3, "1.13 ms"), (99.96e-3, "100 ms"), (0.27, "270 ms"), (2.5, "2.50 s"),
    ],
)  # fmt: skip
def test_duration(seconds: float, expected: str) -> None:
    assert table.duration(seconds) == expected


def test_table_of_a_machine_without_gpu() -> None:
    shown = table.text(synthetic())
    relu = next(line for line in shown.splitlines() if "relu" in line)
    cells = [c.strip() for c in relu.strip("|").split("|")]
    assert cells[:3] == ["relu", "128x512", "forward+backward"]
    assert cells[3:] == ["1.00 ms", "-", "2.00 ms", "500 us", "0.50x"]
    assert "nnx numpy vs PyTorch" in shown
    assert "The column nnx cupy is empty: the package cupy is not installed.\n" in shown
    assert "To fill it, on a machine with an NVIDIA GPU: `pip install '.[cuda12]'`" in shown
    assert "`nnx bench --json benchmarks/results/gpu-2030-01-31.json`" in shown
    assert table.NO_RESULT in shown
    assert "Some CPU, 2 cores, 1 thread, Linux x86_64" in shown
    shown.encode("cp949")


def test_table_shows_the_last_gpu_result() -> None:
    shown = table.text(synthetic(), (Path("gpu-2030-01-30.json"), synthetic(cupy=True)))
    assert "The last committed GPU result, gpu-2030-01-30.json (Some CPU" in shown
    assert table.NO_RESULT not in shown
    assert "nnx cupy is faster than nnx numpy from batch 64 on" in shown


def test_table_of_a_machine_with_gpu() -> None:
    shown = table.text(synthetic(cupy=True))
    assert "is empty" not in shown
    assert "| batch | nnx numpy | nnx cupy |" in shown
    relu = next(line for line in shown.splitlines() if "relu" in line)
    # numpy over PyTorch, cupy over PyTorch and numpy
    assert re.findall(r"[\d.]+x(?= )", relu) == ["0.50x", "2.00x", "4.00x"]


def test_a_gpu_that_never_wins() -> None:
    found = synthetic(cupy=True)
    assert found["sweep"] is not None
    found["sweep"]["wins_from"] = {"cupy": None}
    assert "faster than nnx numpy at no batch up to 64" in table.text(found)


def test_noisy_speedups_show_their_quartiles() -> None:
    found = synthetic()
    found["rows"][0]["speedups"]["numpy"]["torch"] = [0.5, 0.4, 0.7]
    assert "0.50x (0.40-0.70)" in table.text(found)


def test_huge_pages_are_explained_where_they_are_shown() -> None:
    found = synthetic()
    assert table.HUGE_PAGES not in table.text(found)
    found["rows"][1]["times"]["torch-thp"] = found["rows"][1]["times"]["torch"]
    assert table.HUGE_PAGES in table.text(found)


# ---- files


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu-2030-01-31.json"
    report.write(synthetic(), path)
    assert report.read(path) == synthetic()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a benchmark result"),
        ('{"format": 99}', "format 99, this nnx reads format 1; write it anew with nnx bench"),
        ("[]", "format 'list'"),
    ],
)
def test_reading_something_else(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        report.read(path)


def test_newest_result(tmp_path: Path) -> None:
    assert report.newest_gpu(tmp_path) is None
    for name in ("gpu-2029-12-31", "a100-cupy-2030-01-31", "cpu-2031-01-01"):
        (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
    assert report.newest_gpu(tmp_path) == tmp_path / "a100-cupy-2030-01-31.json"
    assert report.newest("cpu-*.json", folder=tmp_path) == tmp_path / "cpu-2031-01-01.json"


def test_committed_results_can_be_read() -> None:
    paths = sorted(report.RESULTS.glob("*.json"))
    assert paths, "benchmarks/results holds no result"
    for path in paths:
        found = report.read(path)
        assert {"cpu", "threads", "numpy", "blas"} <= set(found["machine"])
        tables = path.with_suffix(".md").read_text(encoding="utf-8")
        assert tables.startswith(table.machine_line(found))


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(plot.importlib, "import_module", missing)
    with pytest.raises(OptionError, match="--plot draws with matplotlib: pip install matplotlib"):
        plot.draw(synthetic(), tmp_path / "x.png")


# ---- the README's table


def updater() -> ModuleType:
    path = ROOT / "benchmarks" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_the_text_between_the_markers_changes() -> None:
    update = updater()
    before = f"a\n{update.START}\nold\n{update.END}\nb\n"
    assert update.replaced(before, "new") == f"a\n{update.START}\n\nnew\n\n{update.END}\nb\n"
    with pytest.raises(SystemExit, match=r"README\.md needs the lines <!-- bench:start -->"):
        update.replaced("no markers", "new")


def test_readme_block_has_steps_ops_and_source() -> None:
    shown = updater().block(synthetic(), None, "benchmarks/results/cpu-2030-01-31.json")
    assert "64-32-10" in shown
    assert "relu" in shown
    assert table.NO_RESULT in shown
    assert "[its table](benchmarks/results/cpu-2030-01-31.md)" in shown


def test_readme_shows_the_newest_result() -> None:
    update = updater()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert update.replaced(readme, update.current()) == readme, "run benchmarks/update_readme.py"
