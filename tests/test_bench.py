"""`nnx bench`: the cases, the checks before timing, the tables. No time is asserted anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnx.bench
from nnx import ops
from nnx.backend import load_backend
from nnx.bench import compare, huge_pages, naive, nnx_cases, report, timing
from nnx.bench.cases import (
    NOT_TIMED,
    OPS,
    QUICK_OPS,
    STEPS,
    OpCase,
    OpInputs,
    Prepared,
    StepCase,
    op_inputs,
    step_inputs,
)
from nnx.errors import NnxError, OptionError
from nnx_numpy import NumpyBackend

ROOT = Path(__file__).resolve().parent.parent
TINY = StepCase((6, 5, 3), 4, lr=0.1)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call per round: these tests want the table, not the times."""
    monkeypatch.setattr(nnx.bench, "QUICK", timing.Effort(2, 0.0))


# ---- cases


def test_every_op_is_timed_or_says_why_not() -> None:
    assert set(OPS) | set(NOT_TIMED) == set(ops.__all__)
    assert not set(OPS) & set(NOT_TIMED)
    assert all(NOT_TIMED.values())
    assert set(QUICK_OPS) <= set(OPS)


def test_the_steps_are_the_four_networks_and_inference() -> None:
    assert [(s.sizes, s.batch, s.train) for s in STEPS] == [
        ((64, 32, 10), 32, True),
        ((784, 100, 10), 100, True),
        ((784, 512, 512, 10), 128, True),
        ((784, 2048, 2048, 2048, 10), 512, True),
        ((784, 100, 10), 1, False),
    ]


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("name", OPS)
def test_implementations_of_an_op_agree(name: str, backward: bool) -> None:
    torch_cases = pytest.importorskip("nnx.bench.torch_cases")
    case = OPS[name]
    inputs = op_inputs(OpCase(name, case.draws, case.attrs, {"small": (6, 8)}), "small")
    ours = nnx_cases.op(load_backend("numpy"), case, inputs, backward)
    expected = ours.values(ours.run())
    assert len(expected) == 1 + (len(case.smooth) if backward else 0)
    theirs = torch_cases.op("cpu", case, inputs, backward)
    compare.agree(name, expected, "torch", theirs.values(theirs.run()))
    plain = naive.op(case, inputs, backward)
    if plain is not None:
        compare.agree(name, expected, "naive", plain.values(plain.run()))


def test_losses_of_three_training_steps_agree() -> None:
    torch_cases = pytest.importorskip("nnx.bench.torch_cases")
    inputs = step_inputs(TINY)
    ours = compare.losses(nnx_cases.step(load_backend("numpy"), TINY, inputs))
    assert len(ours) == 3
    assert ours[2] < ours[1] < ours[0]
    np.testing.assert_allclose(compare.losses(naive.step(TINY, inputs)), ours, rtol=1e-5)
    theirs = compare.losses(torch_cases.step("cpu", TINY, inputs))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


def test_predictions_agree() -> None:
    torch_cases = pytest.importorskip("nnx.bench.torch_cases")
    case = StepCase((6, 5, 3), 2, train=False)
    inputs = step_inputs(case)
    ours = compare.losses(nnx_cases.step(load_backend("numpy"), case, inputs))
    assert ours[0].shape == (2, 3)
    np.testing.assert_allclose(compare.losses(naive.step(case, inputs)), ours, rtol=1e-5)
    np.testing.assert_allclose(
        compare.losses(torch_cases.step("cpu", case, inputs)), ours, rtol=1e-5, atol=1e-6
    )


def test_what_disagrees_is_not_timed() -> None:
    ones, wrong = [np.ones((2, 3))], [np.full((2, 3), 1.01)]
    compare.agree("relu", ones, "torch", [np.full((2, 3), 1.0001)])
    message = r"relu: result 0 of torch and of nnx on NumPy differ \(0\.01\)"
    with pytest.raises(NnxError, match=message):
        compare.agree("relu", ones, "torch", wrong)
    with pytest.raises(NnxError, match=r"differ \(\(3,\), \(2, 3\)\)"):
        compare.agree("relu", ones, "torch", [np.ones(3)])
    with pytest.raises(NnxError, match="torch gives 0 arrays, nnx on NumPy 1"):
        compare.agree("relu", ones, "torch", [])


def test_a_wrong_implementation_stops_the_row() -> None:
    def op(case: OpCase, inputs: OpInputs, backward: bool) -> Prepared:
        return Prepared(lambda: [inputs.args[0]], lambda found: found)

    column = compare.Column("identity", op=op)
    with pytest.raises(NnxError, match="relu 128x512 forward: result 0 of identity"):
        compare.op_row(OPS["relu"], "small", False, [column], timing.Effort(1, 0.0))


# ---- timing


def test_rounds_are_interleaved_and_the_device_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "CHUNK_S", 0.0)  # one call each
    log: list[str] = []

    def prepared(name: str) -> Prepared:
        return Prepared(lambda: log.append(name), lambda _: [], lambda: log.append(f"wait {name}"))

    times = timing.measure({"a": prepared("a"), "b": prepared("b")}, timing.Effort(3, 0.0, 0.0))
    assert {k: len(v) for k, v in times.items()} == {"a": 3, "b": 3}
    # Of each round: one warm-up call, then wait, one timed call, wait.
    rounds = [log[-24:][i : i + 4] for i in range(0, 24, 4)]
    assert all(r == [r[0], f"wait {r[0]}", r[0], f"wait {r[0]}"] for r in rounds)
    assert [{rounds[i][0], rounds[i + 1][0]} for i in (0, 2, 4)] == [{"a", "b"}] * 3


