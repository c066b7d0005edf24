"""The workers of `nnx bench`: real processes, well behaved and not; rounds of given figures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnx.bench
from nnx.bench import rounds
from nnx.bench.case import Case
from nnx.bench.cases import NetworkCase, OpCase, encoded
from nnx.bench.columns import Column
from nnx.bench.process import Worker, WorkerError, environment
from nnx.bench.worker import SAMPLE, sample

CASE = NetworkCase((6, 5, 3), 4, "sgd")
OTHER = OpCase("relu", (4, 3))
ONCE = rounds.Effort(2, 0.0, 0.0)

# A worker whose name says how it behaves; well it behaves as the naive style.
FAKE = """
import json, os, subprocess, sys, time
import numpy as np
from nnx.bench import worker
from nnx.bench.columns import Implementation, implementation

def load(name, threads):
    def prepare(case):
        if name == "hangs":
            time.sleep(100)
        if name == "cannot be set up":
            raise ValueError("no " + "\\n  " + "such thing")
        if name == "dies":
            print("a last word", file=sys.stderr)
            os._exit(3)
        if name == "dies once" and case.kind == "network":
            os._exit(3)
        made = implementation("naive").prepare(case)
        calls = [0]
        def run():
            calls[0] += 1
            if name == "dies later" and calls[0] > 7:  # after the set-up
                os._exit(4)
            if name == "prints":
                print("progress: 100 %")
                os.system("echo from a program")
            return made.run()
        def values(found):
            found = made.values(found)
            if name == "wrong":
                return [a * np.float32(1.01) for a in found]
            if name == "tells":
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
                return [np.array([cores, int(os.environ["OMP_NUM_THREADS"]), threads])]
            return found
        return made._replace(run=run, values=values)
    if name == "cannot be imported":
        raise ImportError("libmissing.so")
    if name == "garbage":
        sys.stdout.write('not JSON\\n[1]\\n{"id": 77}\\n{"id": 1, "results": \\n')
        sys.stdout.flush()
    return Implementation(prepare)

if sys.argv[1] == "garbage":
    worker._own_output = lambda: sys.stdout
