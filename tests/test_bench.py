"""`nnx bench`: the cases, the implementations, the command. No time is asserted anywhere."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnx.bench
from nnx import ops
from nnx.bench import columns, floor, footprint, nnx_cases, report, rounds, run
from nnx.bench.cases import (
    ELEMENTWISE,
    NETWORKS,
    QUICK,
    Case,
    Gemm,
    NetworkCase,
    OpCase,
    Prepared,
    Update,
    decoded,
    encoded,
)
from nnx.bench.op_table import NOT_TIMED, OPS, QUICK_OPS
from nnx.bench.worker import check
from nnx.errors import OptionError
from nnx_numpy import NumpyBackend

ROOT = Path(__file__).resolve().parent.parent
TINY = (6, 5, 3)
IMPLEMENTATIONS = (
    "torch", "torch-fused", "jax", "naive", "numpy replay", "numba", "numba replay",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _numpy_again() -> Iterator[None]:
    """A case makes its backend the process's current one."""
    yield
    nnx.set_backend("numpy")


def prepared(name: str, case: Case) -> Prepared | None:
    library = name.partition("-")[0].partition(" ")[0]
    if library in ("torch", "jax", "numba"):
        pytest.importorskip(library)
    return columns.implementation(name).prepare(case)


def results(name: str, case: Case) -> list[Any]:
    made = prepared(name, case)
    assert made is not None
    return check(made)


# ---- cases


def test_every_op_is_timed_or_says_why_not() -> None:
    assert set(OPS) | set(NOT_TIMED) == set(ops.__all__)
    assert not set(OPS) & set(NOT_TIMED)
    assert all(NOT_TIMED.values())
    assert set(QUICK_OPS) <= set(OPS)


def test_the_rows() -> None:
    assert [case.label for case in NETWORKS] == [
        "64-32-10, batch 1, SGD",
        "64-32-10, batch 32, SGD",
        "784-100-10, batch 100, SGD",
        "784-100-10, batch 100, Adam",
        "784-512-512-10, batch 128, SGD",
        "784-512-512-10, batch 128, Adam",
        "784-2048-2048-2048-10, batch 512, SGD",
        "784-2048-2048-2048-10, batch 512, Adam",
        "784-100-10, batch 1, inference",
    ]
    assert [case.label for case in ELEMENTWISE] == [
        f"{op}, {size}, forward+backward"
        for size in ("128x512", "4096x4096")
        for op in ("relu", "sigmoid", "softmax")
    ]
    assert set(QUICK) < {*NETWORKS, *ELEMENTWISE}


@pytest.mark.parametrize("case", [*NETWORKS, *ELEMENTWISE], ids=lambda case: case.label)
def test_a_case_passes_through_json(case: Case) -> None:
    assert decoded(json.loads(json.dumps(encoded(case)))) == case