def test_speedup_is_the_median_of_ratios_within_rounds() -> None:
    ours, theirs = [1.0, 2.0, 4.0, 1.0, 1.0], [2.0, 4.0, 8.0, 3.0, 1.0]
    assert timing.speedup(ours, theirs) == (2.0, 2.0, 2.0)
    assert timing.middle([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ([9.0, 5.0, 3.0, 3.0], 16),  # slower, slower, faster from 16 on
        ([0.5, 5.0, 3.0, 3.0], 16),  # a lucky first batch does not count
        ([0.5, 1.0, 3.0, 3.0], 1),
        ([9.0, 9.0, 9.0, 9.0], None),
        ([9.0, 1.0, 3.0, 9.0], None),
    ],
)
def test_crossover(device: list[float], expected: int | None) -> None:
    assert timing.crossover([1, 4, 16, 64], [1.0, 2.0, 4.0, 8.0], device) == expected


# ---- the command


@pytest.mark.usefixtures("brief")
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    result, chart = tmp_path / "r.json", tmp_path / "r.png"
    argv = ["--quick", "--ops", "relu, sum", "--backends", "numpy,cupy,naive", "--threads", "1"]
    assert nnx.bench.main([*argv, "--json", str(result), "--plot", str(chart)]) == 0
    shown = capsys.readouterr().out
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["format"] == report.FORMAT
    assert found["machine"]["threads"] == "1"
    assert [c["name"] for c in found["columns"]] == ["numpy", "cupy", "naive"]
    assert [r["name"] for r in found["rows"]] == ["relu", "sum"]
    assert {r["size"] for r in found["rows"]} == {"128x512"}
    assert set(found["rows"][0]["times"]) >= {"numpy", "naive"}
    assert "naive" not in found["rows"][1]["times"]  # the book has no sum
    assert set(found["rows"][0]["times"]["numpy"]) == {"seconds", "low", "high"}
    assert result.with_suffix(".md").read_text(encoding="utf-8") == shown
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ops", "rleu"], "no op 'rleu'; timed are abs, add"),
        (["--ops", "reshape"], "reshape is not timed: gives a view"),
        (["--quick", "--backends", "jax"], "no column 'jax'; choose from numpy, cupy"),
        (["--threads", "0"], "--threads 0, expected at least 1"),
    ],
)
def test_wrong_options(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        nnx.bench.main(argv)


def test_pytest_benchmarks_runs_the_same_cases() -> None:
    pytest.importorskip("pytest_benchmark")
    argv = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider"]
    argv += ["--benchmark-disable", "-k", "relu-small-both or (64-32-10 and batch)"]
    done = subprocess.run(argv, cwd=ROOT, env=with_path(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    usable = [c for c in compare.columns() if not c.reason]
    relus = 2 * sum(c.op is not None for c in usable) - 1  # the naive style has no leaky_relu
    assert f"{relus + len(usable)} passed" in done.stdout


def with_path() -> dict[str, str]:
    """The environment with the paths that this process imports nnx from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def test_a_backend_that_shares_arrays_runs_its_own_kernels() -> None:
    case, seen = OPS["relu"], []

    class Sharing(NumpyBackend):
        name, parent = "sharing", "numpy"

        def call(self, kernel: Any, args: Any, attrs: Any) -> Any:
            seen.append(kernel)
            return super().call(kernel, args, attrs)

    backend = Sharing()
    nnx.backend._loaded["sharing"] = backend
    try:
        nnx_cases.op(backend, case, op_inputs(case, "small"), False).run()
    finally:
        del nnx.backend._loaded["sharing"]
    assert seen


# ---- PyTorch with huge pages


def test_huge_pages_are_a_column_of_large_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    monkeypatch.setattr(huge_pages.sys, "platform", "linux")
    mine, theirs = row("2048x2048", numpy=1.0, torch=3.0), row("2048x2048", torch=2.0)
    small = row("128x512", numpy=1.0, torch=1.0)
    found = made(small, mine)
    asked: list[list[str]] = []

    def measured(ops: list[str], threads: int | None) -> report.Report:
        asked.append(ops)
        return made(theirs)

    monkeypatch.setattr(huge_pages, "_measured", measured)
    huge_pages.add_torch(found, 1)
    assert asked == [["relu"]]
    assert [c["name"] for c in found["columns"]] == ["numpy", "torch-thp"]
    assert mine["times"]["torch-thp"]["seconds"] == 2.0
    assert mine["speedups"]["numpy"]["torch-thp"] == [2.0, 2.0, 2.0]
    assert "torch-thp" not in small["times"]


def test_huge_pages_are_not_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(row("2048x2048", numpy=1.0, torch=3.0))
    monkeypatch.setenv(huge_pages.VARIABLE, "1")
    huge_pages.add_torch(found, None)
    assert [c["name"] for c in found["columns"]] == ["numpy"]


def row(size: str, **seconds: float) -> report.Row:
    times = {k: report.Time(seconds=v, low=v, high=v) for k, v in seconds.items()}
    speedups: dict[str, dict[str, list[float]]] = {"numpy": {}} if "numpy" in seconds else {}
    return report.Row(
        kind="op", name="relu", size=size, what="forward", times=times, speedups=speedups
    )


def made(*rows: report.Row) -> report.Report:
    columns = [report.ColumnInfo(name="numpy", reason="")]
    return report.Report(
        format=report.FORMAT, date="2030-01-31", machine={}, columns=columns, rows=[*rows],
        sweep=None,
    )  # fmt: skip
