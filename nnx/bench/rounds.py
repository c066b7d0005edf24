"""One case on all workers: set up, compared, then timed in interleaved rounds."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..errors import NnxError
from .case import Case
from .cases import encoded
from .columns import Column
from .process import Worker, WorkerError
from .summary import Round

# Worker threads of a BLAS spin for some 30 ms after a product and would slow whoever runs next.
SPIN_S = 0.04
FOREIGN = 0.15  # CPU seconds of other processes per second: with more, a block is not clean
TICK_S = 0.015  # CPU seconds that are not told from none: /proc/stat counts hundredths of one
RETRIES = 4
SET_UP_S, RUN_S = 300.0, 120.0  # without an answer for so long a worker counts as lost
LOSS_RTOL = 1e-5  # a hundred times float32's rounding; half the learning rate is off by more
RTOL, ATOL = 1e-4, 1e-5  # of other results; ATOL is of the largest value


class Effort(NamedTuple):
    """rounds per case; seconds that an implementation runs in a round, and to warm up"""

    rounds: int
    block_s: float
    warm_up_s: float


FULL = Effort(rounds=11, block_s=0.1, warm_up_s=0.15)
QUICK_EFFORT = Effort(rounds=5, block_s=0.05, warm_up_s=0.05)


@dataclass
class Timed:
    """What came of one implementation: its rounds, or the reason why there are none.

    wrong   the reason is that its results differ
    cores   CPU seconds it used per second, on average
    """

    rounds: list[Round] = field(default_factory=list)
    cores: float = 0.0
    reason: str = ""
    wrong: bool = False


class DisagreementError(NnxError):
    """Two implementations give different results, so their times cannot be compared."""


@contextmanager
def workers(columns: Iterable[Column], threads: int) -> Iterator[list[Worker]]:
    """A process for each column that can be timed; all are ended on the way out."""
    made = [Worker(column, threads) for column in columns if not column.reason]
    try:
        for worker in made:
            worker.start()
        yield made
    finally:
        for worker in made:
            worker.close()


def measure(case: Case, chosen: Sequence[Worker], effort: Effort) -> dict[str, Timed]:
    """Time the case on all workers that take it, by the name of the column.

    The first that can be set up is the one whose results the others must have.
    """
    taking = [w for w in chosen if w.column.takes(case)]
    found = {w.column.name: Timed() for w in taking}
    ready = _set_up(case, taking, effort, found)
    shuffle = random.Random(0).shuffle
    for _ in range(effort.rounds):
        shuffle(ready)
        for worker in list(ready):
            timed = found[worker.column.name]
            try:
                _round(worker, effort, timed)
            except WorkerError as error:
                found[worker.column.name] = Timed(reason=str(error))
                ready.remove(worker)
    for worker in ready:
        _drop(worker)
    return found


def _drop(worker: Worker) -> None:
    try:
        worker.ask(RUN_S, do="drop")
    except WorkerError:
        worker.close()  # the next case starts a new one


def _set_up(
    case: Case, taking: list[Worker], effort: Effort, found: dict[str, Timed]
) -> list[Worker]:
    """Those that can be set up and agree; the reasons of the others go into `found`."""
    ready: list[Worker] = []
    expected: tuple[str, list[Any]] | None = None
    for worker in taking:
        name, timed = worker.column.name, found[worker.column.name]
        try:
            answer = worker.ask(
                SET_UP_S, do="set up", case=encoded(case), warm_up_s=effort.warm_up_s
            )
            results = answer["results"]
            if not worker.column.name.startswith("floor "):
                expected = expected or (name, results)
                agree(case, *expected, name, results)
        except WorkerError as error:
            timed.reason = str(error)
        except DisagreementError as error:
            timed.reason, timed.wrong = str(error), True
            _drop(worker)
        else:
            ready.append(worker)
    return ready


def _round(worker: Worker, effort: Effort, timed: Timed) -> None:
    """One block, repeated while other processes disturb it."""
    answer = _block(worker, effort)
    for _ in range(RETRIES):
        if clean(answer):
            break
        answer = _block(worker, effort)
    cores = answer["own"] / answer["wall"]
    timed.cores += (cores - timed.cores) / (len(timed.rounds) + 1)
    timed.rounds.append(Round(answer["seconds"], clean(answer)))


def _block(worker: Worker, effort: Effort) -> dict[str, Any]:
    time.sleep(SPIN_S)
    return worker.ask(RUN_S + effort.block_s, do="run", seconds=effort.block_s)


def clean(answer: dict[str, Any]) -> bool:
    """Whether other processes left a block alone, as far as that can be told."""
    foreign = answer["foreign"]
    return foreign is None or foreign <= max(FOREIGN * answer["wall"], TICK_S)


def agree(case: Case, first: str, expected: list[Any], name: str, found: list[Any]) -> None:
    """Raise DisagreementError unless two implementations' samples of their results are equal up to
    float32's rounding.
    """
    if len(found) != len(expected):
        raise DisagreementError(f"gives {len(found)} results, {first} {len(expected)}")
    for i, (a, b) in enumerate(zip(expected, found, strict=True)):
        if a["shape"] != b["shape"]:
            raise DisagreementError(f"result {i} has shape {b['shape']}, {first}'s {a['shape']}")
        x, y = np.asarray(a["values"]), np.asarray(b["values"])
        if case.trains:
            close = np.allclose(x, y, rtol=LOSS_RTOL, atol=0)
        else:
            close = np.allclose(x, y, rtol=RTOL, atol=ATOL * float(np.max(np.abs(x), initial=1e-3)))
        if not close:
            what = f"loss of step {i + 1}" if case.trains else f"result {i}"
            gap = np.max(np.abs(x - y))
            raise DisagreementError(f"{what} differs from {first}'s by {gap:.3g}")
