"""Writes what is said of committed results: the tables beside each, and between the bench markers
of README.md those of the newest.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout's nnx, installed or not

from nnx.bench.report import RESULTS, Report, newest, newest_gpu, read  # noqa: E402
from nnx.bench.table import FEW, footprint_table, machine_line, table, threads  # noqa: E402
from nnx.bench.text import crossovers, empty_columns, huge_pages, note, scores, text  # noqa: E402

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
COLUMNS = ("naive", "torch", "numpy", "numpy replay", "numba replay")
FEW_CLEAN = f"\\{FEW} In most rounds of these other programs used the processor too."


def block(report: Report, gpu: tuple[Path, Report] | None, source: str) -> str:
    """nnx, the naive style and plain PyTorch, with what is needed to judge them."""
    there = {c["name"] for c in report["columns"] if not c["reason"]}
    columns = [name for name in COLUMNS if name in there]
    parts = []
    for n in report["threads"]:
        rows = [row for row in report["rows"] if row["threads"] == n]
        shown = table(rows, columns, report["baseline"], wide=False)
        parts += [f"{threads(n).capitalize()}:", shown]
        if FEW in shown and FEW_CLEAN not in parts:
            parts.append(FEW_CLEAN)
    parts += [note(report), *filter(None, [scores(report), huge_pages(report)])]
    parts += [*filter(None, [footprint_table(report)]), f"{machine_line(report)}."]
    parts += ["\n".join(lines) for lines in (crossovers(report),) if lines]
    parts += ["\n".join(lines)] if (lines := empty_columns(report, gpu)) else []
    stem = source.removesuffix(".json")
    if (ROOT / f"{stem}.png").exists():
        parts.append(f"![All implementations, relative to PyTorch]({stem}.png)")
    parts.append(
        f"From [`{source}`]({source}), taken with `nnx bench`. [Its tables]({stem}.md) have the "
        f"other implementations too: PyTorch with fused optimizers, compiled and with huge pages, "
        f"and JAX; and how far the best is from what the processor can do."
    )
    return "\n\n".join(parts)


def replaced(readme: str, new: str) -> str:
    """The README with the text between the markers replaced."""
    if readme.count(START) != 1 or readme.count(END) != 1:
        raise SystemExit(f"README.md needs the lines {START} and {END}, once each")
    before, _, rest = readme.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n\n{new}\n\n{END}{after}"


def last_gpu() -> tuple[Path, Report] | None:
    path = newest_gpu()
    return None if path is None else (path, read(path))


def current() -> str:
    """The block that the newest committed results give."""
    cpu = newest("cpu-*.json")
    if cpu is None:
        raise SystemExit("no benchmarks/results/cpu-*.json; write one with nnx bench --json")
    return block(read(cpu), last_gpu(), cpu.relative_to(ROOT).as_posix())


def tables(path: Path) -> str:
    """What belongs into the file of tables beside a result."""
    return text(read(path), last_gpu(), wide=True)


def main() -> None:
    for result in RESULTS.glob("*.json"):
        result.with_suffix(".md").write_text(tables(result), encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(replaced(path.read_text(encoding="utf-8"), current()), encoding="utf-8")


if __name__ == "__main__":
    main()