worker.main(load)
"""


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fake") / "fake.py"
    path.write_text(FAKE, encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SPIN_S", 0.0)


@pytest.fixture
def worker(fake: str, request: pytest.FixtureRequest) -> Iterator[Worker]:
    made = Worker(Column(request.param, program=(fake,)), 1)
    yield made
    made.close()


def set_up(worker: Worker, case: Case = CASE, timeout_s: float = 60) -> dict[str, Any]:
    return worker.ask(timeout_s, do="set up", case=encoded(case), warm_up_s=0.0)


# ---- one worker


def test_a_worker_of_nnx() -> None:
    """The real one, as the command starts it."""
    with rounds.workers([Column("numpy")], 1) as (worker,):
        results = set_up(worker)["results"]
        assert [r["shape"] for r in results] == [[], [], []]
        losses = [r["values"][0] for r in results]
        from nnx.bench import naive

        net, batches = naive.Network(CASE.inputs().weights), CASE.inputs().batches
        for loss, (x, t) in zip(losses, batches, strict=False):
            assert loss == pytest.approx(float(net.loss(x, t)), rel=1e-6)
            naive.SGD(CASE.rate).update(net.params, net.gradient())
        block = worker.ask(60, do="run", seconds=0.01)
        assert 0 < block["seconds"] < block["wall"]
        assert worker.ask(60, do="drop") == {"id": 3}
        with pytest.raises(WorkerError, match="no case is set up"):
            worker.ask(60, do="run", seconds=0.01)


@pytest.mark.parametrize("worker", ["prints", "garbage"], indirect=True)
def test_what_is_printed_does_no_harm(worker: Worker) -> None:
    assert len(set_up(worker)["results"]) == 3
    assert worker.ask(60, do="run", seconds=0.0)["seconds"] > 0


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ("dies", r"its process ended \(exit code 3\): a last word"),
        ("cannot be set up", "ValueError: no such thing"),
        ("cannot be imported", "ImportError: libmissing.so"),
    ],
    indirect=["worker"],
)
def test_a_worker_that_cannot(worker: Worker, reason: str) -> None:
    with pytest.raises(WorkerError, match=reason):
        set_up(worker)


@pytest.mark.parametrize("worker", ["hangs"], indirect=True)
def test_a_worker_that_hangs_is_ended(worker: Worker) -> None:
    worker.start()
    process = worker._process
    assert process is not None
    with pytest.raises(WorkerError, match=r"no answer within 0\.5 s"):
        set_up(worker, timeout_s=0.5)
    assert process.poll() is not None


@pytest.mark.parametrize("worker", ["dies once"], indirect=True)
def test_a_lost_worker_is_started_anew(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="its process ended"):
        set_up(worker)
    assert len(set_up(worker, OTHER)["results"]) == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.parametrize("worker", ["tells"], indirect=True)
def test_a_worker_is_confined(worker: Worker) -> None:
    assert set_up(worker)["results"][0]["values"] == [1, 1, 1]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    two = environment(2, {})
    assert {two[f"{lib}_NUM_THREADS"] for lib in ("OMP", "OPENBLAS", "MKL", "NUMBA")} == {"2"}
    assert two["XLA_FLAGS"] == "--mine"
    assert "THP_MEM_ALLOC_ENABLE" not in two  # or plain PyTorch would have huge pages too
    one = environment(1, {"THP_MEM_ALLOC_ENABLE": "1"})
    assert one["THP_MEM_ALLOC_ENABLE"] == "1"
    assert one["XLA_FLAGS"].startswith("--mine --xla_cpu_multi_thread_eigen=false")
    nnx_root = Path(nnx.bench.__file__).resolve().parents[2]
    assert one["PYTHONPATH"].split(os.pathsep)[0] == str(nnx_root)


def test_ctrl_c_ends_all_workers(fake: str) -> None:
    processes: list[Any] = []

    def interrupted() -> None:
        columns = [Column(name, program=(fake,)) for name in ("a", "b")]
        with rounds.workers(columns, 1) as made:
            set_up(made[0])
            processes.extend(w._process for w in made)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p is not None and p.poll() is not None for p in processes] == [True, True]


def test_samples() -> None:
    assert sample(np.array([[1.5, 2.0]])) == {"shape": [1, 2], "values": [1.5, 2.0]}
    large = np.arange(2 * SAMPLE, dtype=np.float32).reshape(2, -1)
    found = sample(large)
    assert found["shape"] == [2, SAMPLE] and len(found["values"]) == SAMPLE
    assert found == sample(large.copy())
    assert len(set(found["values"])) > SAMPLE / 2


# ---- a case on several workers


def test_each_failure_is_its_own_cells(fake: str) -> None:
    names = ("good", "dies", "wrong", "cannot be set up", "dies later", "prints")
    with rounds.workers([Column(n, program=(fake,)) for n in names], 1) as made:
        found = rounds.measure(CASE, made, ONCE)
        again = rounds.measure(OTHER, made[:1], ONCE)
    assert {name: len(t.rounds) for name, t in found.items()} == {
        "good": 2, "dies": 0, "wrong": 0, "cannot be set up": 0, "dies later": 0, "prints": 2,
    }  # fmt: skip
    assert found["wrong"].reason.startswith("loss of step 1 differs from good's by 0.0")
    assert [name for name, t in found.items() if t.wrong] == ["wrong"]
    assert found["dies later"].reason == "its process ended (exit code 4)"
    assert len(again["good"].rounds) == 2


def test_wrong_results_make_the_exit_code_1(
    fake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [Column("numpy", ours=True), Column("wrong", program=(fake,))]
    monkeypatch.setattr(nnx.bench.columns, "columns", lambda *a, **k: chosen)
    monkeypatch.setattr(rounds, "QUICK_EFFORT", ONCE)
    assert nnx.bench.main(["--quick", "--ops", "relu", "--threads", "1"]) == 1
    shown = capsys.readouterr().out
    assert "- nnx wrong, relu, 128x512, forward+backward, 1 thread: result 0 differs" in shown


class Scripted:
    """Stands for a worker: answers a block with the next figures of its script."""

    def __init__(self, name: str, log: list[str], blocks: list[tuple[float, float | None]]) -> None:
        self.column = Column(name)
        self.log, self.blocks = log, iter(blocks)

    def ask(self, timeout_s: float, **command: Any) -> dict[str, Any]:
        if command["do"] == "set up":
            return {"results": [{"shape": [], "values": [1.0]}]}
        if command["do"] == "drop":
            return {}
        self.log.append(self.column.name)
        seconds, foreign = next(self.blocks)
        return {"seconds": seconds, "wall": 1.0, "own": 0.5, "foreign": foreign}


def measured(effort: rounds.Effort, **scripts: list[tuple[float, float | None]]) -> Any:
    log: list[str] = []
    made: list[Any] = [Scripted(name, log, blocks) for name, blocks in scripts.items()]
    return rounds.measure(CASE, made, effort), log


def test_rounds_are_interleaved_in_random_order() -> None:
    blocks: list[tuple[float, float | None]] = [(1.0, 0.0)] * 8
    _, log = measured(rounds.Effort(8, 0.1, 0.0), a=blocks, b=blocks, c=blocks)
    orders = {tuple(log[i : i + 3]) for i in range(0, 24, 3)}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) > 2


def test_disturbed_rounds_are_repeated_and_then_marked() -> None:
    busy, quiet = 0.16, 0.15  # CPU seconds of others in a second
    blocks: list[tuple[float, float | None]] = [
        (9.0, busy), (9.0, busy), (1.0, quiet),  # clean at the third try
        *[(8.0, busy)] * 5,  # never
        (2.0, None),  # where nothing tells, nothing is held against it
    ]  # fmt: skip
    found, log = measured(rounds.Effort(3, 1.0, 0.0), a=blocks)
    assert found["a"].rounds == [(1.0, True), (8.0, False), (2.0, True)]
    assert len(log) == 3 + 5 + 1
    assert found["a"].cores == 0.5


def test_a_worker_answers_in_lines(fake: str) -> None:
    """The protocol, without the class that speaks it."""
    import subprocess

    commands = [
        {"id": 5, "do": "set up", "case": encoded(OTHER), "warm_up_s": 0.0},
        {"id": 6, "do": "run", "seconds": 0.0},
    ]
    done = subprocess.run(
        [sys.executable, fake, "good", "1"],
        input="".join(json.dumps(c) + "\n" for c in commands),
        env=environment(1, {}), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["id"] for a in answers] == [5, 6]
    x, dy = OTHER.inputs().args[0], OTHER.inputs().dy
    assert answers[0]["results"][0]["values"] == pytest.approx(np.where(x > 0, dy, 0).ravel())
