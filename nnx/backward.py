"""The walk back over the tape. It knows no op: each brings its derivatives."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from . import higher
from .backend import NUMBERS, Backend, backend_of
from .errors import DtypeError, MixedBackendsError, ShapeError, StateError
from .op import vjp
from .scalar import SCALARS
from .tape import Edge, Node, needed
from .tensor import Hook, Tensor, tensor
from .update import update

T = TypeVar("T")


def gradients(
    root: Tensor, dout: Any = None, *, wrt: list[Tensor] | None = None,
    retain_graph: bool = False, create_graph: bool = False,
) -> dict[int, tuple[Tensor, Any]]:  # fmt: skip
    """Cotangents by `id` of the leaf (or of each Tensor of `wrt`): Tensors with create_graph."""
    seed = _seed(root, dout, create_graph)
    targets = {_key(t): t for t in wrt or ()}
    found: dict[tuple[int, int], Any] = {}
    leaves: dict[tuple[int, int], Tensor] = {}
    cotangents: dict[tuple[int, int], Any] = {}
    if root._node is None:
        leaves[_key(root)], found[_key(root)] = root, seed
    else:
        cotangents[_key(root)] = seed
    for node, inward in _order(root, targets if wrt is not None else None):
        dy = _gather(node, cotangents, found, targets, create_graph)
        if dy is None or not inward:
            continue
        for edge, g in _node_vjp(node, dy, create_graph):
            source, index, _, _ = edge
            key, bucket = (id(source), index), cotangents
            if isinstance(source, Tensor):
                leaves[key], bucket = source, found
            bucket[key] = _sum(bucket[key], g) if key in bucket else g
        if not (retain_graph or create_graph):
            node.kept = None
    return {
        id(t): (t, _hooked(t._hooks if t._node is None else None, found[k]))
        for k, t in (leaves if wrt is None else targets).items()
        if k in found
    }


def recorded_calls(root: Tensor) -> list[Node]:
    """The calls that led to it, the last recorded first."""
    return [node for node, _ in _order(root, None)]


def of_edges(
    root: Tensor, dout: Any, nodes: list[Node], read: Callable[[Any], T]
) -> tuple[dict[int, T], dict[tuple[int, int], T]]:
    """What `read` makes of the gradients that `backward` would find in these nodes, the last first.

    First those of each edge, by its `id`: of one use of a value. Then those of each value, by the
    `id` of its node or leaf and its index: of all uses together, hooks applied. Nothing is kept or
    freed. There are none behind a node that was freed, or that read a parameter which has changed.
    """
    cotangents = {_key(root): _seed(root, dout, False)}
    edges, values = dict[int, T](), dict[tuple[int, int], T]()
    leaves: dict[tuple[int, int], Tensor] = {}
    for node in nodes:
        whole: dict[tuple[int, int], Any] = {}
        outputs = {(id(node), i): root for i in range(len(node.outputs or (1,)))}
        dy = _gather(node, cotangents, whole, outputs, False)
        values.update((key, read(g)) for key, g in whole.items())
        try:
            found = [] if dy is None else _node_vjp(node, dy, False)
        except StateError:
            continue
        for edge, g in found:
            edges[id(edge)], key = read(g), (id(edge[0]), edge[1])
            cotangents[key] = _sum(cotangents[key], g) if key in cotangents else g
            if isinstance(edge[0], Tensor):
                leaves[key] = edge[0]
    values.update((k, read(_hooked(leaf._hooks, cotangents[k]))) for k, leaf in leaves.items())
    return edges, values


def _gather(
    node: Node, cotangents: dict[tuple[int, int], Any], found: dict[tuple[int, int], Any],
    targets: dict[tuple[int, int], Tensor], create_graph: bool,
) -> Any:  # fmt: skip
    """The node's gradient, hooks applied; a tuple with zeros for outputs that nobody used."""
    if node.outputs is None and not node.hooks and not targets:  # mostly
        return cotangents.pop((id(node), 0), None)
    count = 1 if node.outputs is None else len(node.outputs)
    dys = [cotangents.pop((id(node), i), None) for i in range(count)]
    if node.hooks:
        dys = [_hooked(node.hooks.get(i), dy) for i, dy in enumerate(dys)]
    for i, dy in enumerate(dys):
        if dy is not None and (id(node), i) in targets:
            found[id(node), i] = dy
    if node.outputs is None:
        return dys[0]
    if all(dy is None for dy in dys):
        return None
    return tuple(
        _zeros(node.backend, shape, dtype, create_graph) if dy is None else dy
        for dy, (shape, dtype) in zip(dys, node.outputs, strict=True)
    )


def _key(t: Tensor) -> tuple[int, int]:
    return (id(t if t._node is None else t._node), t._index)


def _order(root: Tensor, targets: dict[tuple[int, int], Tensor] | None) -> list[tuple[Node, bool]]:
    """The nodes to visit, last recorded first, and whether to go on into their arguments.

    With targets these are the nodes that lead to one; what lies behind the targets stays as it is.
    """
    seen: dict[int, Node] = {}
    stack = [root._node] if root._node is not None else []
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            for edge in node.edges:
                if edge is not None and type(edge[0]) is Node:
                    stack.append(edge[0])
    order = sorted(seen.values(), key=_recorded_at)
    if targets is None:
        return [(node, True) for node in reversed(order)]
    leading, visits = {k[0] for k in targets}, []
    for node in order:
        inward = any(e is not None and id(e[0]) in leading for e in node.edges)
        if inward or id(node) in leading:
            leading.add(id(node))
            visits.append((node, inward))
    return visits[::-1]


