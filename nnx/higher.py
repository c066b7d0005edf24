"""Higher orders: derivative kernels run on Tensors, through a namespace made of nnx's own ops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .backend import Backend, backend_of, get_backend
from .errors import DtypeError
from .op import REGISTRY
from .scalar import SCALARS

if TYPE_CHECKING:
    from .tape import Edge, Node


class Reader:
    """What a derivative reads, as Tensors with their history, for derivatives that are recorded."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.again: tuple[Any, dict[str, Any]] | None = None

    def read(self, name: str) -> Any:
        node = self.node
        kept = node.kept or {}
        if name in node.op.signature.attributes:
            return node.attrs[name] if name in node.attrs else node.op.signature.defaults[name]
        if name in node.op.signature.arrays:
            return self._argument(name)
        if name == "y":
            if "y" not in kept:
                return self._again()[0]
            y = kept["y"]
            if type(y) is tuple:
                return tuple(tensors.tensor(v, True, node, i) for i, v in enumerate(y))
            return tensors.tensor(y, True, node)
        if node.plan.portable and name in kept and is_constant(kept[name]):
            return kept[name]
        return self._again()[1][name]

    def _argument(self, name: str) -> Any:
        node = self.node
        data = (node.kept or {}).get(name)  # an optional argument that was left out: None
        if node.op.signature.variadic:
            return tuple(_revive(d, e) for d, e in zip(data or (), node.edges, strict=True))
        i = node.op.signature.arrays.index(name)
        return _revive(data, node.edges[i] if i < len(node.edges) else None)

    def _again(self) -> tuple[Any, dict[str, Any]]:
        """The portable forward once more, recorded, for extras with a history."""
        if self.again is None:
            node = self.node
            names = node.op.signature.arrays
            variadic = node.op.signature.variadic
            args = self._argument(names[0]) if variadic else map(self._argument, names)
            got = recorded_call(node.backend)(node.op.forward, tuple(args), node.attrs)
            with_extras = type(got) is tuple and len(got) == 2 and type(got[1]) is dict
            again: tuple[Any, dict[str, Any]] = got if with_extras else (got, {})
            self.again = again
            return again
        return self.again


def _revive(data: Any, edge: Edge | None) -> Any:
    if edge is None:
        return tensors.tensor(data) if hasattr(data, "shape") else data
    source, index, _, _ = edge
    if isinstance(source, tensors.Tensor):
        return source
    return tensors.tensor(data, True, source, index)


def is_constant(extra: Any) -> bool:
    """Shapes, sizes, axes (and a dtype in a tuple): higher orders read them as they are."""
    return isinstance(extra, (int, float, str, tuple, list, type(None)))


class TapeNamespace:
    """The Array API on Tensors: nnx's own ops, and functions whose derivative is zero."""

    constant = frozenset(
        """all any arange argmax argmin asarray ceil equal eye floor full full_like greater
        greater_equal isfinite isinf isnan less less_equal logical_and logical_not logical_or
        not_equal ones ones_like round sign zeros zeros_like""".split()  # noqa: SIM905 - readable
    )

    def __init__(self, backend: Backend | None = None) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        found = self._find(name)
        setattr(self, name, found)
        return found

    def _find(self, name: str) -> Any:
        for key, op in REGISTRY.items():
            if op.name == name and key.startswith("nnx.ops."):
                return op
        if name in self.constant:
            return lambda *args, **attrs: self._constant(name, args, attrs)
        fitting = self._backend or get_backend()
        if hasattr(fitting.xp, name) and not callable(getattr(fitting.xp, name)):
            return getattr(fitting.xp, name)
        raise DtypeError(
            f"{name} is neither an op of nnx nor piecewise constant: it has no derivative"
        )

    def _constant(self, name: str, args: Any, attrs: Any) -> tensors.Tensor:
        bare = [a._data if isinstance(a, tensors.Tensor) else a for a in args]
        arrays = [a for a in bare if hasattr(a, "shape")]
        backend = backend_of(arrays[0]) if arrays else self._backend or SCALARS
        f = getattr(backend.xp, name)
        return tensors.tensor(
            backend.result(backend.call(lambda xp, *a, **k: f(*a, **k), bare, attrs))
        )


TAPE_NAMESPACE = TapeNamespace()
_namespaces: dict[Backend, TapeNamespace] = {}


def recorded_call(backend: Backend) -> Any:
    """Runs kernels of that backend's arrays on Tensors."""
    namespace = _namespaces.setdefault(backend, TapeNamespace(backend))
    return lambda kernel, args, attrs: kernel(namespace, *args, **attrs)


from . import tensor as tensors  # noqa: E402 - Tensors have operators, which this module gives
