"""A graph as an aligned listing in the order of evaluation."""

from __future__ import annotations

from .graph import Graph


def text(graph: Graph) -> str:
    """A line for each value: its name, the call that gave it, what it is, its gradient."""
    rows = [("name", "call", "value", "gradient")]
    for box in {id(box): box for box in graph.boxes}.values():
        for i, value in enumerate(box.values if box.kind != "number" else ()):
            call = "(left out)" if box.kind == "cut" else box.call
            rows.append((value.name, call if i == 0 else "", " ".join(value.about), value.gradient))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *graph.notes])