_recorded_at = operator.attrgetter("sequence")


def _seed(root: Tensor, dout: Any, create_graph: bool) -> Any:
    data, backend = root._data, root.backend
    given = dout._data if isinstance(dout, Tensor) else dout
    if backend is SCALARS:
        seed = 1 if given is None else given
    elif given is None:
        if root.size != 1:
            raise ShapeError(
                f"backward() without an argument needs a scalar, the Tensor has shape "
                f"{root.shape}; give dout of that shape, or call .sum() or .mean() first"
            )
        seed = _full(root, 1)
    elif type(given) in NUMBERS or isinstance(given, np.generic):
        seed = _full(root, given.item() if isinstance(given, np.generic) else given)
    else:
        if not backend.owns(given):
            raise MixedBackendsError(
                f"backward: dout is not an array of {backend.name!r}, as the output is; "
                f"write nnx.asarray(dout, backend={backend.name!r})"
            )
        if tuple(given.shape) != root.shape:
            raise ShapeError(
                f"backward: dout has shape {tuple(given.shape)}, expected {root.shape}"
            )
        if given.dtype != data.dtype:
            raise DtypeError(
                f"backward: dout is {backend.dtype_name(given)}, the output is "
                f"{backend.dtype_name(data)}; write nnx.asarray(dout, {backend.dtype_name(data)!r})"
            )
        seed = given
    if not create_graph:
        return seed
    return dout if isinstance(dout, Tensor) else tensor(seed)


def _full(root: Tensor, value: int | float | bool) -> Any:
    """An array like the root's, of one value."""

    def full(xp: Any, data: Any) -> Any:
        return xp.full_like(data, value)

    return root.backend.call(full, (root._data,), {})


def _hooked(hooks: list[Hook] | None, g: Any) -> Any:
    if hooks and g is not None:
        with _backend_of(g).on_device():
            for hook in tuple(hooks):
                new = hook(g)
                g = g if new is None else new
    return g


def _backend_of(g: Any) -> Backend:
    if isinstance(g, Tensor):
        return g.backend
    return SCALARS if type(g) in NUMBERS else backend_of(g)


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor):
        return a + b
    backend = _backend_of(a)
    return backend.result(backend.call(accumulate.kernel, (a, b), {}))


def _node_vjp(node: Node, dy: Any, create_graph: bool) -> list[tuple[Edge, Any]]:
    """The node's edges with their gradients."""
    if node.kept is None:
        raise StateError(
            f"backward through {node.op.name} a second time: what it had saved was freed after "
            f"the first; call backward(retain_graph=True) the first time"
        )
    edges, backend = node.edges, node.backend
    for name, i in node.plan.kept:
        for edge in (edges[i],) if i >= 0 else edges:
            if edge is not None and edge[0]._version != edge[3]:
                raise _changed(node, edge, name)
    shapes = [None if e is None else e[2] for e in edges]
    if len(shapes) < len(node.op.signature.arrays):
        shapes += [None] * (len(node.op.signature.arrays) - len(shapes))
    if create_graph:
        wanted = tuple(e is not None for e in edges)
        derivatives = needed(node.op, node.op.derivatives, wanted)
        call, read = higher.recorded_call(backend), higher.Reader(node).read
        found = vjp(node.op, derivatives, call, dy, read, shapes)
        result: Any = _itself
    else:
        read_value = node.kept.__getitem__
        found = vjp(node.op, node.plan.derivatives, backend.call, dy, read_value, shapes)
        result = backend.result
    return [(edge, result(g)) for i, g in found if (edge := edges[i]) is not None]


def _itself(g: Any) -> Any:
    return g


def _zeros(backend: Backend, shape: Any, dtype: Any, create_graph: bool) -> Any:
    zeros = backend.zeros(shape, dtype)
    return tensor(zeros) if create_graph else zeros


def _changed(node: Node, edge: Edge, name: str) -> StateError:
    return StateError(
        f"backward through {node.op.name}: its argument {name!r} (shape {edge[2]}) was "
        f"changed after the forward pass that used it, by an optimizer step or an assignment "
        f"to .data; call backward() before the change"
    )


@update("total")
def accumulate(xp, total, g):  # type: ignore[no-untyped-def]
    """total + g, in place."""
    return total + g


def accumulate_into(t: Tensor, g: Any, create_graph: bool) -> None:
    """Into a buffer of the leaf's own: the gradient may be an array that others hold."""
    if create_graph:
        t.grad = g if t.grad is None else t.grad + g
    elif t.grad is None:
        if type(g) in NUMBERS:
            t.grad = g
        else:
            t.take_gradient(g)
    elif isinstance(t.grad, Tensor):
        t.grad = t.grad + g
    else:
        t.grad = accumulate(t.grad, g) if type(g) not in NUMBERS else t.grad + g
