"""From the rounds of a row to what is said of it: medians, quartiles, ratios."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Round(NamedTuple):
    """Seconds per call in one round; `clean` unless other processes disturbed it."""

    seconds: float
    clean: bool


class Spread(NamedTuple):
    """A median with its quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (nearest rank)."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(median(ordered), ordered[round(last / 4)], ordered[round(3 * last / 4)])


def seconds(rounds: Sequence[Round]) -> Spread:
    """Of the clean rounds; of all where none is clean."""
    return spread([r.seconds for r in rounds if r.clean] or [r.seconds for r in rounds])


def ratio(above: Sequence[Round], below: Sequence[Round]) -> Spread:
    """above / below within each round, of rounds in which both are clean; of all where none is."""
    pairs = list(zip(above, below, strict=True))
    clean = [(a, b) for a, b in pairs if a.clean and b.clean]
    return spread([a.seconds / b.seconds for a, b in clean or pairs])


def added(parts: Sequence[Sequence[Round]], factors: Sequence[float]) -> list[Round]:
    """Round by round the sum of the parts, each times its factor; clean where all parts are."""
    return [
        Round(
            sum(f * r.seconds for f, r in zip(factors, together, strict=True)),
            all(r.clean for r in together),
        )
        for together in zip(*parts, strict=True)
    ]


def crossover(batches: list[int], host: list[float], device: list[float]) -> int | None:
    """The smallest batch from which on the device is faster at every batch timed; None if never."""
    found = None
    for batch, a, b in sorted(zip(batches, host, device, strict=True), reverse=True):
        if b >= a:
            break
        found = batch
    return found
