"""From cases and columns to a report: the rows, the floors, the sweep over batch sizes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import date

from .case import Case
from .cases import SWEEP_BATCHES, SWEEP_SIZES, NetworkCase
from .columns import FLOOR, PEERS, Column, on_device
from .floor import update_seconds
from .footprint import footprints
from .machine import machine
from .process import Worker
from .report import FORMAT, Best, ColumnInfo, Floor, Quartiles, Report, Row, Sweep, Time
from .rounds import Effort, Timed, measure, workers
from .summary import Round, added, crossover, ratio, seconds, spread


def report(
    cases: Sequence[Case],
    chosen: Sequence[Column],
    threads: Sequence[int],
    effort: Effort,
    *,
    footprint: bool = False,
) -> Report:
    """Time these cases on these columns with each number of threads.

    footprint   the imports too, and the installed sizes
    """
    found = Report(
        format=FORMAT,
        date=date.today().isoformat(),
        machine=machine(list(chosen)),
        threads=list(threads),
        baseline=next((c.name for c in chosen if not c.reason), ""),
        columns=[ColumnInfo(name=c.name, ours=c.ours, reason=c.reason) for c in chosen],
        rows=[],
        footprints=[],
        sweep=None,
    )
    ours = frozenset(c.name for c in chosen if c.ours)
    needed = [c for c in (*chosen, *FLOOR) if any(map(c.takes, cases))]
    for n in threads:
        with workers(needed, n) as processes:
            for case in _shown(cases, f"{n} thread{'' if n == 1 else 's'}"):
                timed = measure(case, processes, effort)
                found["rows"].append(row(case, n, timed, found["baseline"], ours))
    found["sweep"] = sweep(chosen, max(threads), effort) if cases else None
    if footprint:
        peers = [c.name for c in chosen if c.name in PEERS and not c.reason]
        found["footprints"] = footprints(peers, effort.rounds // 2 + 1)
    return found


def _shown(cases: Sequence[Case], what: str) -> Iterable[Case]:
    from tqdm import tqdm

    bar = tqdm(cases, what, unit=" rows", ascii=True, leave=False, file=sys.stderr)
    for case in bar:
        bar.set_postfix_str(case.label)
        yield case


def row(
    case: Case, threads: int, timed: dict[str, Timed], baseline: str, ours: frozenset[str]
) -> Row:
    """What is said of a case, from the rounds of all columns and of the floor."""
    floors = [timed.pop(column.name, Timed()) for column in FLOOR]
    there = {name: t for name, t in timed.items() if t.rounds}
    base = there[baseline].rounds if baseline in there else None
    mine = [name for name in there if name in ours]
    best = min(mine, key=lambda name: seconds(there[name].rounds).median, default=None)
    return Row(
        kind=case.kind, name=case.name, size=case.size, what=case.what, threads=threads,
        times={name: _time(t, base) for name, t in there.items()},
        best=None if best is None else _best(best, there, ours),
        floor=_floor(case, floors, there[best].rounds if best else None),
        empty={name: t.reason for name, t in timed.items() if t.reason},
        wrong=[name for name, t in timed.items() if t.wrong],
    )  # fmt: skip


def _time(timed: Timed, base: list[Round] | None) -> Time:
    rounds = timed.rounds
    made = Time(
        seconds=_quartiles(seconds(rounds)),
        rounds=[_short(r.seconds) for r in rounds],
        clean=sum(r.clean for r in rounds),
        noisy=[i for i, r in enumerate(rounds) if not r.clean],
        cores=round(timed.cores, 2),
    )
    if base is not None:
        made["speed"] = _quartiles(ratio(base, rounds))
    return made


def _best(name: str, there: dict[str, Timed], ours: frozenset[str]) -> Best:
    others = [other for other in there if other not in ours]
    mine = there[name].rounds
    return Best(
        column=name,
        against={other: _quartiles(ratio(there[other].rounds, mine)) for other in others},
    )


def _floor(case: Case, floors: list[Timed], best: list[Round] | None) -> Floor | None:
    update, (products, copies) = case.update(), (timed.rounds for timed in floors)
    if update is None or not products or not copies:
        return None
    factor = update_seconds(update, 1.0)
    both = added([products, copies], [1.0, factor])
    made = Floor(
        flops=sum(gemm.flops for gemm in case.gemms()),
        moved_bytes=update.moved,
        products=_quartiles(seconds(products)),
        update=_quartiles(spread([factor * s for s in seconds(copies)])),
        clean=sum(r.clean for r in both),
    )
    if best is not None:
        made["distance"] = _quartiles(ratio(best, both))
    return made


def _quartiles(values: Iterable[float]) -> Quartiles:
    return [_short(v) for v in values]


def _short(x: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{x:.4g}")


def sweep(chosen: Sequence[Column], threads: int, effort: Effort) -> Sweep | None:
    """A training step at growing batches on NumPy and each device; None without a device."""
    devices = [c for c in chosen if on_device(c)]
    if not devices:
        return None
    runners = [Column("numpy", ours=True), *devices]
    batches = list(SWEEP_BATCHES)
    times: dict[str, list[float]] = {c.name: [] for c in runners}
    with workers(runners, threads) as processes:
        for batch in batches:
            _add_times(times, NetworkCase(SWEEP_SIZES, batch, "sgd"), processes, effort)
    full = {name: found for name, found in times.items() if len(found) == len(batches)}
    host = full.get("numpy")
    return Sweep(
        step="-".join(map(str, SWEEP_SIZES)),
        threads=threads,
        batches=batches,
        seconds=full,
        wins_from={} if host is None else {
            c.name: crossover(batches, host, full[c.name]) for c in devices if c.name in full
        },
    )  # fmt: skip


def _add_times(
    times: dict[str, list[float]], case: Case, processes: list[Worker], effort: Effort
) -> None:
    for name, timed in measure(case, processes, effort).items():
        if timed.rounds:
            times[name].append(_short(seconds(timed.rounds).median))
