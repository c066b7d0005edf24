"""What nnx is meant to reach on a GPU, and what it reached."""

from __future__ import annotations

from typing import NamedTuple

from . import parts, record
from .parts import COPY, EAGER, ELEMENTWISE, GRAPHS, OURS, SOFTMAX
from .record import Result

STEPS = (  # the replayed step's time is at most so much of PyTorch's eager one
    ("64-32-10, batch 32", "float32", 0.1),
    ("784-100-10, batch 100", "float32", 0.1),
    ("784-512-512-10, batch 128", "float32", 0.15),
    ("784-2048-2048-2048-10, batch 512", "float32", 0.9),
    ("784-2048-2048-2048-10, batch 512", "tf32", 0.4),
)
LARGE_BATCH, OF_COPY = 512, 0.85
EAGER_OURS, REPLAY = OURS


class Goal(NamedTuple):
    """what    that is meant to be at most `limit`, or at least where `above`
    found      by what it was measured on; empty: nobody measured it
    """

    what: str
    limit: float
    found: dict[str, float]
    above: bool = False

    @property
    def missed(self) -> dict[str, float]:
        return {k: v for k, v in self.found.items() if (v < self.limit) == self.above}


def goals(result: Result) -> list[Goal]:
    """All of them, in the order in which they are shown."""
    return [
        *(_step(result, *given) for given in STEPS), _graphs(result), _large(result), _copy(result),
    ]  # fmt: skip


def _shares(result: Result, mine: str, other: str, section: str = "") -> dict[str, float]:
    found = {
        name: record.share(row, mine, other) for name, row in result["rows"].items()
        if section in ("", row["section"])
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _step(result: Result, start: str, precision: str, limit: float) -> Goal:
    found = {
        name: share for name, share in _shares(result, REPLAY, EAGER, "steps").items()
        if name.startswith(f"{start}, ") and result["rows"][name].get("precision") == precision
    }  # fmt: skip
    return Goal(f"replayed step / PyTorch, {start}, {precision}", limit, found)


def _graphs(result: Result) -> Goal:
    found = _shares(result, REPLAY, GRAPHS, "steps")
    return Goal("replayed step / PyTorch with CUDA graphs", 1.0, found)


def _large(result: Result) -> Goal:
    batches = {
        f"{case.label}, {precision}": getattr(case, "batch", 0)
        for case in parts.STEPS for precision in ("float32", "tf32")
    }  # fmt: skip
    batches |= {name: row.get("batch", 0) for name, row in result["rows"].items() if "batch" in row}
    found = {
        name: share for name, share in _shares(result, EAGER_OURS, EAGER).items()
        if batches.get(name, 0) >= LARGE_BATCH
    }  # fmt: skip
    return Goal(f"eager step / PyTorch, from batch {LARGE_BATCH} on", 1.0, found)


def _copy(result: Result) -> Goal:
    limit, found = record.ceiling(result, COPY, "bytes"), {}
    for name, row in result["rows"].items():
        reached = record.per_second(row, "bytes", OURS)
        counts = row["section"] == "ops" and name.partition(" ")[0] in (*ELEMENTWISE, *SOFTMAX)
        if counts and limit is not None and reached is not None:
            found[name] = reached / limit
    return Goal("elementwise ops and softmax / a copy's bytes per second", OF_COPY, found, True)
