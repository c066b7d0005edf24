"""Writes the table between the bench markers of README.md, from the newest results."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout's nnx, installed or not

from nnx.bench.report import Report, newest, newest_gpu, read  # noqa: E402
from nnx.bench.table import NOTE, crossovers, empty_columns, machine_line, table  # noqa: E402

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
OPS = ("affine", "relu", "sigmoid", "softmax", "softmax_cross_entropy")


def block(report: Report, gpu: tuple[Path, Report] | None, source: str) -> str:
    """The training steps and a few cache-sized ops, with what is needed to judge them."""
    steps = [r for r in report["rows"] if r["kind"] == "step"]
    ops = [
        r
        for r in report["rows"]
        if r["name"] in OPS and r["size"] == "128x512" and r["what"] == "forward+backward"
    ]
    parts = [table(report, steps, "network"), table(report, ops), NOTE, f"{machine_line(report)}."]
    parts += ["\n".join(crossovers(report))] if report["sweep"] else []
    parts += ["\n".join(lines)] if (lines := empty_columns(report, gpu)) else []
    parts.append(
        f"From [`{source}`]({source}), taken with `nnx bench`; "
        f"all that was timed is in [its table]({source.removesuffix('.json')}.md)."
    )
    return "\n\n".join(parts)


def replaced(readme: str, new: str) -> str:
    """The README with the text between the markers replaced."""
    if readme.count(START) != 1 or readme.count(END) != 1:
        raise SystemExit(f"README.md needs the lines {START} and {END}, once each")
    before, _, rest = readme.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n\n{new}\n\n{END}{after}"


def current() -> str:
    """The block that the newest committed results give."""
    cpu, gpu = newest("cpu-*.json"), newest_gpu()
    if cpu is None:
        raise SystemExit("no benchmarks/results/cpu-*.json; write one with nnx bench --json")
    source = cpu.relative_to(ROOT).as_posix()
    return block(read(cpu), None if gpu is None else (gpu, read(gpu)), source)


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(replaced(path.read_text(encoding="utf-8"), current()), encoding="utf-8")


if __name__ == "__main__":
    main()
