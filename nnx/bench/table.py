"""Results as Markdown tables, aligned so that they read well in a terminal too. ASCII only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .report import Best, Floor, Quartiles, Report, Row

TITLES = {
    "torch": "PyTorch",
    "torch-fused": "PyTorch fused",
    "torch-compile": "PyTorch compiled",
    "torch-thp": "PyTorch huge pages",
    "torch-cuda": "PyTorch CUDA",
    "torch-cuda-graphs": "PyTorch CUDA graphs",
    "jax": "JAX",
    "naive": "naive NumPy",
    "numpy": "nnx eager",
    "numpy replay": "nnx replay",
}
VERSIONS = {
    "python": "Python", "numpy": "NumPy", "torch": "PyTorch", "jax": "JAX", "numba": "numba",
    "blas": "BLAS",
}  # fmt: skip
FEW = "*"


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


def spreads(ratio: Quartiles) -> str:
    """The median, and the quartiles where the rounds disagree by more than 5 %."""
    middle, low, high = ratio
    wide = high - low > 0.05 * middle
    return f"{factor(middle)} ({low:.2f}-{high:.2f})" if wide else factor(middle)


def markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; the first column to the left, the others, numbers, to the right."""
    body = list(rows)
    widths = [max(len(r[i]) for r in (header, *body)) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *rest = (c.rjust(w) for c, w in zip(cells, widths, strict=True))
        return f"| {' | '.join([cells[0].ljust(len(first)), *rest])} |"

    rule = [f":{'-' * (w - 1)}" if not i else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, body)])


def label(row: Row) -> str:
    """What the row is of: 784-100-10, batch 100, Adam."""
    return f"{row['name']}, {row['size']}, {row['what']}"


def threads(n: int) -> str:
    return f"{n} thread{'' if n == 1 else 's'}"


def timed(report: Report) -> list[str]:
    """The columns that have a time in some row."""
    return [
        c["name"] for c in report["columns"] if any(c["name"] in r["times"] for r in report["rows"])
    ]


def clean_rounds(row: Row, *columns: str) -> int:
    """In how many rounds no other process disturbed any of these columns, where they have times."""
    there = [row["times"][name] for name in columns if name in row["times"]]
    noisy = {i for time in there for i in time["noisy"]}
    return len(there[0]["rounds"]) - len(noisy) if there else 0


def marked(row: Row, *columns: str) -> str:
    """The mark of a figure from these columns of which fewer than half of the rounds are clean."""
    rounds = len(row["times"][columns[0]]["rounds"])
    return FEW if 2 * clean_rounds(row, *columns) < rounds else ""


def table(rows: Sequence[Row], columns: Sequence[str], baseline: str, *, wide: bool) -> str:
    """Times and how many times as fast as the baseline that is.

    wide   with quartiles where the rounds disagree
    """

    def cell(row: Row, column: str) -> str:
        time = row["times"].get(column)
        if time is None:
            return "-"
        shown = duration(time["seconds"][0])
        if column == baseline or "speed" not in time:
            return shown + marked(row, column)
        speed = spreads(time["speed"]) if wide else factor(time["speed"][0])
        return f"{shown} {speed}{marked(row, column, baseline)}"

    header = ["", *map(title, columns)]
    return markdown(header, [[label(r), *(cell(r, c) for c in columns)] for r in rows])


def best_table(report: Report, rows: Sequence[Row], *, wide: bool) -> str:
    """The fastest of nnx against each other implementation: that one's time, nnx's factor."""
    ours = {c["name"] for c in report["columns"] if c["ours"]}
    others = [name for name in timed(report) if name not in ours]

    def cell(row: Row, best: Best, other: str) -> str:
        if other not in best["against"]:
            return "-"
        ratio = best["against"][other]
        shown = duration(row["times"][other]["seconds"][0])
        mark = marked(row, other, best["column"])
        return f"{shown} {spreads(ratio) if wide else factor(ratio[0])}{mark}"

    body = [
        [label(row), _best(row), *(cell(row, row["best"], other) for other in others)]
        for row in rows
        if row["best"] is not None
    ]
    return markdown(["", "the best of nnx", *map(title, others)], body)


def _best(row: Row) -> str:
    if row["best"] is None:
        return "-"
    name = row["best"]["column"]
    return f"{duration(row['times'][name]['seconds'][0])} {title(name)}{marked(row, name)}"


def floor_table(report: Report) -> str:
    """Per training step what its products and its update take alone, and nnx's distance."""
    body = []
    for row in report["rows"]:
        floor = row["floor"]
        if floor is None:
            continue
        products, update = floor["products"][0], floor["update"][0]
        body.append([
            label(row), str(row["threads"]),
            f"{floor['flops'] / 1e9:.3g}", f"{floor['flops'] / products / 1e9:.0f}",
            f"{floor['moved_bytes'] / 1e6:.3g}", f"{floor['moved_bytes'] / update / 1e9:.0f}",
            duration(products), duration(update),
            _best(row), _distance(row, floor),
        ])  # fmt: skip
    header = [
        "", "threads", "GFLOP", "GFLOP/s", "update MB", "GB/s", "products", "update",
        "best of nnx", "above the floor",
    ]  # fmt: skip
    return markdown(header, body) if body else ""


def _distance(row: Row, floor: Floor) -> str:
    if row["best"] is None or "distance" not in floor:
        return "-"
    best = row["best"]["column"]
    few = 2 * floor["clean"] < len(row["times"][best]["rounds"])
    return spreads(floor["distance"]) + (FEW if few else marked(row, best))


def footprint_table(report: Report) -> str:
    """Import times and installed sizes."""
    body = [
        [f["name"], duration(f["seconds"][0]), f"{f['bytes'] / 1e6:.0f} MB"]
        for f in report["footprints"]
    ]
    return markdown(["", "import", "installed"], body) if body else ""


def machine_line(report: Report) -> str:
    """Processor, threads, versions, date: one line."""
    m = report["machine"]
    parts = [
        m.get("cpu", "unknown processor"),
        f"{m.get('cores', '?')} cores",
        m.get("system", ""),
        *(f"{title_} {m[key]}" for key, title_ in VERSIONS.items() if key in m),
        *(f"{k.removeprefix('device ')}: {v}" for k, v in m.items() if k.startswith("device ")),
        report["date"],
    ]
    return ", ".join(part for part in parts if part)
