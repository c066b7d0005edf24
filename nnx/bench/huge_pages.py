"""PyTorch with huge pages, so that page faults are not taken for slow arithmetic."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .cases import OPS
from .report import ColumnInfo, Report, Row, read

NAME = "torch-thp"
VARIABLE = "THP_MEM_ALLOC_ENABLE"


def add_torch(report: Report, threads: int | None) -> None:
    """Add PyTorch's times on large arrays with THP_MEM_ALLOC_ENABLE=1, as a column of its own.

    PyTorch reads the variable once, so these are taken in a process of their own; nothing is done
    where the report has no such rows, where the variable is set already, or off Linux, where it
    has no effect.
    """
    large = [r for r in report["rows"] if _is_large(r) and "torch" in r["times"]]
    if not large or sys.platform != "linux" or os.environ.get(VARIABLE):
        return
    names = sorted({r["name"] for r in large})
    found = {_key(r): r for r in _measured(names, threads)["rows"]}
    for row in large:
        theirs = row["times"][NAME] = found[_key(row)]["times"]["torch"]
        for ours, factors in row["speedups"].items():
            mine = row["times"][ours]
            factors[NAME] = [
                theirs["seconds"] / mine["seconds"],
                theirs["low"] / mine["high"],
                theirs["high"] / mine["low"],
            ]
    report["columns"].append(ColumnInfo(name=NAME, reason=""))


def _is_large(row: Row) -> bool:
    if row["kind"] != "op":
        return False
    rows, cols = OPS[row["name"]].sizes["large"]
    return row["size"] == f"{rows}x{cols}"


def _key(row: Row) -> tuple[str, str, str]:
    return row["name"], row["size"], row["what"]


def _measured(ops: list[str], threads: int | None) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "torch.json"
        command = [sys.executable, "-m", "nnx.bench", "--backends", "torch", "--ops", ",".join(ops)]
        command += ["--json", str(path)] + ([f"--threads={threads}"] if threads else [])
        environment = {**os.environ, VARIABLE: "1"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return read(path)
