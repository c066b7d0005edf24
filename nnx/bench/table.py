"""A report as Markdown tables, aligned so that they read well in a terminal too. ASCII only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .report import Report, Row

TITLES = {
    "naive": "naive NumPy",
    "torch": "PyTorch",
    "torch-cuda": "PyTorch (CUDA)",
    "torch-thp": "PyTorch (huge pages)",
}
VERSIONS = {"python": "Python", "numpy": "NumPy", "torch": "PyTorch", "blas": "BLAS"}
BASELINES = ("naive", "torch", "torch-thp", "torch-cuda")
NO_RESULT = "No GPU result has been committed yet."
NOTE = (
    "Times are medians of interleaved rounds. 2.00x: nnx takes half the time; below 1x nnx is "
    "slower. Quartiles stand in brackets where the rounds differ. Results were compared first."
)
HUGE_PAGES = (
    "On large arrays PyTorch's time can be mostly page faults of fresh outputs; the column with "
    "huge pages is PyTorch with THP_MEM_ALLOC_ENABLE=1, in a process that ran after the others and "
    "not in turn with them, so a machine that was busy meanwhile makes it look slow."
)


def title(column: str) -> str:
    """What a column is called in a table's head."""
    return TITLES.get(column, f"nnx {column}")


def duration(seconds: float) -> str:
    """Three digits and a unit: 412 us, 1.13 ms, 0.27 s."""
    for unit, scale in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * scale:
            value = seconds / scale
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
    return f"{seconds:.2f} s"


def factor(x: float) -> str:
    """2.1x"""
    return f"{x:.0f}x" if x >= 99.5 else f"{x:.1f}x" if x >= 9.95 else f"{x:.2f}x"


def markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; the first three columns to the left, numbers to the right."""
    body = list(rows)
    widths = [max(len(r[i]) for r in (header, *body)) for i in range(len(header))]
    left = {i for i, name in enumerate(header) if name in ("", "op", "network", "size", "what")}

    def line(cells: list[str]) -> str:
        padded = (
            c.ljust(w) if i in left else c.rjust(w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = (f":{'-' * (w - 1)}" if i in left else f"{'-' * (w - 1)}:" for i, w in enumerate(widths))
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, body)])


def table(report: Report, rows: list[Row], first: str = "op") -> str:
    """Times per column and speed-ups of each nnx backend over the baselines."""
    names = [
        c["name"]
        for c in report["columns"]
        if c["reason"] or any(c["name"] in r["times"] for r in rows)
    ]
    ours = [n for n in names if n not in BASELINES and any(n in r["times"] for r in rows)]
    pairs = [(a, b) for a in ours for b in _compared(a, rows)]
    header = [first, "size", "what", *map(title, names)]
    header += [f"{title(a)} vs {title(b)}" for a, b in pairs]
    return markdown(
        header,
        [
            [
                r["name"], r["size"], r["what"],
                *(duration(r["times"][n]["seconds"]) if n in r["times"] else "-" for n in names),
                *(_speedup(r, a, b) for a, b in pairs),
            ]
            for r in rows
        ],
    )  # fmt: skip


def _compared(ours: str, rows: list[Row]) -> list[str]:
    """What a backend's speed-up is over: PyTorch where timed, else the naive style; and NumPy for
    backends with arrays of their own.
    """
    there = {b for r in rows for b in r["speedups"].get(ours, {})}
    found = [b for b in ("torch-cuda", "torch", "naive") if b in there][:1]
    own = ours.partition(" ")[0] not in ("numpy", "numba")
    return found + (["numpy"] if own and "numpy" in there else [])


def _speedup(row: Row, ours: str, theirs: str) -> str:
    """The median, and the quartiles where the rounds disagree by more than 5 %."""
    found = row["speedups"].get(ours, {}).get(theirs)
    if found is None:
        return "-"
    middle, low, high = found
    wide = high - low > 0.05 * middle
    return f"{factor(middle)} ({low:.2f}-{high:.2f})" if wide else factor(middle)


def machine_line(report: Report) -> str:
    """Processor, threads, versions, date: one line."""
    m = report["machine"]
    count = m.get("threads", "?")
    parts = [
        m.get("cpu", "unknown processor"),
        f"{m.get('cores', '?')} cores",
        f"{count} thread{'' if count == '1' else 's'}",
        m.get("system", ""),
        *(f"{label} {m[key]}" for key, label in VERSIONS.items() if key in m),
        *(f"{k.removeprefix('device ')}: {v}" for k, v in m.items() if k.startswith("device ")),
        report["date"],
    ]
    return ", ".join(part for part in parts if part)


def empty_columns(report: Report, last_gpu: tuple[Path, Report] | None) -> list[str]:
    """Why a column is empty and how to fill it; for CuPy, the last committed GPU result."""
    lines = []
    for column in report["columns"]:
        name, reason = column["name"], column["reason"]
        if not reason:
            continue
        lines.append(f"The column {title(name)} is empty: {reason.partition(';')[0]}.")
        if name.partition(":")[0] != "cupy":
            continue
        lines.append(
            "To fill it, on a machine with an NVIDIA GPU: `pip install '.[cuda12]'` (or "
            f"`'.[cuda13]'`), then `nnx bench --json benchmarks/results/gpu-{report['date']}.json`."
        )
        if last_gpu is None:
            lines.append(NO_RESULT)
        else:
            path, found = last_gpu
            lines += [f"The last committed GPU result, {path.name} ({machine_line(found)}):", ""]
            steps = [r for r in found["rows"] if r["kind"] == "step"]
            lines += [table(found, steps, "network"), "", *crossovers(found)]
    return lines


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
            f"(training step of {sweep['step']})."
        )
    rows = [
        [str(batch), *(duration(times[i]) for times in sweep["seconds"].values())]
        for i, batch in enumerate(sweep["batches"])
    ]
    return [*lines, "", markdown(["batch", *map(title, sweep["seconds"])], rows)]


def text(report: Report, last_gpu: tuple[Path, Report] | None = None) -> str:
    """Everything that `nnx bench` prints."""
    parts = [machine_line(report)]
    steps = [r for r in report["rows"] if r["kind"] == "step"]
    ops = [r for r in report["rows"] if r["kind"] == "op"]
    parts += [table(report, steps, "network")] if steps else []
    parts += [table(report, ops)] if ops else []
    parts.append(NOTE)
    if any("torch-thp" in r["times"] for r in ops):
        parts.append(HUGE_PAGES)
    found = crossovers(report)
    parts += ["\n".join(found)] if found else []
    empty = empty_columns(report, last_gpu)
    parts += ["\n".join(empty)] if empty else []
    return "\n\n".join(parts) + "\n"
