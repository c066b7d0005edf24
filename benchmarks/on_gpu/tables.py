"""A measurement as Markdown: for the file beside it, and for the README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nnx.bench.table import duration, factor, markdown

from . import record
from .goals import Goal, goals
from .parts import COPY, EAGER, FAST, GRAPHS, HOST, OURS, PRODUCT
from .record import ALL, Result, Row

COMMAND = "benchmarks/gpu.py"
TITLES = {
    EAGER: "PyTorch", GRAPHS: "PyTorch CUDA graphs", OURS[0]: "nnx eager", OURS[1]: "nnx replay",
    FAST: "nnx replay, fuse=\"fast\"", f"{HOST} replay": "nnx replay on the CPU",
}  # fmt: skip
PRECISIONS = {"float32": "float32", "tf32": "TF32 in matrix products, on both sides"}
SHOWN = (
    "relu", "sigmoid", "gelu", "add", "softmax", "layer_norm", "softmax_cross_entropy", "sum",
    "matmul", "conv2d", "attention",
)  # fmt: skip
FIGURES = {
    "ceilings": "how many bytes per second the device copies, and how many FLOPs it multiplies",
    "steps": "training steps by nnx, eager and replayed, beside PyTorch, eager and as CUDA graphs, "
    "in float32 and TF32",
    "ops": "the share of these ceilings that each op reaches",
    "sweep": "the batch size from which on the GPU is faster than the CPU",
}


def nothing() -> str:
    """What the README says while no result is committed."""
    missing = "".join(f"- {figure};\n" for figure in FIGURES.values())
    return (
        f"On a GPU nothing has been timed yet, and no figure is guessed. Missing are:\n\n"
        f"{missing.rstrip().removesuffix(';')}.\n\n"
        f"One command takes them all, on a machine with an NVIDIA GPU, nnx with `'.[cuda12]'` or "
        f"`'.[cuda13]'`, and PyTorch with CUDA: `.venv/bin/python {COMMAND}`. Then "
        f"`.venv/bin/python benchmarks/update_readme.py` writes them here."
    )


def block(result: Result, source: str) -> str:
    """The README's text."""
    stem = source.removesuffix(".json")
    parts = [*_steps(result), *_ops(result, SHOWN), *_sweep(result), f"{_machine(result)}."]
    parts += [_missing(result)] if _missing(result) else []
    parts.append(
        f"From [`{source}`]({source}), taken with `{result['command']}`. [Its tables]({stem}.md) "
        f"have all ops, what could not be timed, and what nnx is meant to reach."
    )
    return "\n\n".join(parts)


def text(result: Result) -> str:
    """All of it."""
    parts = ["# On a GPU", f"{_machine(result)}. Taken with `{result['command']}`."]
    for heading, found in (
        ("Goals", _goals(result)), ("Ceilings", _ceilings(result)),
        ("Training steps", _steps(result)), ("Ops", _ops(result)),
        ("By batch size", _sweep(result)), ("Not timed", _errors(result)),
    ):  # fmt: skip
        parts += [f"## {heading}", *found] if found else []
    return "\n\n".join(parts) + "\n"


def _rows(result: Result, section: str) -> dict[str, Row]:
    return {name: row for name, row in result["rows"].items() if row["section"] == section}


def _columns(rows: Iterable[Row]) -> list[str]:
    """Of the implementations those that have a time in some row."""
    found = list(rows)
    return [name for name in TITLES if any(row["seconds"].get(name) for row in found)]


def _cell(row: Row, name: str, baseline: str) -> str:
    took, share = record.seconds(row, name), record.share(row, name, baseline)
    if took is None:
        return "-"
    return duration(took) + (f" {factor(1 / share)}" if share and name != baseline else "")


def _steps(result: Result) -> list[str]:
    parts, rows = list[str](), _rows(result, "steps")
    for precision, title in PRECISIONS.items():
        chosen = {n: row for n, row in rows.items() if row.get("precision") == precision}
        if not chosen:
            continue
        columns = _columns(chosen.values())
        body = [
            [name.removesuffix(f", {precision}"), *(_cell(row, c, EAGER) for c in columns)]
            for name, row in chosen.items()
        ]
        parts += [f"GPU, {title}:", markdown(["", *(TITLES[c] for c in columns)], body)]
    if parts:
        count = max((len(s) for row in rows.values() for s in row["seconds"].values()), default=0)
        parts.append(
            f"Times are medians of {count} rounds in which all take turns, between events on the "
            f"device. 2.00x: half the time of PyTorch in the same round; below 1x slower. The "
            f"losses of the first steps were compared with NumPy's before."
        )
    return parts


def _per_second(value: float, unit: str) -> str:
    return f"{value / 1e9:.0f} GB/s" if unit == "bytes" else f"{value / 1e12:.1f} TFLOP/s"


def _share(result: Result, row: Row, names: Sequence[str]) -> list[str]:
    """What the fastest of them reaches, and of which ceiling how much that is."""
    unit, part = ("flops", PRODUCT.format("float32")) if "flops" in row else ("bytes", COPY)
    reached, limit = record.per_second(row, unit, names), record.ceiling(result, part, unit)
    if reached is None:
        return ["-", "-"]
    return [_per_second(reached, unit), f"{reached / limit:.0%}" if limit else "-"]


