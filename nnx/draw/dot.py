"""A graph for Graphviz, and pictures by its program `dot`."""

from __future__ import annotations

import shutil
import subprocess

from ..errors import PackageError
from .graph import Box, Graph, Value
from .svg import BACKWARD, FILLS, plain, round_

SECONDS = 60
OTHERWISE = "A path that ends in .svg or .txt needs no Graphviz."
HEAD = """digraph {
    rankdir=LR; nodesep=0.15; ranksep=0.15;
    fontname="Helvetica,Arial,sans-serif";
    node [fontname="Helvetica,Arial,sans-serif", fontsize=12, color="#555555"];
    node [width=0, height=0.3, margin="0.15,0.05"];
    edge [arrowsize=0.7];
"""


def dot(graph: Graph) -> str:
    """The graph in Graphviz's language: an arrow's label is a node in its middle."""
    lines = [f"    b{i} [{_box(box)}];" for i, box in enumerate(graph.boxes)]
    lines.append(
        f'    end [shape=plaintext, margin="0.08,0.05", label=<<B>{_plain(graph.end.name)}</B>>];'
    )
    for i, a in enumerate(graph.arrows):
        value = graph.value(a.source, a.output)
        lines += _arrow(i, f"b{a.source}", f"b{a.target}", value, a.gradient)
    lines += _arrow(len(graph.arrows), f"b{graph.result[0]}", "end", graph.end, graph.end.gradient)
    if graph.notes:
        lines.append(f"    label=<{'<BR/>'.join(map(_plain, graph.notes))}>; fontsize=11;")
    return HEAD + "\n".join(lines) + "\n}\n"


def _arrow(i: int, source: str, target: str, value: Value, gradient: str) -> list[str]:
    rows = [f"<TR><TD>{_plain(line)}</TD></TR>" for line in value.about]
    rows.append("<HR/>")
    below = f'<FONT COLOR="{BACKWARD}">\u2190 {_plain(gradient)}</FONT>' if gradient else " "
    rows.append(f"<TR><TD>{below}</TD></TR>")
    table = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0">{"".join(rows)}</TABLE>'
    return [
        f"    l{i} [shape=plain, label=<{table}>];",
        f"    {source} -> l{i}:w [arrowhead=none]; l{i}:e -> {target};",
    ]


def _box(box: Box) -> str:
    shape = "circle, fixedsize=true, width=0.42" if round_(box) else "box"
    style = "filled" if box.kind == "call" else "filled,rounded"
    call = _plain(box.call).replace("\\", "\\\\")
    return (
        f'shape={shape}, style="{style}", fillcolor="{FILLS.get(box.kind, "white")}", '
        f'tooltip="{call}", label=<{_plain(box.symbol)}>'
    )


def _plain(text: str) -> str:
    return plain(text) or " "  # Graphviz refuses a label of nothing


def render(graph: Graph, kind: str) -> bytes:
    """The picture as "svg", "png" or "pdf"; PackageError if there is no `dot`, or it fails."""
    program = shutil.which("dot")
    if program is None:
        raise PackageError(
            f"draw: .{kind} needs Graphviz's program dot, which is not installed: `apt install "
            f"graphviz`, `brew install graphviz`, or from graphviz.org. {OTHERWISE}"
        )
    try:
        done = subprocess.run(
            [program, f"-T{kind}"], input=dot(graph).encode(), capture_output=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(f"draw: {program} cannot be run: {error}. {OTHERWISE}") from error
    if done.returncode or not done.stdout:
        said = " ".join(done.stderr.decode(errors="replace").split())[:500]
        raise PackageError(f"draw: {program} failed ({done.returncode}): {said}. {OTHERWISE}")
    return done.stdout
