"""What an op is: a pure forward kernel with its derivatives beside it, callable on any arrays.

    @op
    def relu(xp, x):
        return xp.maximum(x, 0)

    @relu.d("x")
    def _(xp, dy, y):
        return dy * xp.astype(y > 0, dy.dtype)

Array arguments come first and are positional; attributes are keyword-only, or follow a `/` where
the Array API standard passes them by position (`reshape(x, /, shape)`). After `xp, dy` the names
of a derivative's parameters say what it reads: an argument, an attribute, `y`, or an extra, which
is an entry of the dict that a forward may return beside its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Concatenate, Generic, ParamSpec

import numpy as np

from .backend import NUMBERS, Array, Backend, backend_of, mixed_backends, override_for
from .errors import DtypeError, NnxError, ShapeError
from .scalar import SCALARS
from .signature import Derivative, Kernel, Kernels, signature

P = ParamSpec("P")
_NONE: dict[str, Any] = {}
REGISTRY: dict[str, Op[...]] = {}


def derivative_of(target: Op[...], arguments: tuple[str, ...], kernel: Kernel) -> Derivative:
    arrays, code = target.signature.arrays, kernel.__code__
    if not arguments or not set(arguments) <= set(arrays):
        raise DtypeError(f"{target.name}.d{arguments}: its array arguments are {arrays}")
    positions = tuple(arrays.index(a) for a in arguments)
    return Derivative(arguments, positions, kernel, code.co_varnames[2 : code.co_argcount])


class Op(Generic[P]):
    """A pure function of arrays. Called on arrays it gives arrays; on Tensors it records."""

    def __init__(self, forward: Callable[Concatenate[Any, P], Any]) -> None:
        self.forward: Kernel = forward
        self.name: str = getattr(forward, "__name__", "op")
        self.signature = signature(forward)
        self.derivatives: tuple[Derivative, ...] = ()
        self.differentiable: frozenset[str] = frozenset()  # the other arguments are constants
        self._check: Callable[..., Any] | None = None
        self._resolved: dict[Backend, Kernels] = {}
        self._fitting: set[Any] = set()  # pairs of dtypes that were found to go together
        self.key = f"{forward.__module__}.{self.name}"
        self.__name__ = self.__qualname__ = self.name
        self.__doc__, self.__module__ = forward.__doc__, forward.__module__
        self.__wrapped__ = forward

    def d(self, *arguments: str) -> Callable[[Kernel], Kernel]:
        """Register the derivative kernel for these arguments (several: it returns a tuple)."""

        def define(kernel: Kernel) -> Kernel:
            self.derivatives += (derivative_of(self, arguments, kernel),)
            self.differentiable |= set(arguments)
            self._resolved.clear()
            return kernel

        return define

    def check(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Register `f(backend, *arrays, **attributes)`, which raises what users should read.

        It runs before the kernel, so a kernel stays pure. It looks at shapes and options; a test of
        values it returns as (g, array, *others), and `g(values, *others)` is called where reading
        them does not wait for a device. A replay repeats that call alone.
        """
        self._check = f
        return f

    def __call__(self, *args: P.args, **attrs: P.kwargs) -> Any:
        a: Any
        if self.signature.variadic and len(args) == 1 and isinstance(args[0], (list, tuple)):
            return Op.__call__(self, *args[0], **attrs)
        bound: tuple[Any, Mapping[str, Any]] = (args, attrs)
        if attrs or len(args) != len(self.signature.arrays):
            bound = self.bind(args, attrs)
        for a in bound[0]:
            if type(a) not in _PASSIVE and _takes_over(a):
                return a.__nnx_op__(self, *bound)
        return self.compute(*bound)[2]

    def bind(
        self, args: tuple[Any, ...], attrs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Positional attributes by name: `reshape(x, (2, 3))` is `reshape(x, shape=(2, 3))`."""
        sig = self.signature
        count = len(sig.arrays)
        if sig.variadic:
            count = len(args)
        if len(args) > count:
            attrs = {**dict(zip(sig.attributes, args[count:], strict=False)), **attrs}
            if len(args) > count + len(sig.attributes):
                raise TypeError(f"{self.name}: {len(args)} positional arguments given")
            args = args[:count]
        elif attrs and any(a in sig.arrays for a in attrs):
            attrs = dict(attrs)
            args += tuple(attrs.pop(a, None) for a in sig.arrays[len(args) :])
        if len(args) < sig.required:
            missing = ", ".join(sig.arrays[len(args) : sig.required])
            raise TypeError(f"{self.name}() is missing {missing}")
        for name in attrs:
            if name not in sig.attributes:
                raise TypeError(
                    f"{self.name}() got an unexpected argument {name!r}; it takes "
                    f"{', '.join(sig.arrays + sig.attributes)}"
                )
        return args, attrs

    def compute(
        self, args: tuple[Any, ...], attrs: Mapping[str, Any], alone: bool = True
    ) -> tuple[Backend, Kernels, Any, dict[str, Any]]:
        """Run the forward kernel on bare arrays: backend, its kernels, result, extras.

        alone   no derivative will follow: the extras may be missing
        """
        backend = self._backend(args)
        if backend is None:
            return self.compute(tuple(map(_plain, args)), attrs, alone)
        if self._check is not None:
            test = self._check(backend, *args, **attrs)
            if test is not None and backend.on_host:
                backend.test(*test)
        kernels = self._resolved.get(backend) or self._resolve(backend)
        try:
            y = backend.call(kernels.value if alone else kernels.forward, args, attrs)
        except (ValueError, IndexError, TypeError) as error:
            raise self._explain(error, args, attrs) from error
        extras: dict[str, Any] = _NONE
        if type(y) is tuple:
            if len(y) == 2 and type(y[1]) is dict:
                y, extras = y
            if type(y) is tuple:
                return backend, kernels, tuple(map(backend.result, y)), extras
        return backend, kernels, backend.result(y), extras

    def _backend(self, args: tuple[Any, ...]) -> Backend | None:
        """The backend of the arrays among `args`, which must agree in backend and float width.

        None if there are NumPy scalars among them: they count as Python numbers.
        """
        backend: Backend | None = None
        dtype: Any = None
        for i, a in enumerate(args):
            if type(a) in NUMBERS or a is None:
                continue
            if backend is None:
                if isinstance(a, np.generic):
                    return None
                try:
                    backend, dtype = backend_of(a), a.dtype
                except DtypeError as error:
                    raise DtypeError(
                        f"{self.name}: argument {self._argument(i)!r}: {error}"
                    ) from None
            elif not backend.owns(a):
                if isinstance(a, np.generic):
                    return None
                raise mixed_backends(self.name, backend, a, self._argument(i))
            elif a.dtype != dtype and (backend, dtype, a.dtype, i) not in self._fitting:
                self._check_dtypes(backend, args)
                self._fitting.add((backend, dtype, a.dtype, i))
        return backend or SCALARS

    def _argument(self, i: int) -> str:
        arrays = self.signature.arrays
        return f"{arrays[0]}[{i}]" if self.signature.variadic else arrays[min(i, len(arrays) - 1)]

    def _check_dtypes(self, backend: Backend, args: tuple[Any, ...]) -> None:
        """Differentiable arguments share one dtype; float constants have that width too."""
        smooth = self.differentiable
        names = {
            self._argument(i): backend.dtype_name(a)
            for i, a in enumerate(args)
            if a is not None and type(a) not in NUMBERS
        }
        strict = {n: d for n, d in names.items() if n.partition("[")[0] in smooth or "float" in d}
        if len(set(strict.values())) > 1:
            given = ", ".join(f"{name} is {dtype}" for name, dtype in strict.items())
            raise DtypeError(
                f"{self.name}: {given}; nothing is promoted silently. {self._cast(strict)}"
            )

    def _cast(self, given: dict[str, str]) -> str:
        """How to make the dtypes agree. The first argument is data, as are ints and constants; what
        the others agree in may be a model's.
        """
        first, dtype = next(iter(given.items()))
        odd = [name for name, other in given.items() if other != dtype]
        data = len(odd) < len(given) - 1 or not self.differentiable.issuperset(odd)
        if "float" in dtype and (data or "float" not in given[odd[0]]):
            casts = " and ".join(f"nnx.asarray({name}, {dtype!r})" for name in odd)
            return f"Cast the data with {casts}"
        fits = dtype in ("float16", "float32", "float64")
        model = f", or the model with model.astype({dtype!r})" if fits else ""
        wanted = next(other for other in given.values() if other != dtype)
        return f"Cast the data with nnx.asarray({first}, {wanted!r}){model}"

    def _explain(
        self, error: Exception, args: tuple[Any, ...], attrs: Mapping[str, Any]
    ) -> Exception:
        sig = self.signature
        missing = [a for a in sig.attributes if a not in sig.defaults and a not in attrs]
        if isinstance(error, NnxError):
            return error
        if missing:
            return TypeError(f"{self.name}() is missing {', '.join(missing)}")
        given = ", ".join(
            f"{self._argument(i)}: {_brief(a)}" for i, a in enumerate(args)
        ) + "".join(f", {k}={v!r}" for k, v in attrs.items())
        kind = DtypeError if isinstance(error, TypeError) else ShapeError
        return kind(f"{self.name}({given}): {error}")

    def _resolve(self, backend: Backend) -> Kernels:
        found: Kernels = override_for(backend, self) or Kernels(
            self.forward, self.derivatives, portable=True
        )
        self._resolved[backend] = found
        return found

    def __repr__(self) -> str:
        return f"<op {self.key}>"


_PASSIVE: set[type] = set()  # types that were found to leave an op to itself


def _takes_over(a: object) -> bool:
    if hasattr(a, "__nnx_op__"):
        return True
    _PASSIVE.add(type(a))
    return False


def op(forward: Callable[Concatenate[Any, P], Any]) -> Op[P]:
    """Make an op of a forward kernel and register it under its module and name."""
    made = Op(forward)
    REGISTRY[made.key] = made
    return made


def vjp(
    target: Op[...],
    derivatives: tuple[Derivative, ...],
    call: Callable[[Kernel, Any, Mapping[str, Any]], Any],
    dy: Any,
    read: Callable[[str], Any],
    shapes: list[tuple[int, ...] | None],
) -> Iterator[tuple[int, Any]]:
    """Gradients of an op's arguments, by position, each of its argument's shape.

    derivatives   the kernels to run
    call          runs a kernel: `Backend.call`, or the tape's own for higher orders
    read          the value of a name that a derivative reads
    shapes        the shape of each argument; None where no gradient is wanted
    """
    variadic = target.signature.variadic
    for _, positions, kernel, reads in derivatives:
        grads = call(kernel, (dy, *[read(name) for name in reads]), _NONE)
        if variadic:
            positions = tuple(range(len(shapes)))
        elif len(positions) == 1:
            grads = (grads,)
        for i, g in zip(positions, grads, strict=True):
            shape = shapes[i]
            if shape is not None:
                yield i, g if g.shape == shape else call(_unbroadcast, (g,), {"shape": shape})


def _unbroadcast(xp: Any, g: Array, *, shape: tuple[int, ...]) -> Array:
    """Sum the gradient over the axes along which the argument was repeated."""
    lead = g.ndim - len(shape)
    axes = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 != g.shape[lead + i]))
    return xp.reshape(xp.sum(g, axis=axes, keepdims=True), shape)


def _plain(a: Any) -> Any:
    return a.item() if isinstance(a, np.generic) else a


def _brief(a: Any) -> str:
    shape = getattr(a, "shape", None)
    return repr(a) if shape is None else f"{shape} {str(a.dtype).rpartition('.')[2]}"
