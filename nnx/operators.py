"""Python's operators and the usual methods on Tensors: each is a function of nnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tensor import Tensor

Axis = int | tuple[int, ...] | None


class Operators:
    """Mixed into Tensor."""

    __slots__ = ()
    __hash__ = object.__hash__

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError  # Tensor has it

    def __add__(self, other: Any) -> Tensor:
        return _call("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _call("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _call("subtract", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _call("subtract", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _call("multiply", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _call("multiply", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _call("divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _call("divide", other, self)

    def __pow__(self, other: Any) -> Tensor:
        return _call("pow", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _call("pow", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return _call("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return _call("matmul", other, self)

    def __neg__(self) -> Tensor:
        return _call("negative", self)

    def __pos__(self) -> Tensor:
        return self  # type: ignore[return-value]

    def __abs__(self) -> Tensor:
        return _call("abs", self)

    def __invert__(self) -> Tensor:
        return _call("logical_not", self)

    def __and__(self, other: Any) -> Tensor:
        return _call("logical_and", self, other)

    def __or__(self, other: Any) -> Tensor:
        return _call("logical_or", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return _call("less", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _call("less_equal", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _call("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _call("greater_equal", self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _call("equal", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _call("not_equal", self, other)

    def __getitem__(self, index: Any) -> Tensor:
        return _call("getitem", self, _bare(index))

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return _call("sum", self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return _call("mean", self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return _call("max", self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return _call("min", self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        return _call(
            "reshape", self, shape[0] if len(shape) == 1 and type(shape[0]) is tuple else shape
        )

    def astype(self, dtype: Any) -> Tensor:
        return _call("astype", self, dtype)

    @property
    def T(self) -> Tensor:
        """All axes reversed, as `numpy.ndarray.T`."""
        return _call("permute_dims", self, tuple(reversed(range(len(self.shape)))))


def _bare(index: Any) -> Any:
    """Tensors of ids as their arrays: an index is an attribute of the op, not an argument."""
    if isinstance(index, tuple):
        return tuple(_bare(part) for part in index)
    return getattr(index, "__nnx_data__", index)


def _call(name: str, *args: Any, **attrs: Any) -> Tensor:
    made: Tensor = getattr(TAPE_NAMESPACE, name)(*args, **attrs)
    return made


from .higher import TAPE_NAMESPACE  # noqa: E402 - the namespace gives Tensors, which have operators
