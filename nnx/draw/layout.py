"""Where the parts of a picture go: boxes in columns from left to right, arrows between them.

A box stands as many columns left of the end as its longest way there has steps. An arrow's label is
a part of its own in a column between, so that no two labels meet; where an arrow passes a column it
has a point there. In each column the parts keep an order, found by a walk back from the end, and
their heights are those that bend the arrows least (isotonic regression, Barlow et al. 1972).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

GAP = 10.0  # between parts of a column
BETWEEN = 24.0  # between columns
SWEEPS, MOVES = 200, 400_000  # passes over all parts, and how often parts are moved at most
STRAIGHT, LEVEL, SLACK = 1000.0, 100.0, 1.0  # how little an arrow is bent: see _joined


@dataclass(frozen=True)
class Size:
    """Width, and how far a part reaches above and below the height of its arrows."""

    width: float
    up: float
    down: float


@dataclass(eq=False)
class Part:
    """A box, a label or a point.

    x, y        its middle, once placed
    near, far   where its column begins and ends; arrows are level between
    joined      what it is joined to, and how strongly
    before      those from which arrows come
    """

    column: int
    size: Size
    x: float = 0.0
    y: float = 0.0
    near: float = 0.0
    far: float = 0.0
    joined: list[tuple[Part, float]] = field(default_factory=list)
    before: list[Part] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.x - self.size.width / 2

    @property
    def right(self) -> float:
        return self.x + self.size.width / 2


@dataclass(frozen=True)
class Layout:
    """The boxes; for each arrow its points and, last, its label; the whole picture's size."""

    boxes: list[Part]
    arrows: list[list[Part]]
    width: float
    height: float


def layout(sizes: Sequence[Size], arrows: Sequence[tuple[int, int, Size]]) -> Layout:
    """Place boxes of these sizes, joined by arrows (from, to, the label's size).

    An arrow leads to a box later in the list; the last box is the end, to which all others lead.
    """
    steps, depth = [0] * len(sizes), [0] * len(sizes)
    forwards = sorted(arrows, key=lambda arrow: arrow[1])
    for a, b, _ in forwards:
        depth[b] = max(depth[b], depth[a] + 1)
    for a, b, _ in reversed(forwards):
        steps[a] = max(steps[a], steps[b] + 1)
    boxes = [Part(2 * (max(steps) - s), size) for s, size in zip(steps, sizes, strict=True)]
    spines = _spines(arrows, depth)
    ways = [
        _joined(boxes[a], boxes[b], label, STRAIGHT if i in spines else SLACK)
        for i, (a, b, label) in enumerate(arrows)
    ]
    columns = _columns(boxes[-1])
    _heights(columns)
    width = _widths(columns)
    parts = [part for column in columns for part in column]
    top = min(p.y - p.size.up for p in parts)
    for p in parts:
        p.y -= top
    return Layout(boxes, ways, width, max(p.y + p.size.down for p in parts))


def _spines(arrows: Sequence[tuple[int, int, Size]], depth: list[int]) -> set[int]:
    """For each box the arrow to it from the longest chain, which is to be straight."""
    best: dict[int, int] = {}
    for i, (a, b, _) in enumerate(arrows):
        if b not in best or depth[a] > depth[arrows[best[b]][0]]:
            best[b] = i
    return set(best.values())


def _joined(a: Part, b: Part, label: Size, weight: float) -> list[Part]:
    """Points in the columns between the two boxes; the label is in the last.

    An arrow on the longest way is straight, any other level along its points.
    """
    way = [Part(column, Size(0, 2, 2)) for column in range(a.column + 1, b.column - 1)]
    way.append(Part(b.column - 1, label))
    for p, q in zip([a, *way], [*way, b], strict=True):
        strength = weight if p is a or q is b else max(weight, LEVEL)
        p.joined.append((q, strength))
        q.joined.append((p, strength))
        q.before.append(p)
    return way


def _columns(end: Part) -> list[list[Part]]:
    """All parts by column, in the order of a walk back from the end that enters arguments in
    their order: the arrows of a tree do not cross.
    """
    columns: list[list[Part]] = [[] for _ in range(end.column + 1)]
    seen, stack = {id(end)}, [end]
    while stack:
        part = stack.pop()
        columns[part.column].append(part)
        for p in reversed(part.before):
            if id(p) not in seen:
                seen.add(id(p))
                stack.append(p)
    return columns


def _heights(columns: list[list[Part]]) -> None:
    """Each part moves to the mean height of those it is joined to, as far as its column allows."""
    for column in columns:
        _settle(column, [0.0] * len(column), [1.0] * len(column))
    for sweep in range(max(2, min(SWEEPS, MOVES // sum(map(len, columns))))):
        for column in columns if sweep % 2 else reversed(columns):
            weights = [sum(w for _, w in p.joined) for p in column]
            wanted = [
                sum(q.y * w for q, w in p.joined) / total
                for p, total in zip(column, weights, strict=True)
            ]
            _settle(column, wanted, weights)


def _settle(column: list[Part], wanted: list[float], weights: list[float]) -> None:
    """The heights nearest to the wanted ones that keep the order and the distances.

    Less the distances they must not fall: neighbours that would are given their common mean.
    """
    shift, shifts = 0.0, [0.0]
    for p, q in itertools.pairwise(column):
        shift += p.size.down + GAP + q.size.up
        shifts.append(shift)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for want, s, weight in zip(wanted, shifts, weights, strict=True):
        mean, count = want - s, 1
        while blocks and blocks[-1][0] > mean:
            other, mass, many = blocks.pop()
            mean = (other * mass + mean * weight) / (mass + weight)
            weight, count = mass + weight, count + many
        blocks.append((mean, weight, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for p, mean, s in zip(column, means, shifts, strict=True):
        p.y = mean + s


def _widths(columns: list[list[Part]]) -> float:
    """Set each column's middle; the width of all."""
    x = 0.0
    for column in columns:
        wide = max(p.size.width for p in column)
        for p in column:
            p.near, p.x, p.far = x, x + wide / 2, x + wide
        x += wide + BETWEEN
    return x - BETWEEN
