"""`nnx bench`: its columns, its command line, its footprints. No time is asserted anywhere."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nnx.bench
from nnx.bench import columns, footprint, report, rounds, run
from nnx.bench.cases import ELEMENTWISE, NETWORKS, PRODUCTS, QUICK, NetworkCase
from nnx.bench.op_table import OPS, QUICK_OPS
from nnx.errors import OptionError

ROOT = Path(__file__).resolve().parent.parent
TINY = (6, 5, 3)


# ---- columns


def column(name: str) -> columns.Column:
    return columns.columns(names=[name])[0]


def test_columns_and_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "find_spec", lambda name: object())
    names = [c.name for c in columns.columns()]
    peers = ["torch", "torch-fused", "torch-compile", "torch-thp", "jax", "naive"]
    assert names[: len(peers)] == peers
    assert {"numpy", "numpy replay", "cupy"} <= {c.name for c in columns.columns() if c.ours}
    assert [c.name for c in columns.columns(["jax"]) if not c.ours] == ["jax", "naive"]
    quick = [c.name for c in columns.columns(quick=True) if not c.ours]
    assert quick == ["torch", "jax", "naive"]
    training, inference = NETWORKS[0], NETWORKS[8]
    small, large = ELEMENTWISE[0], ELEMENTWISE[3]
    taken = {
        name: [column(name).takes(case) for case in (training, inference, small, large)]
        for name in ("torch", "torch-fused", "torch-compile", "torch-thp")
    }
    assert taken == {
        "torch": [True, True, True, True],
        "torch-fused": [True, False, False, False],
        "torch-compile": [True, True, False, False],
        "torch-thp": [False, False, False, True],
    }


def test_peers_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "find_spec", lambda name: None)
    assert [c.name for c in columns.columns() if not c.ours] == ["naive"]
    asked = [(c.name, c.reason) for c in columns.columns(["torch", "jax"]) if not c.ours]
    assert asked == [
        ("torch", "PyTorch is not installed: pip install torch"),
        ("jax", "JAX is not installed: pip install jax"),
        ("naive", ""),
    ]


# ---- the command


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call per round: these tests want the tables, not the times."""
    monkeypatch.setattr(rounds, "QUICK_EFFORT", rounds.Effort(2, 0.0, 0.0))
    monkeypatch.setattr(rounds, "SPIN_S", 0.0)
    monkeypatch.setattr(rounds, "RETRIES", 0)


@pytest.mark.usefixtures("brief")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "r.json"
    argv = ["--quick", "--ops", "relu, sum", "--columns", "numpy,cupy,naive", "--threads", "1"]
    assert nnx.bench.main([*argv, "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    found = report.read(path)
    assert found["threads"] == [1] and found["baseline"] == "numpy"
    assert [c["name"] for c in found["columns"]] == ["numpy", "cupy", "naive"]
    assert [(r["name"], r["size"], r["threads"]) for r in found["rows"]] == [
        ("relu", "128x512", 1),
        ("sum", "128x512", 1),
    ]
    relu, total = found["rows"]
    assert set(relu["times"]) >= {"numpy", "naive"}
    assert len(relu["times"]["numpy"]["rounds"]) == 2
    assert relu["times"]["numpy"]["speed"] == [1.0, 1.0, 1.0]
    assert total["empty"]["naive"] == "has none such"  # the book has no sum
    assert "| relu, 128x512, forward+backward |" in shown
    assert "The column nnx cupy is empty" in shown or "cupy" in relu["times"]
    assert path.with_suffix(".md").read_text(encoding="utf-8").startswith(shown.splitlines()[0])
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ops", "rleu"], "no op 'rleu'; timed are abs, add"),
        (["--ops", "reshape"], "reshape is not timed: gives a view"),
        (["--quick", "--columns", "tf"], "no column 'tf'; choose from torch, torch-fused"),
        (["--against", "tf"], "--against 'tf', expected one of torch, jax"),
        (["--threads", "0"], r"--threads 0, expected numbers from 1 to \d+, the cores"),
        (["--threads", "1,x"], "--threads 1,x, expected numbers from 1"),
        (["--rounds", "0"], "--rounds 0, expected at least 1"),
    ],
)
def test_wrong_options(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        nnx.bench.main(argv)


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        ([], len(NETWORKS) + len(ELEMENTWISE) + len(PRODUCTS)),
        (["--quick"], len(QUICK)),
        (["--steps"], len(NETWORKS)),
        (["--ops", "relu,sum"], 2 * 2 * 2),
        (["--ops"], 4 * len(OPS)),
        (["--ops", "relu", "--steps"], len(NETWORKS) + 4),
        (["--quick", "--ops"], len(QUICK_OPS)),
        (["--quick", "--steps"], sum(isinstance(case, NetworkCase) for case in QUICK)),
    ],
)
def test_rows_of_the_options(argv: list[str], count: int) -> None:
    cases = nnx.bench._cases(nnx.bench._parser().parse_args(argv))
    assert len(cases) == len(set(cases)) == count


