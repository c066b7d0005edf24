"""From the tape to a graph as words."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..backend import NUMBERS
from ..backward import of_edges, recorded_calls
from ..tape import Edge, Node
from ..tensor import Tensor
from . import labels
from .graph import SYMBOLS, Arrow, Box, Graph, Value
from .known import UNKNOWN, Key, argument, known, outputs
from .names import Names

OFTEN = 4  # a leaf that is used more often has a box for each use
FREED = (
    "Gradients inside are not known: backward() has freed what derivatives read. Those of leaves "
    "are their .grad. Draw before backward(), or call backward(retain_graph=True)."
)
CHANGED = (
    "Some values and gradients are not known: parameters have changed since. Draw before the "
    "optimizer's step."
)


def trace(root: Tensor, dout: Any, names: Names, limit: int) -> Graph:
    """The last `limit` calls that led to a computed Tensor, with values and gradients."""
    calls = recorded_calls(root)
    tracer = _Tracer(root, dout, calls[:limit], names)
    graph = tracer.graph
    for node in reversed(calls[:limit]):
        tracer.call(node)
    graph.result = (tracer.places[id(root._node), root._index], root._index)
    left = len(calls) - limit
    if left > 0:
        graph.notes.append(f"Earlier calls are left out: {left:,}. limit={len(calls)} draws all.")
    return graph


class _Tracer:
    """Makes boxes and arrows, call by call; `places` are the boxes of values made so far."""

    def __init__(self, root: Tensor, dout: Any, calls: list[Node], names: Names) -> None:
        self.graph, self.names, self.count = Graph(), names, 0
        self.places: dict[Any, int] = {}
        self.uses, self.gradients = of_edges(root, dout, calls, labels.gradient)
        self.values = known(calls[::-1], root)
        edges = [e for node in calls for e in node.edges if e is not None]
        self.often = Counter(map(_key, edges))
        self.shapes = {_key(e): e[2] for e in edges}
        freed = any(node.kept is None for node in calls)
        changed = any(e[0]._version != e[3] for e in edges)
        self.graph.notes += [FREED] if freed else [CHANGED] if changed else []
        if freed or changed:
            self._take_grads(edges)

    def _take_grads(self, edges: list[Edge]) -> None:
        """What an earlier backward left in leaves, where none could be found."""
        for e in edges:
            grad = e[0].grad if isinstance(e[0], Tensor) else None
            if grad is not None and _key(e) not in self.gradients:
                self.gradients[_key(e)] = label = labels.gradient(grad)
                if self.often[_key(e)] == 1:
                    self.uses[id(e)] = label

    def call(self, node: Node) -> None:
        """Its box, after those of its arguments, and the arrows between."""
        sources: list[tuple[int, int, str]] = []
        for i, edge in enumerate(node.edges):
            if edge is not None:
                place, output = self._source(edge, _argument_name(node, i))
                sources.append((place, output, self.uses.get(id(edge), "")))
            else:
                data = argument(node, i, self.values)
                if not (data is None or (data is UNKNOWN and _optional(node, i))):
                    sources.append((self._constant(data, _argument_name(node, i)), 0, ""))
        spelt = [self.graph.value(place, output).name for place, output, _ in sources]
        call = f"{node.op.name}({', '.join([*spelt, *_options(node)])})"
        symbol = SYMBOLS.get(node.op.name, node.op.name)
        place = self._box(Box("call", symbol, self._results(node), call))
        for i in range(outputs(node)):
            self.places[id(node), i] = place
        self.graph.arrows += [Arrow(source, out, place, g) for source, out, g in sources]

    def _results(self, node: Node) -> list[Value]:
        self.count += 1
        base = f"v{self.count}"
        if node.outputs is None:
            return [self._value((id(node), 0), base)]
        return [self._value((id(node), i), f"{base}[{i}]") for i in range(outputs(node))]

    def _value(self, key: Key, base: str) -> Value:
        data = self.values.get(key, UNKNOWN)
        about = labels.value(data) if data is not UNKNOWN else (self._shape(key),)
        return Value(self.names.of(key) or self.names.new(base), about, self.gradients.get(key, ""))

    def _shape(self, key: Key) -> str:
        """Of a value that nothing kept; that of the result is known."""
        shape = self.shapes.get(key)
        return "not used" if shape is None else labels.shape(shape) if shape else "?"

    def _source(self, edge: Edge, base: str) -> tuple[int, int]:
        """The box and the output that an edge comes from."""
        key, leaf = _key(edge), isinstance(edge[0], Tensor)
        if key in self.places:
            place, box = self.places[key], self.graph.boxes[self.places[key]]
            if box.kind == "leaf" and self.often[key] > OFTEN:
                place = self._box(box)
            return place, edge[1] if box.kind == "call" else 0
        value = self._value(key, base if leaf else "cut")
        self.places[key] = self._box(
            Box("leaf", value.name, [value]) if leaf else Box("cut", "...", [value])
        )
        return self.places[key], 0

    def _constant(self, data: Any, base: str) -> int:
        """The box of an argument that takes no gradient, one for each use."""
        if data is UNKNOWN:
            return self._box(Box("number", "constant", [Value("?", ("?",))]))
        about = labels.value(data)
        if type(data) in NUMBERS:
            return self._box(Box("number", "constant", [Value(about[0], about)]))
        if id(data) in self.places:
            return self._box(self.graph.boxes[self.places[id(data)]])
        name = self.names.of(id(data)) or self.names.new(base)
        self.places[id(data)] = self._box(Box("constant", name, [Value(name, about)]))
        return self.places[id(data)]

    def _box(self, box: Box) -> int:
        self.graph.boxes.append(box)
        return len(self.graph.boxes) - 1


def _key(edge: Edge) -> Key:
    return id(edge[0]), edge[1]


def _argument_name(node: Node, i: int) -> str:
    """The kernel's name for it, without a number at its end."""
    arrays = node.op.signature.arrays
    return arrays[0 if node.op.signature.variadic else i].rstrip("0123456789") or "x"


def _optional(node: Node, i: int) -> bool:
    return not node.op.signature.variadic and i >= node.op.signature.required


def _options(node: Node) -> list[str]:
    """The attributes that are not as they are by default."""
    given = {k: labels.option(v) for k, v in node.attrs.items()}
    usual = {k: labels.option(v) for k, v in node.op.signature.defaults.items()}
    return [f"{k}={v}" for k, v in given.items() if usual.get(k) != v]