def test_inputs_are_the_same_in_each_process_and_differ_from_batch_to_batch() -> None:
    inputs, again = (NetworkCase(TINY, 4, "sgd").inputs() for _ in range(2))
    assert len(inputs.batches) == 8
    for (x, t), (x2, t2) in zip(inputs.batches, again.batches, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(t, t2)
    assert len({x.tobytes() for x, _ in inputs.batches}) == 8


def test_matrix_products_and_updates_by_hand() -> None:
    case = NetworkCase((64, 32, 10), 20, "sgd")
    assert case.gemms() == [
        Gemm(20, 64, 32),
        Gemm(20, 32, 10),
        Gemm(32, 20, 10, left=True),  # dW2 = h.T @ dy
        Gemm(20, 10, 32, right=True),  # dh = dy @ W2.T
        Gemm(64, 20, 32, left=True),  # dW1 = x.T @ dh; x needs no gradient
    ]
    assert Gemm(20, 64, 32).flops == 2 * 20 * 64 * 32
    numbers = 64 * 32 + 32 + 32 * 10 + 10
    assert case.update() == Update(held=2 * 4 * numbers, moved=3 * 4 * numbers)
    adam = NetworkCase((64, 32, 10), 20, "adam").update()
    assert adam == Update(held=4 * 4 * numbers, moved=7 * 4 * numbers)
    assert NetworkCase((64, 32, 10), 20).update() is None
    assert adam is not None and floor.update_seconds(adam, 4.0) == 7.0


# ---- implementations


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("name", OPS)
def test_implementations_of_an_op_agree(name: str, backward: bool) -> None:
    case = OpCase(name, (6, 8), backward)
    expected = results("torch", case)
    assert len(expected) == 3 * (len(case.spec.smooth) if backward else 1)
    for other in ("numpy", "naive"):
        if prepared(other, case) is not None:
            rounds.agree(case, "torch", expected, other, results(other, case))


def test_jax_has_the_ops_and_agrees() -> None:
    pytest.importorskip("jax")
    without = {"astype"}  # float64, which JAX leaves out unless told
    for name in sorted(OPS):
        case = OpCase(name, (6, 8), True)
        if name in without:
            assert prepared("jax", case) is None
        else:
            rounds.agree(case, "numpy", results("numpy", case), "jax", results("jax", case))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_training_is_the_same(name: str, optimizer: str) -> None:
    """Longer than the benchmark looks, and at a rate at which the loss moves a lot."""
    case = Fast(TINY, 4, optimizer)
    ours, theirs = prepared("numpy", case), prepared(name, case)
    assert ours is not None and theirs is not None
    losses = [[p.values(p.run())[0] for _ in range(20)] for p in (ours, theirs)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[0][16] < 0.9 * losses[0][0]  # the first batch again


class Fast(NetworkCase):
    rate = 0.05


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_predictions_agree(name: str) -> None:
    case = NetworkCase(TINY, 2)
    expected = results("numpy", case)
    assert expected[0]["shape"] == [2, 3]
    assert expected[0] != expected[1]  # another batch
    if name == "torch-fused":
        assert not column(name).takes(case)
        return
    rounds.agree(case, "numpy", expected, name, results(name, case))


def test_a_wrong_learning_rate_does_not_agree() -> None:
    """The check before timing sees less than half an update, even where it moves the loss least."""
    for case in (NetworkCase((64, 32, 10), 32, "sgd"), NetworkCase((784, 100, 10), 100, "adam")):
        expected = results("numpy", case)
        rounds.agree(case, "numpy", expected, "naive", results("naive", case))
        slower = Slower(case.sizes, case.batch, case.optimizer)
        with pytest.raises(rounds.DisagreementError, match="loss of step 2 differs from numpy's"):
            rounds.agree(case, "numpy", expected, "naive", results("naive", slower))


class Slower(NetworkCase):
    @property
    def rate(self) -> float:
        return 0.6 * super().rate


def test_a_backend_that_shares_arrays_runs_its_own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Sharing(NumpyBackend):
        name, parent = "sharing", "numpy"

        def call(self, kernel: Any, args: Any, attrs: Any) -> Any:
            seen.append(kernel)
            return super().call(kernel, args, attrs)

    monkeypatch.setitem(nnx.backend._loaded, "sharing", Sharing())
    made = nnx_cases.prepare("sharing", False, OpCase("relu", (6, 8), False))
    assert made is not None
    made.run()
    assert seen


def test_the_floor_runs_the_products_and_touches_the_bytes() -> None:
    case = NetworkCase((6, 5, 3), 4, "adam")
    products = floor.prepare("floor products", 1, case)
    assert products is not None and products.run() is None
    for threads, held in ((1, 800), (2, 2 * floor.THREADED_BYTES)):
        source, target, copy = floor.copy_of(held, threads)
        copy()
        assert source.nbytes + target.nbytes == held
        np.testing.assert_array_equal(target, source)
    assert floor.prepare("floor update", 1, NetworkCase((6, 5, 3), 4)) is None


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
        ([], len(NETWORKS) + len(ELEMENTWISE)),
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
