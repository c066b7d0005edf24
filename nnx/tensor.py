"""Tensors and Parameters: arrays that remember how they were computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import asarray, moved, placed, read, to_numpy
from .backend import NUMBERS, Array, Backend, backend_of, load_backend
from .errors import DtypeError, ShapeError, StateError
from .op import Op
from .operators import Operators
from .scalar import SCALARS

if TYPE_CHECKING:
    from .flat import Flat
    from .tape import Node

Hook = Callable[[Any], Any]
READING = "reading a Tensor's values (float, int, bool, item, print)"


class Tensor(Operators):
    """An array that remembers how it was computed.

    data            nested lists (float32), or an array of any backend, which is shared
    requires_grad   whether `backward()` leaves a gradient in `.grad`; float dtypes only
    dtype           a name such as "float64"; by default the data's own

    Python operators, indexing and every function of nnx work on it.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_hooks",
        "_index",
        "_node",
        "_version",
        "grad",
        "requires_grad",
    )
    __array_ufunc__ = None  # so that `ndarray * Tensor` is a Tensor
    slot: Array | None = None  # a Parameter may have a place for its gradient
    _data: Array
    _node: Node | None
    _hooks: list[Hook] | None
    _index: int
    _version: int
    grad: Array | None
    requires_grad: bool

    def __init__(self, data: Any, requires_grad: bool = False, *, dtype: str | None = None) -> None:
        data = data._data if isinstance(data, Tensor) else data
        if dtype is not None or isinstance(data, (list, tuple, np.generic, *NUMBERS)):
            data = asarray(data, dtype)
        self._init(data, requires_grad)
        if requires_grad and "float" not in self.backend.dtype_name(data):
            raise DtypeError(
                f"requires_grad needs a float dtype, got {self.backend.dtype_name(data)}; "
                f"write nnx.Tensor(data, requires_grad=True, dtype='float32')"
            )

    def _init(
        self, data: Array, requires_grad: bool, node: Node | None = None, index: int = 0
    ) -> Tensor:
        self._data, self.requires_grad, self.grad = data, requires_grad, None
        self._node, self._index, self._version, self._hooks = node, index, 0, None
        return self

    @classmethod
    def __nnx_op__(cls, op: Op[...], args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
        return tape.record(op, args, attrs)

    @property
    def __nnx_data__(self) -> Array:
        return self._data

    @property
    def data(self) -> Array:
        """The bare array. Assigning writes into it, so whoever shares it sees the new values."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        backend = self.backend
        value = placed(value, backend, how="assigning to .data")
        if tuple(value.shape) != self.shape or value.dtype != self._data.dtype:
            raise ShapeError(
                f"data is {self.shape} {backend.dtype_name(self._data)}, the new value is "
                f"{tuple(value.shape)} {backend.dtype_name(value)}; they must agree"
            )
        if self._node is not None:
            raise StateError("data of a computed Tensor cannot change; write t.detach() first")
        self._data = backend.write(self._data, value)
        self._version += 1

    @property
    def shape(self) -> tuple[int, ...]:
        return () if type(self._data) in NUMBERS else tuple(self._data.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        n = 1
        for s in self.shape:
            n *= s
        return n

    @property
    def dtype(self) -> Any:
        return type(self._data) if type(self._data) in NUMBERS else self._data.dtype

    @property
    def backend(self) -> Backend:
        return SCALARS if type(self._data) in NUMBERS else backend_of(self._data)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user, not computed by an op."""
        return self._node is None

    def detach(self) -> Tensor:
        """The same data without its history."""
        return tensor(self._data)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values on the host."""
        return to_numpy(self._data)

    def item(self) -> int | float | bool:
        """The value of a Tensor of one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() needs one element, the shape is {self.shape}")
        value: int | float | bool = read(self._data, READING).reshape(()).item()
        return value

    def to(self, backend: str) -> Tensor:
        """This Tensor on another backend or device; gradients flow back across."""
        target = load_backend(backend)
        if target.owns(self._data):
            return self
        made: Tensor = tape.move(self, backend=target)
        return made if made._node is not None else made._init(made._data, self.requires_grad)

    def backward(
        self, dout: Any = None, *, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add d(self)/d(leaf) to `.grad` of every leaf that requires it.

        dout           gradient of the result with respect to this Tensor; 1 for a scalar
        retain_graph   keep what derivatives read, so that backward can run again
        create_graph   record the derivatives too: `.grad` becomes a Tensor with a history
        """
        if not self.requires_grad:
            raise StateError(
                "backward() on a Tensor that does not require a gradient: it was computed under "
                "no_grad(), or no input had requires_grad=True"
            )
        found = backward.gradients(self, dout, retain_graph=retain_graph, create_graph=create_graph)
        for leaf, g in found.values():
            backward.accumulate_into(leaf, g, create_graph)

    def take_gradient(self, g: Array) -> None:
        """Keep a copy of g as `.grad`: the array itself may be another Tensor's too."""
        self.grad = backend_of(g).copy(g)

    def register_hook(self, hook: Hook) -> Callable[[], None]:
        """Call `hook(grad)` when this Tensor's gradient is complete; what it returns replaces it.

        Returns a function that removes the hook.
        """
        if self._node is None:
            hooks = self._hooks = self._hooks or []
        else:
            by_output = self._node.hooks = self._node.hooks or {}
            hooks = by_output.setdefault(self._index, [])
        hooks.append(hook)
        return lambda: hooks.remove(hook)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("a 0-d Tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        values = read(self._data, READING)
        return f"{type(self).__name__}({values!r}, backend={self.backend.name!r}{grad})"

    def _repr_html_(self) -> str:
        from .html import of_tensor

        return of_tensor(self)

    def __reduce__(self) -> Any:
        """Pickled as NumPy values, so that a GPU's Tensor loads where there is none."""
        return _rebuild, (type(self), self.numpy(), self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise StateError("only a leaf Tensor can be copied; write t.detach() first")
        made = memo[id(self)] = type(self).__new__(type(self))
        made._init(self.backend.copy(self._data), self.requires_grad)
        return made


class Parameter(Tensor):
    """A Tensor that a layer learns. `requires_grad = False` freezes it.

    An optimizer lays its parameters side by side in one buffer (`nnx.flat`): `data` and `grad` are
    then views. Values stay, and an array that somebody else holds stays where it is.

    flat, place   the buffer and this parameter's number in it; None where it lies by itself
    slot          where in the buffer of gradients its own belongs
    """

    __slots__ = ("flat", "place", "slot")
    flat: Flat | None
    place: int
    slot: Array | None

    def __init__(self, data: Any, requires_grad: bool = True, *, dtype: str | None = None) -> None:
        super().__init__(data, requires_grad, dtype=dtype)

    def _init(
        self, data: Array, requires_grad: bool, node: Node | None = None, index: int = 0
    ) -> Tensor:
        self.flat = self.slot = None
        return super()._init(data, requires_grad, node, index)

    def settle(self, data: Array, flat: Flat, place: int) -> None:
        """Lie in that buffer from now on, where `data` has the values already."""
        self._data, self.flat, self.place = data, flat, place
        self.slot = flat.view(flat.grads, place, self.shape)

    def move(self, backend: Backend, dtype: str | None = None) -> None:
        """Take an array of that backend or dtype; the Parameter stays the same object."""
        data = asarray(moved(self._data, backend), dtype, backend=backend)
        if data is not self._data:
            self._data, self.flat, self.slot = data, None, None
        if self.grad is not None:
            self.grad = asarray(moved(self.grad, backend), dtype, backend=backend)
        self._version += 1

    def update(self, data: Array) -> None:
        """Take what an update kernel has written: backward through older uses is an error now."""
        self._data = data
        self._version += 1

    def take_gradient(self, g: Array) -> None:
        """Into the buffer, unless somebody still holds the gradient that lies there."""
        flat = self.flat
        if flat is None or shared(self, "slot") or not _fits(flat, g, self):
            super().take_gradient(g)
        else:
            self.grad = backend_of(g).write(self.slot, g)


def _fits(flat: Flat, g: Array, p: Parameter) -> bool:
    return bool(flat.backend.owns(g) and g.shape == p._data.shape and g.dtype == p._data.dtype)


def shared(owner: Any, name: str, times: int = 1) -> bool:
    """Whether anybody but `owner`, which has it so many times, holds what is in that attribute."""
    return sys.getrefcount(getattr(owner, name)) > _ONE_HOLDER + times - 1


class _Owner:
    def __init__(self) -> None:
        self.held = object()


_ONE_HOLDER = 0
while shared(_Owner(), "held"):  # how many references the count itself adds is the interpreter's
    _ONE_HOLDER += 1


def tensor(
    data: Array, requires_grad: bool = False, node: Node | None = None, index: int = 0
) -> Tensor:
    """A Tensor of that array: as the constructor, with a history and without checks."""
    t = _new(Tensor)
    t._data, t.requires_grad, t.grad, t._node, t._index = data, requires_grad, None, node, index
    t._version, t._hooks = 0, None
    return t


_new = Tensor.__new__


def _rebuild(cls: type[Tensor], data: np.ndarray[Any, Any], requires_grad: bool) -> Tensor:
    return cls(asarray(np.array(data)), requires_grad)  # in memory of its own


def leaf(data: Array) -> Tensor:
    """A leaf that requires a gradient, of any dtype: the notebook differentiates ints."""
    return tensor(data, True)


from . import backward, tape  # noqa: E402 - the two need each other: Tensors record, the tape gives Tensors
