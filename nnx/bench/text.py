"""All that `nnx bench` prints: its tables, and what must be known to read them."""

from __future__ import annotations

from .case import NONE_SUCH
from .report import Report
from .table import (
    FEW,
    best_table,
    clean_rounds,
    duration,
    factor,
    floor_table,
    footprint_table,
    label,
    machine_line,
    markdown,
    marked,
    table,
    threads,
    timed,
    title,
)

BEST = (
    "The fastest of nnx in each row against each other implementation: that one's time, and how "
    "many times as fast nnx is (below 1x: slower)."
)
FLOOR = (
    "The floor of a training step: its matrix products alone, at its own shapes with NumPy's BLAS, "
    "and a copy of as many bytes as its update reads and writes, among as many as the optimizer "
    "holds. Timed in turn with the implementations."
)
FOOTPRINT = (
    "Import: in a fresh interpreter, compiled modules there, interpreter's start not counted. "
    "Installed: with all that is required; what is compiled at run time is not counted."
)


def text(report: Report, *, wide: bool = False) -> str:
    """Everything that `nnx bench` prints; `wide` with the quartiles, for the file."""
    parts = [machine_line(report)]
    for n in report["threads"]:
        parts += _with_threads(report, n, wide)
    if report["rows"]:
        parts.append(note(report, wide=wide))
    parts += filter(None, [scores(report), huge_pages(report)])
    for heading, shown in ((FLOOR, floor_table(report)), (FOOTPRINT, footprint_table(report))):
        parts += [heading, shown] if shown else []
    for lines in (
        crossovers(report), disturbed(report), empty_cells(report), empty_columns(report),
    ):  # fmt: skip
        parts += ["\n".join(lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def _with_threads(report: Report, n: int, wide: bool) -> list[str]:
    rows = [row for row in report["rows"] if row["threads"] == n]
    if not rows:
        return []
    ours = [c["name"] for c in report["columns"] if c["ours"]]
    there = timed(report)
    main = dict.fromkeys([report["baseline"], "naive", *ours])
    shown = [name for name in main if name in there]
    parts = [f"### {threads(n).capitalize()}", table(rows, shown, report["baseline"], wide=wide)]
    if any(row["best"] and row["best"]["against"] for row in rows):
        parts += [BEST, best_table(report, rows, wide=wide)]
    return parts


def note(report: Report, *, wide: bool = False) -> str:
    """How to read a cell."""
    rounds = max((len(t["rounds"]) for r in report["rows"] for t in r["times"].values()), default=0)
    quartiles = " Quartiles stand in brackets where the rounds differ." if wide else ""
    return (
        f"Times are medians of {rounds} interleaved rounds, one process per implementation. 2.00x: "
        f"half the time of {title(report['baseline'])} in the same round; below 1x slower."
        f"{quartiles} All results and losses were compared first."
    )


def scores(report: Report) -> str:
    """In how many rows nnx is ahead of each other implementation, or nothing without nnx."""
    won: dict[str, list[bool]] = {}
    for row in report["rows"]:
        for other, ratio in (row["best"]["against"] if row["best"] else {}).items():
            won.setdefault(other, []).append(ratio[0] > 1)
    counts = ", ".join(f"{title(o)} in {sum(w)} of {len(w)}" for o, w in won.items())
    return counts and f"Rows in which the fastest of nnx is faster than the other: {counts}."


def huge_pages(report: Report) -> str:
    """PyTorch's other figure for large arrays, or nothing where it was not timed."""
    found = [
        f"{row['name']} {row['size']} {factor(row['best']['against']['torch-thp'][0])} "
        f"({threads(row['threads'])})"
        for row in report["rows"]
        if row["best"] and "torch-thp" in row["best"]["against"]
    ]
    if not found:
        return ""
    return (
        f"On large arrays PyTorch's time can be mostly page faults of fresh outputs; with huge "
        f"pages (THP_MEM_ALLOC_ENABLE=1) it has few. Do not quote the one without the other. The "
        f"fastest of nnx against huge pages: {', '.join(found)}."
    )


def disturbed(report: Report) -> list[str]:
    """What the marks of few clean rounds stand for."""
    base = report["baseline"]
    found = []
    for row in report["rows"]:
        few = {
            title(name): f"{clean_rounds(row, name, base)} of {len(time['rounds'])}"
            for name, time in row["times"].items()
            if marked(row, name, base)
        }
        if few:
            counts = ", ".join(f"{name} {count}" for name, count in few.items())
            found.append(f"- {label(row)}, {threads(row['threads'])}: {counts}")
    if not found:
        return []
    return [
        f"\\{FEW} Fewer than half of the rounds were clean: in the others, other programs used the "
        f"processor too. Rounds in which both this and {title(base)} were clean:",
        "",
        *found,
    ]


def empty_cells(report: Report) -> list[str]:
    """What an implementation said that could not be timed in a row."""
    found = [
        f"- {title(name)}, {label(row)}, {threads(row['threads'])}: {reason}"
        for row in report["rows"]
        for name, reason in row["empty"].items()
        if not name.startswith("floor ") and reason != NONE_SUCH
    ]
    return ["Not timed:", "", *found] if found else []


def empty_columns(report: Report) -> list[str]:
    """Why a column is empty."""
    return [
        f"The column {title(c['name'])} is empty: {c['reason'].partition(';')[0]}."
        for c in report["columns"]
        if c["reason"]
    ]


def crossovers(report: Report) -> list[str]:
    """From which batch size on the GPU wins, and the times it was read from."""
    sweep = report["sweep"]
    if sweep is None:
        return []
    lines = []
    for name, batch in sweep["wins_from"].items():
        won = f"from batch {batch} on" if batch else f"at no batch up to {max(sweep['batches'])}"
        lines.append(
            f"{title(name)} is faster than {title('numpy')} {won} "
            f"(training step of {sweep['step']}, {threads(sweep['threads'])})."
        )
    rows = [
        [str(batch), *(duration(times[i]) for times in sweep["seconds"].values())]
        for i, batch in enumerate(sweep["batches"])
    ]
    return [*lines, "", markdown(["batch", *map(title, sweep["seconds"])], rows)]
