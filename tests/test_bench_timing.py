"""One block of calls, on a clock that the test turns."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnx.bench import timing
from nnx.bench.case import Prepared


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.own = 0.0
        standing = SimpleNamespace(
            perf_counter=lambda: self.now, process_time=lambda: self.own, sleep=time.sleep
        )
        monkeypatch.setattr(timing, "time", standing)


def test_a_block_is_the_median_of_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = Clock(monkeypatch), []
    durations = iter([5.0, *[1.0, 1.0], *[2.0, 4.0], *[9.0, 9.0]])  # one to warm up, then by twos

    def run() -> None:
        clock.now += next(durations)

    p = Prepared(run, lambda _: [], lambda: waits.append(clock.now))
    found = timing.block(p, calls=2, block_s=9.0)
    assert (found.seconds, found.wall) == (3.0, 26.0)  # chunks of 2, 6 and 18 seconds
    assert waits == [0.0, 5.0, 5.0, 7.0, 7.0, 13.0, 13.0, 31.0]  # before and after each chunk


def test_calls_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def run() -> None:
        clock.now += 1e-4

    assert timing.calls_per_chunk(Prepared(run, lambda _: []), 0.01) == 5
    assert clock.now == pytest.approx(0.01 + 3e-4, abs=2e-4)


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="needs clock ticks")
def test_foreign_time_is_what_others_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat, clock = tmp_path / "stat", Clock(monkeypatch)
    monkeypatch.setattr(timing, "STAT", stat)
    monkeypatch.setattr(timing.os, "sysconf", lambda name: 100)

    def write(ticks: str) -> None:
        stat.write_text(f"cpu  {ticks} 0 0\ncpu0 1 2 3\n", encoding="ascii")

    def run() -> None:  # user, nice, system, idle, waiting, irq, softirq, steal
        clock.now, clock.own = clock.now + 0.5, clock.own + 0.2
        write("100 1 50 9000 700 2 3 4" if clock.now == 0.5 else "130 2 51 9999 999 3 4 6")

    write("0 0 0 0 0 0 0 0")
    found = timing.block(Prepared(run, lambda _: []), calls=1, block_s=0.1)
    # 30 + 1 + 1 + 1 + 1 + 2 hundredths busy, of which this process used 20
    assert found.foreign == pytest.approx(0.16)
    assert (found.wall, found.own) == (0.5, pytest.approx(0.2))
    monkeypatch.setattr(timing, "STAT", tmp_path / "nothing")
    assert timing.block(Prepared(lambda: run(), lambda _: []), 1, 0.1).foreign is None
