"""The tables, files and chart that `nnx bench` makes of a result."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from statistics import median
from types import ModuleType

import pytest

from nnx.bench import chart, report, run, table, text
from nnx.bench.cases import NetworkCase, OpCase
from nnx.bench.rounds import Timed
from nnx.bench.summary import Round
from nnx.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
CUPY_REASON = "the package cupy is not installed; pip install '.[cuda12]'"
CASE = NetworkCase((64, 32, 10), 32, "sgd")


def rounds(*seconds: float, noisy: tuple[int, ...] = ()) -> list[Round]:
    return [Round(s, i not in noisy) for i, s in enumerate(seconds)]


# ---- tables


def synthetic(cupy: bool = False) -> report.Report:
    """Two rows and, with a GPU, a sweep; numbers chosen so that every ratio is exact."""
    seconds = {"torch": 0.5e-3, "torch-thp": 0.25e-3, "naive": 2e-3, "numpy": 1e-3}
    seconds |= {"cupy": 0.125e-3} if cupy else {}
    ours = frozenset({"numpy", "cupy"})
    floor = {"floor products": 0.05e-3, "floor update": 0.02e-3}
    rows = [
        run.row(case, 1, {k: Timed(rounds(v, v, v)) for k, v in given.items()}, "torch", ours)
        for case, given in ((CASE, seconds | floor), (OpCase("relu", (128, 512)), seconds))
    ]
    sweep = report.Sweep(
        step="784-512-512-10", threads=1, batches=[1, 64],
        seconds={"numpy": [1e-4, 5e-3], "cupy": [2e-4, 4e-4]}, wins_from={"cupy": 64},
    )  # fmt: skip
    columns = [
        report.ColumnInfo(name=name, ours=name in ours, reason="")
        for name in ("torch", "torch-thp", "naive", "numpy")
    ]
    columns.append(report.ColumnInfo(name="cupy", ours=True, reason="" if cupy else CUPY_REASON))
    return report.Report(
        format=report.FORMAT, date="2030-01-31", threads=[1], baseline="torch",
        machine={"cpu": "Some CPU", "cores": "2", "system": "Linux x86_64", "torch": "9.0"},
        columns=columns, rows=rows,
        footprints=[report.Footprint(name="nnx", seconds=[0.1, 0.1, 0.1], bytes=60_400_000)],
        sweep=sweep if cupy else None,
    )  # fmt: skip


def cells(shown: str, start: str, count: int = 0) -> list[str]:
    """Of the count-th line that starts with this."""
    line = [line for line in shown.splitlines() if line.startswith(f"| {start}")][count]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1.234e-6, "1.23 us"), (12.34e-6, "12.3 us"), (412.3e-6, "412 us"), (999.6e-6, "1.00 ms"),
        (1.13e-3, "1.13 ms"), (99.96e-3, "100 ms"), (0.27, "270 ms"), (2.5, "2.50 s"),
    ],
)  # fmt: skip
def test_duration(seconds: float, expected: str) -> None:
    assert table.duration(seconds) == expected


def test_tables_of_a_machine_without_gpu() -> None:
    shown = text.text(synthetic())
    assert cells(shown, " ") == ["", "PyTorch", "naive NumPy", "nnx eager"]
    assert cells(shown, "relu") == [
        "relu, 128x512, forward+backward", "500 us", "2.00 ms 0.25x", "1.00 ms 0.50x",
    ]  # fmt: skip
    assert cells(shown, " ", 1) == [
        "", "the best of nnx", "PyTorch", "PyTorch huge pages", "naive NumPy",
    ]  # fmt: skip
    assert cells(shown, "relu", 1) == [
        "relu, 128x512, forward+backward", "1.00 ms nnx eager", "500 us 0.50x", "250 us 0.25x",
        "2.00 ms 2.00x",
    ]  # fmt: skip
    # 323,584 flops at 6 GFLOP/s; 28,920 bytes in 20 us * 1.5; 1 ms over 50 us and 30 us
    assert cells(shown, "64-32-10", 2)[1:] == [
        "1", "0.000324", "6", "0.0289", "1", "50.0 us", "30.0 us", "1.00 ms nnx eager", "12.5x",
    ]  # fmt: skip
    assert cells(shown, "nnx") == ["nnx", "100 ms", "60 MB"]
    assert (
        "faster than the other: PyTorch in 0 of 2, PyTorch huge pages in 0 of 2, naive NumPy in 2"
        in shown
    )
    assert "against huge pages: 64-32-10 batch 32 0.25x (1 thread), relu 128x512 0.25x" in shown
    assert "medians of 3 interleaved rounds" in shown
    assert shown.endswith("The column nnx cupy is empty: the package cupy is not installed.\n")
    assert "### 1 thread\n" in shown
    assert "Some CPU, 2 cores, Linux x86_64, PyTorch 9.0, 2030-01-31" in shown
    shown.encode("cp949")


def test_tables_of_a_machine_with_gpu() -> None:
    shown = text.text(synthetic(cupy=True))
    assert "is empty" not in shown
    assert "| batch | nnx eager | nnx cupy |" in shown
    assert cells(shown, "relu")[-1] == "125 us 4.00x"
    assert cells(shown, "relu", 1)[1:3] == ["125 us nnx cupy", "500 us 4.00x"]


def test_a_gpu_that_never_wins() -> None:
    found = synthetic(cupy=True)
    assert found["sweep"] is not None
    found["sweep"]["wins_from"] = {"cupy": None}
    assert "faster than nnx eager at no batch up to 64" in text.text(found)


def test_quartiles_are_in_the_wide_tables() -> None:
    found = synthetic()
    found["rows"][1]["times"]["numpy"]["speed"] = [0.5, 0.4, 0.7]
    assert cells(text.text(found, wide=True), "relu")[3] == "1.00 ms 0.50x (0.40-0.70)"
    assert cells(text.text(found), "relu")[3] == "1.00 ms 0.50x"


def disturb(row: report.Row, name: str, *noisy: int) -> None:
    time = row["times"][name]
    time["noisy"], time["clean"] = list(noisy), len(time["rounds"]) - len(noisy)


def test_few_clean_rounds_are_marked() -> None:
    found = synthetic()
    step, relu = found["rows"]
    disturb(relu, "torch", 1)
    assert "were clean" not in text.text(found)  # two of three are
    disturb(relu, "naive", 2)
    disturb(step, "numpy", 0, 1)
    shown = text.text(found)
    # Of PyTorch's and the naive style's rounds one is clean for both.
    assert cells(shown, "relu")[1:] == ["500 us", "2.00 ms 0.25x*", "1.00 ms 0.50x"]
    assert cells(shown, "relu", 1)[1:4] == ["1.00 ms nnx eager", "500 us 0.50x", "250 us 0.25x"]
    assert cells(shown, "64-32-10")[3] == "1.00 ms 0.50x*"
    assert cells(shown, "64-32-10", 1)[1:3] == ["1.00 ms nnx eager*", "500 us 0.50x*"]
    assert cells(shown, "64-32-10", 2)[-2:] == ["1.00 ms nnx eager*", "12.5x*"]
    assert "- relu, 128x512, forward+backward, 1 thread: naive NumPy 1 of 3\n" in shown
    assert "- 64-32-10, batch 32, SGD, 1 thread: nnx eager 1 of 3\n" in shown


def test_reasons_of_single_cells() -> None:
    found = synthetic()
    found["rows"][0]["empty"] = {"jax": "its process ended", "naive": "has none such"}
    shown = text.text(found)
    assert "Not timed:\n\n- JAX, 64-32-10, batch 32, SGD, 1 thread: its process ended\n" in shown
    assert "has none such" not in shown


# ---- files


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu-2030-01-31.json"
    report.write(synthetic(), path)
    assert report.read(path) == synthetic()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a benchmark result"),
        ('{"format": 1}', "format 1, this nnx reads format 2; write it anew with nnx bench"),
        ("[]", "format 'list'"),
    ],
)
def test_reading_something_else(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        report.read(path)


def test_newest_result(tmp_path: Path) -> None:
    for name in ("cpu-2029-12-31", "cpu-2030-01-31", "device-2031-01-01"):
        (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
    assert report.newest("cpu-*.json", folder=tmp_path) == tmp_path / "cpu-2030-01-31.json"
    assert report.newest("gpu-*.json", folder=tmp_path) is None


def updater() -> ModuleType:
    path = ROOT / "benchmarks" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def committed() -> list[Path]:
    found: list[Path] = updater().timed()
    return found


def test_committed_results_have_all_their_files() -> None:
    assert committed(), "benchmarks/results holds no result"
    for path in committed():
        found = report.read(path)
        assert {"cpu", "cores", "numpy", "blas"} <= set(found["machine"])
        assert path.with_suffix(".png").exists()
    for path, shown in updater().beside().items():
        assert path.read_text(encoding="utf-8") == shown, "run benchmarks/update_readme.py"


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.stem)
def test_committed_figures_are_those_of_their_rounds(path: Path) -> None:
    """The rounds are there, so that anyone can work the figures out again."""
    found = report.read(path)
    for row in found["rows"]:
        base = row["times"].get(found["baseline"])
        for time in row["times"].values():
            noisy = set(time["noisy"])
            clean = [s for i, s in enumerate(time["rounds"]) if i not in noisy]
            assert len(clean) == time["clean"]
            assert time["seconds"][0] == pytest.approx(median(clean or time["rounds"]), rel=2e-3)
            if base is not None:
                noisy |= set(base["noisy"])
                ratios = [a / b for a, b in zip(base["rounds"], time["rounds"], strict=True)]
                kept = [r for i, r in enumerate(ratios) if i not in noisy] or ratios
                assert time.get("speed", [0.0])[0] == pytest.approx(median(kept), rel=2e-3)


def test_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    assert chart.draw(synthetic(cupy=True), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(chart, "find_spec", lambda name: None)
    assert not chart.draw(synthetic(), tmp_path / "y.png")
    assert not (tmp_path / "y.png").exists()


def test_the_charts_scale_holds_what_is_clean() -> None:
    found = synthetic()
    assert sorted(chart._speeds(found)) == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0]
    disturb(found["rows"][0], "numpy", 0, 1, 2)
    assert sorted(chart._speeds(found)) == [0.25, 0.25, 0.5, 1.0, 1.0, 2.0, 2.0]


# ---- the README's tables


def test_only_the_text_between_the_markers_changes() -> None:
    update = updater()
    start, end = "<!-- bench:start -->", "<!-- bench:end -->"
    before = f"a\n{start}\nold\n{end}\nb\n"
    assert update.replaced(before, "new") == f"a\n{start}\n\nnew\n\n{end}\nb\n"
    with pytest.raises(SystemExit, match=r"README\.md needs the lines <!-- bench:start -->"):
        update.replaced("no markers", "new")


def test_readme_block_has_rows_and_source() -> None:
    shown: str = updater().block(synthetic(), "benchmarks/results/cpu-2030-01-31.json")
    assert cells(shown, " ") == ["", "naive NumPy", "PyTorch", "nnx eager"]
    assert cells(shown, "relu")[1:] == ["2.00 ms 0.25x", "500 us", "1.00 ms 0.50x"]
    assert shown.startswith("1 thread:\n\n| ")
    assert "[Its tables](benchmarks/results/cpu-2030-01-31.md)" in shown
    assert not re.search(r"\.png", shown)  # there is none of that name


def test_readme_shows_the_newest_results() -> None:
    """Those of `nnx bench`, of a GPU, and of published networks."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert updater().whole(readme) == readme, "run benchmarks/update_readme.py"
