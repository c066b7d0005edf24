"""`nnx bench`: the backends, the naive NumPy style and PyTorch on the same cases, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

from ..errors import OptionError
from .cases import OPS, QUICK_OPS, SIZES, STEPS, OpCase
from .compare import Column, cases_named, columns, op_row, step_row, sweep
from .report import FORMAT, ColumnInfo, Report, Row, machine, newest_gpu, read, threads, write
from .table import text
from .timing import FULL, QUICK, Effort

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print the table, write what was asked for; the exit code is 0."""
    options = _parser().parse_args(argv)
    ops = _names(options.ops)
    steps, timed = options.steps or ops is None, _timed(ops, options.steps, options.quick)
    if options.threads is not None and options.threads < 1:
        raise OptionError(f"nnx bench: --threads {options.threads}, expected at least 1")
    with threads(options.threads):
        effort = QUICK if options.quick else FULL
        if options.threads == 1:
            effort = effort._replace(pause_s=0.0)  # no worker threads that spin
        report = run(timed, steps, columns(_names(options.columns)), options.quick, effort)
    if not options.quick:
        from .huge_pages import add_torch

        add_torch(report, options.threads)
    gpu = newest_gpu()
    tables = text(report, None if gpu is None else (gpu, read(gpu)))
    print(tables, end="")
    if options.json:
        write(report, options.json)
        Path(options.json).with_suffix(".md").write_text(tables, encoding="utf-8")
    if options.plot:
        from .plot import draw

        draw(report, options.plot)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nnx bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="a few ops, fewer rounds: about a minute")
    add("--ops", metavar="A,B", help="only these ops, at both sizes, forward and backward")
    add("--steps", action="store_true", help="only the training steps (with --ops: these too)")
    add("--backends", dest="columns", metavar="A,B", help="columns: numpy,cupy,naive,torch,...")
    add("--threads", type=int, metavar="N", help="of NumPy's BLAS and of PyTorch")
    add("--json", metavar="FILE", help="write the result, and its tables as FILE.md")
    add("--plot", metavar="FILE", help="draw the result as PNG (needs matplotlib)")
    return parser


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [name.strip() for name in given.split(",") if name.strip()]


def _timed(ops: list[str] | None, steps: bool, quick: bool) -> list[OpCase]:
    if ops is not None:
        return cases_named(ops)
    if steps:
        return []
    return cases_named(QUICK_OPS if quick else OPS)


def run(
    ops: list[OpCase], steps: bool, chosen: list[Column], quick: bool, effort: Effort
) -> Report:
    """Time these ops (quick: small, forward and backward together), and the steps if asked."""
    used = [c.backend for c in chosen if c.backend is not None]
    todo: list[Callable[[], Row]] = [
        partial(step_row, case, chosen, effort) for case in STEPS if steps
    ]
    for case in ops:
        for size in ("small",) if quick else SIZES:
            for backward in (True,) if quick else (False, True):
                todo.append(partial(op_row, case, size, backward, chosen, effort))
    return Report(
        format=FORMAT,
        date=date.today().isoformat(),
        machine=machine(used),
        columns=[ColumnInfo(name=c.name, reason=c.reason) for c in chosen],
        rows=_timed_rows(todo),
        sweep=sweep(chosen, effort) if steps else None,
    )


def _timed_rows(todo: list[Callable[[], Row]]) -> list[Row]:
    from tqdm import tqdm

    bar = tqdm(todo, "timing", unit=" cases", ascii=True, leave=False, file=sys.stderr)
    return [take() for take in bar]
