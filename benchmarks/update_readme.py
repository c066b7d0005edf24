"""Writes what is said of committed results: the tables beside each, and between the markers of
README.md those of the newest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [  # the checkout's nnx, installed or not
    str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "papers"),
]  # fmt: skip

import run as papers  # noqa: E402
from on_gpu import record, tables  # noqa: E402

from nnx.bench.report import RESULTS, Report, newest, read  # noqa: E402
from nnx.bench.table import FEW, footprint_table, machine_line, table, threads  # noqa: E402
from nnx.bench.text import crossovers, huge_pages, note, scores, text  # noqa: E402

BENCH, GPU, PAPERS = "bench", "gpu", "papers"  # the markers' names
COLUMNS = ("naive", "torch", "numpy", "numpy replay", "numba replay")
FEW_CLEAN = f"\\{FEW} In most of these rounds other programs used the processor too."


def block(report: Report, source: str) -> str:
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
    stem = source.removesuffix(".json")
    if (ROOT / f"{stem}.png").exists():
        parts.append(f"![All implementations, relative to PyTorch]({stem}.png)")
    parts.append(
        f"From [`{source}`]({source}), taken with `nnx bench`. [Its tables]({stem}.md) have the "
        f"other implementations too: PyTorch with fused optimizers, compiled and with huge pages, "
        f"and JAX; and how far the best is from what the processor can do."
    )
    return "\n\n".join(parts)


def replaced(readme: str, new: str, name: str = BENCH) -> str:
    """The README with the text between the markers of that name replaced."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if readme.count(start) != 1 or readme.count(end) != 1:
        raise SystemExit(f"README.md needs the lines {start} and {end}, once each")
    before, _, rest = readme.partition(start)
    after = rest.partition(end)[2]
    return f"{before}{start}\n\n{new}\n\n{end}{after}"


def current() -> str:
    """The block that the newest committed results give."""
    cpu = newest("cpu-*.json")
    if cpu is None:
        raise SystemExit("no benchmarks/results/cpu-*.json; write one with nnx bench --json")
    return block(read(cpu), cpu.relative_to(ROOT).as_posix())


def on_gpu() -> str:
    """The newest measurement on a GPU; while there is none, what is missing."""
    path = record.last(RESULTS)
    if path is None:
        return tables.nothing()
    found = record.read(path)
    if found["quick"]:
        raise SystemExit(f"{path} is of a quick run, which is no measurement: remove it")
    return tables.block(found, path.relative_to(ROOT).as_posix())


def published() -> str:
    """The table of the newest runs of published networks, and where it comes from."""
    path = max(RESULTS.glob("papers-*.json"), default=None)
    if path is None:
        return "No runs are committed yet; `--json FILE` adds some."
    table = papers.table(json.loads(path.read_text())).split("\n\n")[1]
    made = path.with_suffix(".md").relative_to(ROOT).as_posix()
    return f"{table}\n\nFrom [{made}]({made}), which says what is done otherwise than published."


def timed() -> list[Path]:
    """The committed results of `nnx bench`."""
    return sorted(RESULTS.glob("cpu-*.json"))


def beside() -> dict[Path, str]:
    """What belongs into the files of tables beside the results."""
    found = {path: text(read(path), wide=True) for path in timed()}
    devices = sorted(RESULTS.glob("device-*.json"))
    found |= {path: tables.text(record.read(path)) for path in devices}
    return {path.with_suffix(".md"): shown for path, shown in found.items()}


def whole(readme: str) -> str:
    """The README with all of its generated text."""
    for name, made in ((BENCH, current), (GPU, on_gpu), (PAPERS, published)):
        readme = replaced(readme, made(), name)
    return readme


def main() -> None:
    for path, shown in beside().items():
        path.write_text(shown, encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(whole(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
