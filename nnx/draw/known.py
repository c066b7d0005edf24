"""The values in a recorded graph: the tape keeps few, others follow from these."""

from __future__ import annotations

import math
from typing import Any

from ..backend import NUMBERS
from ..tape import Edge, Node
from ..tensor import Tensor

MOST = 1_000_000  # entries that a call may read to be repeated for its value
UNKNOWN: Any = object()
Key = tuple[int, int]  # id of the node or leaf, number of the output


def known(nodes: list[Node], root: Tensor) -> dict[Key, Any]:
    """Values by node or leaf, and output: kept for a derivative, or computed again from such.

    nodes   the calls, the first recorded first

    Calls on large arrays are not repeated; nor are those with an argument that nothing kept, such
    as the 3 in x + 3, and those that were freed by `backward`.
    """
    values: dict[Key, Any] = {}
    if root._node is not None:
        values[id(root._node), root._index] = root._data
    for node in nodes:
        _kept(node, values)
    for node in nodes:
        if not all((id(node), i) in values for i in range(outputs(node))):
            args = [argument(node, i, values) for i in range(len(node.edges))]
            if not any(a is UNKNOWN for a in args) and sum(map(_entries, args)) <= MOST:
                y = node.op.compute(tuple(args), node.attrs)[2]
                for i, part in enumerate(y if node.outputs is not None else (y,)):
                    values.setdefault((id(node), i), part)
    return values


def outputs(node: Node) -> int:
    return 1 if node.outputs is None else len(node.outputs)


def argument(node: Node, i: int, values: dict[Key, Any]) -> Any:
    """A call's i-th argument, UNKNOWN if nothing has it; None where it was left out."""
    edge = node.edges[i]
    if edge is not None:
        return values.get((id(edge[0]), edge[1]), UNKNOWN)
    return _own(node, i)


def _own(node: Node, i: int) -> Any:
    """What the node itself kept of its i-th argument."""
    kept, names = node.kept or {}, node.op.signature.arrays
    if node.op.signature.variadic:
        return kept[names[0]][i] if names[0] in kept else UNKNOWN
    return kept.get(names[i], UNKNOWN)


def _kept(node: Node, values: dict[Key, Any]) -> None:
    for i, edge in enumerate(node.edges):
        if edge is not None:
            data = _of_leaf(edge) if isinstance(edge[0], Tensor) else _own(node, i)
            if data is not UNKNOWN:
                values[id(edge[0]), edge[1]] = data
    y = (node.kept or {}).get("y", UNKNOWN)
    if y is not UNKNOWN and node.op.signature.arrays.count("y") == 0:
        for i, part in enumerate(y if node.outputs is not None else (y,)):
            values[id(node), i] = part


def _of_leaf(edge: Edge) -> Any:
    """Its values, if they are still those that the call read; what was kept has changed with it."""
    source, _, _, version = edge
    return source._data if isinstance(source, Tensor) and source._version == version else UNKNOWN


def _entries(a: Any) -> int:
    return 1 if a is None or type(a) in NUMBERS else math.prod(a.shape)