def test_numbers_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnx.bench, "usable_cores", lambda: 8)
    assert nnx.bench._threads(None, False) == [1, 8]
    assert nnx.bench._threads(None, True) == [1]
    assert nnx.bench._threads("2, 4,2", False) == [2, 4]


def test_pytest_benchmarks_runs_the_same_cases() -> None:
    pytest.importorskip("pytest_benchmark")
    argv = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider"]
    argv += ["--benchmark-disable", "-k", "relu-small-both or (64-32-10 and batch)"]
    done = subprocess.run(argv, cwd=ROOT, env=with_path(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    usable = [c for c in columns.columns(quick=True) if not c.reason]
    relus = 2 * len(usable) - 1  # the naive style has no leaky_relu
    assert f"{relus + 2 * len(usable)} passed" in done.stdout


def with_path() -> dict[str, str]:
    """The environment with the paths that this process imports nnx from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


# ---- devices


@pytest.mark.usefixtures("brief")
def test_the_sweep_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay stands for a device: it has the times, and a host to be compared with."""
    monkeypatch.setattr(run, "on_device", lambda column: column.name == "numpy replay")
    monkeypatch.setattr(run, "SWEEP_SIZES", TINY)
    monkeypatch.setattr(run, "SWEEP_BATCHES", (1, 4))
    chosen = columns.columns(names=["numpy", "numpy replay"])
    found = run.sweep(chosen, 1, rounds.QUICK_EFFORT)
    assert found is not None
    assert (found["step"], found["threads"], found["batches"]) == ("6-5-3", 1, [1, 4])
    assert {name: len(times) for name, times in found["seconds"].items()} == {
        "numpy": 2, "numpy replay": 2,
    }  # fmt: skip
    assert set(found["wins_from"]) == {"numpy replay"}
    assert run.sweep(chosen[:1], 1, rounds.QUICK_EFFORT) is None


def test_pytorch_has_a_column_on_a_gpu_where_nnx_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (False, True):
        monkeypatch.setattr(columns, "on_device", lambda column, there=there: there)
        assert ("torch-cuda" in {c.name for c in columns._variants()}) == there


# ---- footprints


def test_footprints() -> None:
    found = {f["name"]: f for f in footprint.footprints([], 1)}
    assert set(found) - {"nnx with numba"} == {"NumPy", "nnx"}
    assert min(f["seconds"][0] for f in found.values()) > 0
    assert found["nnx"]["bytes"] > found["NumPy"]["bytes"]


def test_size_is_that_of_the_files() -> None:
    """NumPy requires nothing: its package, the libraries beside it, its metadata, its commands."""
    site = Path(importlib.import_module("numpy").__path__[0]).parent
    folders = [site / "numpy", site / "numpy.libs", *site.glob("numpy-*.dist-info")]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    expected = sum(p.stat().st_size for p in files if p.suffix != ".pyc")
    assert footprint.size("NumPy") == pytest.approx(expected, rel=0.001)


def test_needs_are_followed_but_extras_are_not() -> None:
    pytest.importorskip("torch")
    names = {d.metadata["Name"].lower() for d in footprint._closure(["torch"])}
    assert {"torch", "sympy", "mpmath", "jinja2", "markupsafe"} <= names
    assert not {"numpy", "pytest"} & names


def test_own_needs_are_those_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {line.partition(">")[0].strip() for line in project["dependencies"]}
    assert set(footprint.OWN_NEEDS) == needed
