"""The result of a comparison as JSON, and where committed results lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from ..errors import DataError

FORMAT = 2
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
Quartiles = list[float]  # median, lower and upper quartile


class ColumnInfo(TypedDict):
    """One implementation; `reason` says why it was not timed ("" if it was)."""

    name: str
    ours: bool
    reason: str


class Time(TypedDict):
    """Of one implementation in one row.

    seconds   per call: of the clean rounds
    speed     the baseline's time / this time, within each round; absent where it has none
    rounds    seconds of every round, in order
    clean     how many of them no other process disturbed
    noisy     positions of the others, which count only where no round is clean; a ratio counts
              the rounds in which both are clean
    cores     CPU seconds it used per second
    """

    seconds: Quartiles
    speed: NotRequired[Quartiles]
    rounds: list[float]
    clean: int
    noisy: list[int]
    cores: float


class Best(TypedDict):
    """The fastest column of nnx in the row; against[other]: other's time / its time."""

    column: str
    against: dict[str, Quartiles]


class Floor(TypedDict):
    """What the row's matrix products and its update take alone, and nnx's best above it.

    products, update   seconds
    distance           the best of nnx / the sum of both; absent where nnx has no time
    """

    flops: int
    moved_bytes: int
    products: Quartiles
    update: Quartiles
    clean: int
    distance: NotRequired[Quartiles]


class Row(TypedDict):
    """One case with one number of threads. empty[column]: why it has no time."""

    kind: str
    name: str
    size: str
    what: str
    threads: int
    times: dict[str, Time]
    best: Best | None
    floor: Floor | None
    empty: dict[str, str]
    wrong: list[str]  # of the empty ones, those whose results differed


class Footprint(TypedDict):
    """A library: seconds that its import takes, and bytes that it and what it needs occupy."""

    name: str
    seconds: Quartiles
    bytes: int


class Sweep(TypedDict):
    """A training step at several batch sizes: seconds per step by backend."""

    step: str
    threads: int
    batches: list[int]
    seconds: dict[str, list[float]]
    wins_from: dict[str, int | None]


class Report(TypedDict):
    """What `nnx bench --json` writes. All ratios are to `baseline` unless they name another."""

    format: int
    date: str
    machine: dict[str, str]
    threads: list[int]
    baseline: str
    columns: list[ColumnInfo]
    rows: list[Row]
    footprints: list[Footprint]
    sweep: Sweep | None


def write(report: Report, path: str | Path) -> None:
    """As UTF-8, one row a line, so that two results can be compared with diff."""
    rows = ",\n  ".join(json.dumps(row) for row in report["rows"])
    rest = {k: v for k, v in report.items() if k != "rows"}
    text = json.dumps(rest, indent=1).rstrip("}\n") + f',\n "rows": [\n  {rows}\n ]\n}}\n'
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def read(path: str | Path) -> Report:
    """A result that `write` wrote. Raises DataError if the file is something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a benchmark result: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        given = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise DataError(
            f"{path}: format {given!r}, this nnx reads format {FORMAT}; "
            f"write it anew with nnx bench --json {path}"
        )
    report: Report = found  # type: ignore[assignment]
    return report


def newest(*patterns: str, folder: Path = RESULTS) -> Path | None:
    """The newest result in the checkout that matches a pattern; file names end in the date."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return max(found, key=lambda path: (path.stem[-10:], path.name), default=None)
