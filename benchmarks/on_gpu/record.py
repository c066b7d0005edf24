"""The file of a measurement: what is in it, and that it is whole after every part."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NotRequired, TypedDict

from nnx.bench.report import newest
from nnx.errors import DataError

FORMAT = 1
ALL = "all"  # in place of an implementation: the part as a whole


class Row(TypedDict):
    """One part.

    seconds     per call, by implementation and round
    bytes       that a call reads and writes
    flops       of a call
    precision   of matrix products: "float32" or "tf32"
    """

    section: str
    seconds: dict[str, list[float]]
    bytes: NotRequired[int]
    flops: NotRequired[int]
    precision: NotRequired[str]
    batch: NotRequired[int]


class Result(TypedDict):
    """What `gpu.py` writes.

    rows     by the part's name
    errors   of parts and of implementations in them, which have no time therefore
    left     parts that nobody got to
    begun    the part and the implementation that are at work; empty when it is done
    """

    format: int
    date: str
    command: str
    quick: bool
    device: dict[str, str]
    machine: dict[str, str]
    versions: dict[str, str]
    rows: dict[str, Row]
    errors: dict[str, dict[str, str]]
    warnings: list[str]
    left: list[str]
    begun: list[str]


def read(path: Path) -> Result:
    """A result that `write` wrote. Raises DataError if the file is something else."""
    try:
        found: Result = json.loads(path.read_text(encoding="utf-8"))
        given = found["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no result of benchmarks/gpu.py: {error!r}") from error
    if given != FORMAT:
        raise DataError(
            f"{path}: format {given}, expected {FORMAT}; write it anew: benchmarks/gpu.py"
        )
    return found


def write(result: Result, path: Path) -> None:
    """Replaced in one go, so that whoever is killed leaves a whole file. A row is a line."""
    rows = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in result["rows"].items())
    rest = {k: v for k, v in result.items() if k != "rows"}
    text = json.dumps(rest, indent=1).rstrip("}\n") + f',\n "rows": {{\n  {rows}\n }}\n}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def last(folder: Path) -> Path | None:
    """The newest result there."""
    return newest("device-*.json", folder=folder)


def seconds(row: Row, implementation: str) -> float | None:
    """The median over the rounds; None where it has no time."""
    found = row["seconds"].get(implementation)
    return median(found) if found else None


def share(row: Row, implementation: str, other: str) -> float | None:
    """The median over the rounds of its time / the other's in the same round."""
    mine, theirs = row["seconds"].get(implementation), row["seconds"].get(other)
    if not mine or not theirs:
        return None
    return median(a / b for a, b in zip(mine, theirs, strict=True))


def fastest(row: Row, names: Sequence[str]) -> str | None:
    """Of these implementations."""
    there = [name for name in names if row["seconds"].get(name)]
    key: Callable[[str], float] = lambda name: seconds(row, name) or 0.0  # noqa: E731
    return min(there, key=key, default=None)


def per_second(row: Row, unit: str, names: Sequence[str]) -> float | None:
    """Bytes or FLOPs per second of the fastest of these. unit: "bytes" or "flops" """
    name = fastest(row, names)
    amount = row.get(unit)
    if name is None or not isinstance(amount, int):
        return None
    return amount / (seconds(row, name) or 0.0)


def ceiling(result: Result, part: str, unit: str) -> float | None:
    """What the device reaches, by the fastest that tried."""
    row = result["rows"].get(part)
    return None if row is None else per_second(row, unit, list(row["seconds"]))