def _ops(result: Result, names: Sequence[str] | None = None) -> list[str]:
    rows = _rows(result, "ops")
    order: Callable[[str], int] = lambda name: names.index(_first(name)) if names else 0  # noqa: E731
    chosen = sorted((n for n in rows if names is None or _first(n) in names), key=order)
    if not chosen:
        return []
    body = []
    for name in chosen:
        row, best = rows[name], record.fastest(rows[name], OURS)
        took = "-" if best is None else duration(record.seconds(row, best) or 0.0)
        there = record.seconds(row, EAGER)
        torch = "-" if there is None else duration(there)
        body.append(
            [name, took, *_share(result, row, OURS), torch, _share(result, row, [EAGER])[1]]
        )
    header = ["", "nnx", "reached", "of the ceiling", "PyTorch", "of the ceiling"]
    return [
        markdown(header, body),
        "Forward, the faster of eager and replayed. The ceiling is a copy of 1 GiB, or for matmul "
        "and affine a product of 8192x8192 matrices in float32; bytes are those of arguments and "
        "results. Results were compared with NumPy's before.",
    ]  # fmt: skip


def _first(name: str) -> str:
    return name.partition(" ")[0]


def _ceilings(result: Result) -> list[str]:
    body = []
    for name, row in _rows(result, "ceilings").items():
        unit = "flops" if "flops" in row else "bytes"
        reached = record.per_second(row, unit, list(row["seconds"]))
        best = record.fastest(row, list(row["seconds"]))
        if reached is not None and best is not None:
            body.append([name, _per_second(reached, unit), TITLES[best].removesuffix(" eager")])
    return [markdown(["", "reached", "by"], body)] if body else []


def _sweep(result: Result) -> list[str]:
    rows = _rows(result, "sweep")
    if not rows:
        return []
    cpu, gpu, won = f"{HOST} replay", OURS[1], list[int]()
    for row in reversed(rows.values()):  # from the largest batch down, as long as it wins
        mine, other = record.seconds(row, gpu), record.seconds(row, cpu)
        if mine is None or other is None or mine >= other:
            break
        won.append(row.get("batch", 0))
    columns = _columns(rows.values())
    body = [[str(r.get("batch")), *(_cell(r, c, EAGER) for c in columns)] for r in rows.values()]
    network = next(iter(rows)).partition(",")[0]
    tried = max(row.get("batch", 0) for row in rows.values())
    said = f"from batch {won[-1]} on" if won else f"at no batch up to {tried}"
    return [
        f"A replayed step of {network}, SGD, is faster on the GPU than on this machine's CPU "
        f"{said}:",
        markdown(["batch", *(TITLES[c] for c in columns)], body),
    ]


def _goals(result: Result) -> list[str]:
    return [markdown(["goal", "limit", "measured", "reached"], map(_goal, goals(result)))]


def _goal(goal: Goal) -> list[str]:
    bound = f"{'>=' if goal.above else '<='} {goal.limit:g}"
    if not goal.found:
        return [goal.what, bound, "-", "not measured"]
    worst = (min if goal.above else max)(goal.found.values())
    count = f"{len(goal.found) - len(goal.missed)} of {len(goal.found)}"
    names = f": not {', '.join(goal.missed)}" if goal.missed else ""
    return [goal.what, bound, f"{worst:.3f} at worst", count + names]


def _missing(result: Result) -> str:
    """What of the figures is not there, in a sentence."""
    columns = _columns(result["rows"].values())
    found = [TITLES[name] for name in TITLES if name not in columns]
    found += [title for name, title in FIGURES.items() if not _rows(result, name)]
    failed = sum(map(len, result["errors"].values()))
    found += [f"{failed} times that ended in an error"] if failed else []
    found += [f"{len(result['left'])} parts that nobody got to"] if result["left"] else []
    return f"Missing: {'; '.join(found)}." if found else ""


def _errors(result: Result) -> list[str]:
    lines = [
        f"- {part}{'' if name == ALL else ', ' + TITLES.get(name, name)}: {_line(error)}"
        for part, found in result["errors"].items() for name, error in found.items()
    ]  # fmt: skip
    lines += [f"- {part}: nobody got to it" for part in result["left"]]
    lines += [f"- warned: {_line(message)}" for message in result["warnings"]]
    return ["\n".join(lines)] if lines else []


def _line(message: str) -> str:
    return " ".join(message.split())


def _machine(result: Result) -> str:
    m, device, versions = result["machine"], result["device"], result["versions"]
    found = [
        device.get("device", "").partition(": ")[2] or "unknown device",
        device.get("memory", ""),
        *(f"{name} {version}" for name, version in versions.items()),
        f"{m.get('cpu', 'unknown processor')}, {m.get('cores', '?')} cores",
        m.get("system", ""), f"Python {m.get('python', '?')}", result["date"],
    ]  # fmt: skip
    return ", ".join(filter(None, found))
