"""The result of a comparison as JSON, and where committed results lie."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ..errors import DataError

FORMAT = 1
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


class ColumnInfo(TypedDict):
    """One implementation; `reason` says why it was not timed ("" if it was)."""

    name: str
    reason: str


class Time(TypedDict):
    """Seconds per call: median and quartiles over the rounds."""

    seconds: float
    low: float
    high: float


class Row(TypedDict):
    """One case. speedups[ours][theirs]: their time / our time, median and quartiles of rounds."""

    kind: str  # "op" or "step"
    name: str
    size: str
    what: str  # "forward", "forward+backward", "training step", "inference"
    times: dict[str, Time]
    speedups: dict[str, dict[str, list[float]]]


class Sweep(TypedDict):
    """A training step at several batch sizes: seconds per step by backend."""

    step: str
    batches: list[int]
    seconds: dict[str, list[float]]
    wins_from: dict[str, int | None]


class Report(TypedDict):
    """What `nnx bench --json` writes."""

    format: int
    date: str
    machine: dict[str, str]
    columns: list[ColumnInfo]
    rows: list[Row]
    sweep: Sweep | None


def machine(backends: list[Any]) -> dict[str, str]:
    """What a reader needs to judge the times: processor, threads, versions, BLAS."""
    from threadpoolctl import threadpool_info

    found = {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    pools = [p for p in threadpool_info() if p["user_api"] == "blas"]
    if pools:
        found["blas"] = ", ".join(
            f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in pools
        )
        found["threads"] = str(max(p["num_threads"] for p in pools))
    if has_torch():
        from .torch_cases import torch

        found["torch"] = torch.__version__
        found["torch threads"] = str(torch.get_num_threads())
    for backend in backends:
        if not backend.on_host:
            described = backend.describe().items()
            found[f"device {backend.name}"] = ", ".join(f"{k} {v}" for k, v in described)
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def has_torch() -> bool:
    """Whether PyTorch is installed, without importing it."""
    return find_spec("torch") is not None


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Limit NumPy's BLAS and PyTorch to n threads; None leaves them as they are."""
    from threadpoolctl import threadpool_limits

    torch: Any = None
    if n is not None and has_torch():
        from .torch_cases import torch
    before = torch.get_num_threads() if torch else 0
    with nullcontext() if n is None else threadpool_limits(n):
        if torch:
            torch.set_num_threads(n)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


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


def newest_gpu(folder: Path = RESULTS) -> Path | None:
    """The last committed result that was taken on a GPU."""
    return newest("*gpu*.json", "*cupy*.json", folder=folder)
