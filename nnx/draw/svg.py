"""A graph as SVG, without any other program: values above the arrows, gradients below."""

from __future__ import annotations

import unicodedata
from html import escape

from .graph import Arrow, Box, Graph, Value
from .layout import Part, Size, layout

FORWARD, BACKWARD = "#1a1a1a", "#c2410c"  # also told apart by where they stand
FILLS = {"call": "#dcecf9", "leaf": "#fdf0c4", "constant": "#eeeeee", "number": "#eeeeee"}
FONT = 12
LINE = 15.0  # from one line of text to the next
RADIUS = 15.0
MARGIN = 12.0
HEAD = 7.0  # the length of an arrow's head


def svg(graph: Graph) -> str:
    """The picture as a document of its own."""
    end = len(graph.boxes)
    last = Arrow(*graph.result, end, graph.end.gradient)
    arrows = [*graph.arrows, last]
    values = [graph.value(a.source, a.output) for a in arrows]
    labels = [_label(value, a.gradient) for a, value in zip(arrows, values, strict=True)]
    sizes = [*map(_size, graph.boxes), Size(wide(graph.end.name) + 16, LINE / 2, LINE / 2)]
    placed = layout(
        sizes, [(a.source, a.target, label) for a, label in zip(arrows, labels, strict=True)]
    )
    body = []
    steep = [1.0] * len(sizes)  # of the arrows that come to a box
    for a, way in zip(arrows, placed.arrows, strict=True):
        steep[a.target] = max(steep[a.target], abs(way[-1].y - placed.boxes[a.target].y))
    for a, value, way in zip(arrows, values, placed.arrows, strict=True):
        target = placed.boxes[a.target]
        port = 0.6 * target.size.up * (way[-1].y - target.y) / max(steep[a.target], target.size.up)
        body.append(_line(placed.boxes[a.source], way, target, port))
        body += _words(way[-1], value, a.gradient)
    for box, part in zip(graph.boxes, placed.boxes, strict=False):
        body += _box(box, part)
    name = placed.boxes[end]
    body.append(_text(name.x, name.y + 4, graph.end.name, ' font-weight="bold"'))
    height = placed.height
    for note in graph.notes:
        height += 2 * LINE
        body.append(f'<text y="{height:.1f}" text-anchor="start" fill="#555">{plain(note)}</text>')
    return _document(body, max([placed.width, *map(wide, graph.notes)]), height)


def _document(body: list[str], width: float, height: float) -> str:
    w, h = width + 2 * MARGIN, height + 2 * MARGIN
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}" '
        f'viewBox="{-MARGIN:.0f} {-MARGIN:.0f} {w:.0f} {h:.0f}" font-family="sans-serif" '
        f'font-size="{FONT}" text-anchor="middle">',
        f'<rect x="{-MARGIN:.0f}" y="{-MARGIN:.0f}" width="100%" height="100%" fill="white"/>',
        *body,
        "</svg>\n",
    ])  # fmt: skip


def wide(text: str) -> float:
    """About how wide a line of text is: East Asian letters are twice as wide as others."""
    return sum(FONT if unicodedata.east_asian_width(c) in "WF" else 0.56 * FONT for c in text)


def plain(text: str) -> str:
    """Text that stands in XML, which has no place for control characters."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}>{plain(text)}</text>'


def _size(box: Box) -> Size:
    if round_(box):
        return Size(2 * RADIUS, RADIUS, RADIUS)
    return Size(wide(box.symbol) + 18, 13, 13)


def round_(box: Box) -> bool:
    """Whether the box is a circle with an operator's sign."""
    return box.kind == "call" and len(box.symbol) == 1


def _label(value: Value, gradient: str) -> Size:
    width = max(map(wide, [*value.about, gradient])) + 12
    return Size(width, 5 + LINE * len(value.about), 12 + LINE if gradient else 4)


def _words(label: Part, value: Value, gradient: str) -> list[str]:
    """The value above the line; below it the gradient, with an arrow that points back."""
    lines = [
        _text(label.x, label.y - 6 - LINE * i, line) for i, line in enumerate(reversed(value.about))
    ]
    if gradient:
        left, right, y = label.left + 4, label.right - 4, label.y + 8
        lines.append(
            f'<path d="M{right:.1f} {y:.1f}H{left:.1f}m5 -3l-5 3l5 3" fill="none" '
            f'stroke="{BACKWARD}"/>'
        )
        lines.append(_text(label.x, label.y + 22, gradient, f' fill="{BACKWARD}"'))
    return lines


def _line(source: Part, way: list[Part], target: Part, port: float) -> str:
    """The arrow itself: bent between columns, level under its label. It comes in at `port` below
    the target's middle.
    """
    x, y = source.far, source.y
    path = f"M{source.right:.1f} {y:.1f}H{x:.1f}"
    for part in way:
        path += _bend(x, y, part.near, part.y) + f"H{part.far:.1f}"
        x, y = part.far, part.y
    inset = RADIUS - (RADIUS**2 - port**2) ** 0.5 if target.size.up == RADIUS else 0.0
    tip, end = target.left + inset, target.y + port
    path += _bend(x, y, min(target.near, tip - HEAD), end) + f"H{tip - HEAD:.1f}"
    head = f"M{tip:.1f} {end:.1f}l-{HEAD:.1f} -3.5v7z"
    return f'<path d="{path}" fill="none" stroke="{FORWARD}"/><path d="{head}" fill="{FORWARD}"/>'


def _bend(x0: float, y0: float, x1: float, y1: float) -> str:
    middle = (x0 + x1) / 2
    return f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"


def _box(box: Box, part: Part) -> list[str]:
    title = f"<title>{plain(box.call)}</title>" if box.call else ""
    style = f'fill="{FILLS.get(box.kind, "white")}" stroke="#555"'
    if round_(box):
        shape = f'<circle cx="{part.x:.1f}" cy="{part.y:.1f}" r="{RADIUS:.0f}" {style}>{title}'
        return [f"{shape}</circle>", _text(part.x, part.y + 6, box.symbol, ' font-size="18"')]
    shape = (
        f'<rect x="{part.left:.1f}" y="{part.y - 13:.1f}" width="{part.size.width:.1f}" '
        f'height="26" rx="{5 if box.kind == "call" else 13}" {style}>{title}</rect>'
    )
    return [shape, _text(part.x, part.y + 4, box.symbol)]
