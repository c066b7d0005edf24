"""`nnx bench`: nnx, the naive NumPy style, PyTorch and JAX on the same cases, as tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import OptionError
from . import columns, rounds, run, text
from .case import Case
from .cases import ELEMENTWISE, NETWORKS, PRODUCTS, QUICK, OpCase
from .machine import usable_cores
from .op_table import NOT_TIMED, OPS, QUICK_OPS
from .report import Report, write

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Time, print the tables, write what was asked for.

    The exit code is 0, or 1 if an implementation's results differ from the others'.
    """
    options = _parser().parse_args(argv)
    cases, threads = _cases(options), _threads(options.threads, options.quick)
    chosen = columns.columns(_names(options.against), _names(options.columns), quick=options.quick)
    effort = rounds.QUICK_EFFORT if options.quick else rounds.FULL
    if options.rounds is not None:
        if options.rounds < 1:
            raise OptionError(f"nnx bench: --rounds {options.rounds}, expected at least 1")
        effort = effort._replace(rounds=options.rounds)
    everything = options.ops is None and not options.steps
    found = run.report(cases, chosen, threads, effort, footprint=everything)
    print(text.text(found), end="")
    if options.json:
        _write(found, Path(options.json), text.text(found, wide=True))
    return 1 if any(row["wrong"] for row in found["rows"]) else 0


def _write(found: Report, path: Path, tables: str) -> None:
    """The result as JSON, and beside it its tables and, with matplotlib, its chart."""
    from .chart import draw

    write(found, path)
    path.with_suffix(".md").write_text(tables, encoding="utf-8")
    draw(found, path.with_suffix(".png"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nnx bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="few rows, few rounds, one thread: about a minute")
    add("--steps", action="store_true", help="only networks: training steps and inference")
    add("--ops", metavar="A,B", nargs="?", const=",".join(OPS),
        help="every op (or only these), both sizes, forward and with backward")  # fmt: skip
    add("--threads", metavar="N,M", help="numbers of threads (1 and all cores)")
    add("--against", metavar="A,B", help="peers: torch, jax (those that are installed)")
    add("--columns", metavar="A,B", help='exactly these: torch-fused,numpy,"numba replay",...')
    add("--rounds", type=int, metavar="N", help=f"of each row ({rounds.FULL.rounds})")
    add("--json", metavar="FILE", help="write the result, its tables as .md, its chart as .png")
    return parser


def _names(given: str | None) -> list[str] | None:
    return None if given is None else [name.strip() for name in given.split(",") if name.strip()]


def _threads(given: str | None, quick: bool) -> list[int]:
    cores = usable_cores()
    if given is None:
        return [1] if quick or cores == 1 else [1, cores]
    chosen = _names(given) or [""]
    for name in chosen:
        if not (name.isdecimal() and 1 <= int(name) <= cores):
            raise OptionError(
                f"nnx bench: --threads {given}, expected numbers from 1 to {cores}, the cores "
                f"that this process may use, such as --threads 1,{cores}"
            )
    return [int(name) for name in dict.fromkeys(chosen)]


def _cases(options: argparse.Namespace) -> list[Case]:
    """The rows: all networks and elementwise ones, or those asked for."""
    standard = QUICK if options.quick else (*NETWORKS, *ELEMENTWISE, *PRODUCTS)
    if options.steps:
        standard = tuple(case for case in standard if not isinstance(case, OpCase))
    found = list(standard) if options.steps or options.ops is None else []
    names = _names(options.ops) or []
    if options.quick and set(names) == set(OPS):
        names = list(QUICK_OPS)
    for name in names:
        if name in NOT_TIMED:
            raise OptionError(f"nnx bench: {name} is not timed: {NOT_TIMED[name]}")
        if name not in OPS:
            raise OptionError(f"nnx bench: no op {name!r}; timed are {', '.join(OPS)}")
        sizes = OPS[name].sizes
        for size in ("small",) if options.quick else sizes:
            for backward in (True,) if options.quick else (False, True):
                found.append(OpCase(name, sizes[size], backward))
    return found
