"""What a layer is: parameters, and a forward written out of ops and other layers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..backend import load_backend, recording
from ..buffer import Buffer
from ..errors import NnxError, OptionError, StateError
from ..flat import pack, returning
from ..tensor import Parameter, Tensor
from . import explicit
from .state import load_state

if TYPE_CHECKING:
    from .summary import Summary

FLOATS = ("float16", "float32", "float64")
_running: ContextVar[bool] = ContextVar("nnx_layer_running", default=False)


class Layer:
    """A function with parameters. Subclass it and write `forward` out of ops and layers:

        class Scale(nnx.layers.Layer):
            def __init__(self, n):
                self.W = nnx.Parameter(nnx.init.ones((n,)), dtype="float32")
            def forward(self, x):
                return x * self.W

    Parameters, Buffers and layers are found in attributes, and in lists, tuples and dicts of these.

    On Tensors, `layer(x)` records: call `.backward()` on the loss. On bare arrays it runs on a
    tape of its own: `y = layer.forward(x)`, then `dx = layer.backward(dout)`, which leaves each
    parameter's gradient in its `.grad`. `layer(x)` and `layer.forward(x)` are the same.

    constants   names of forward's arguments that are not differentiated (targets, class ids)
    training    True after `train()`, False after `eval()`, in which nothing is kept for backward
    """

    constants: ClassVar[tuple[str, ...]] = ()
    training: bool = True
    _record: explicit.Record | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        owner = next(c for c in cls.__mro__ if "forward" in c.__dict__)
        if owner is cls or not issubclass(owner, Layer):  # a mix-in's forward is not yet wrapped
            cls.forward = _outermost(owner.__dict__["forward"])  # type: ignore[method-assign]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's output. Subclasses define it."""
        raise StateError(
            f"{type(self).__name__} has no forward; define `def forward(self, x): ...`"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def backward(self, dout: Any = 1) -> Any:
        """Gradients of the last `forward` on bare arrays: one per input, a tuple where several.

        dout   gradient of the result with respect to forward's output, of its shape and dtype; a
               Python number stands for an array full of it

        Each parameter's `.grad` is overwritten. Raises StateError before a forward.
        """
        try:
            return explicit.backward(self, self._record, dout)
        except NnxError as error:
            _name(error, self)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        now = vars(self).get(name)
        if isinstance(now, (Parameter, Buffer)) and not (
            value is None or isinstance(value, (Parameter, Buffer))
        ):
            layer, kind = type(self).__name__, type(now).__name__
            raise StateError(
                f"{layer}.{name} is a {kind}, and a {type(value).__name__} in its place would not "
                f"be learned or saved; write its values, layer.{name}.data = array (or "
                f"layer.{name}.data -= lr * layer.{name}.grad), or assign nnx.{kind}(array)"
            )
        super().__setattr__(name, value)

    def children(self) -> Iterator[tuple[str, Any]]:
        """Names with the Parameters, Buffers, Layers and containers that are searched for them."""
        return ((k, v) for k, v in vars(self).items() if k != "_record")

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """This layer (named "") and all layers in it, each once."""
        return ((name, x) for name, x in _walk("", self, set()) if isinstance(x, Layer))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Names ("0.W") with Parameters, each once: a shared one has its first name."""
        return ((name, x) for name, x in _walk("", self, set()) if isinstance(x, Parameter))

    def parameters(self) -> list[Parameter]:
        """All Parameters, each once."""
        return [p for _, p in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Names ("1.mean") with Buffers, each once: what is kept and not learned."""
        return ((name, x) for name, x in _walk("", self, set()) if isinstance(x, Buffer))

    def buffers(self) -> list[Buffer]:
        """All Buffers, each once."""
        return [b for _, b in self.named_buffers()]

    def named_state(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        """Names with Parameters and Buffers, as they stand in the state dict."""
        return ((n, x) for n, x in _walk("", self, set()) if isinstance(x, (Parameter, Buffer)))

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters():
            p.grad = None

    def train(self, mode: bool = True) -> Self:
        """Training mode for this layer and all in it (dropout drops, batch norm takes the batch's
        statistics); returns the layer."""
        for _, layer in self.named_layers():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Evaluation mode: dropout passes, batch norm takes its running statistics, nothing is
        kept for backward; returns the layer."""
        return self.train(False)

    def to(self, backend: str) -> Self:
        """Move parameters and buffers to that backend ("cupy", "cupy:1"); the objects stay.

        All or none: where a device has no memory for them, they are where they were.
        """
        target = load_backend(backend)
        return self._move(lambda p: p.move(target))

    def astype(self, dtype: str) -> Self:
        """Cast parameters, and buffers of floats, to that float dtype; the objects stay."""
        if dtype not in FLOATS:
            raise OptionError(f"astype({dtype!r}): parameters are {', '.join(FLOATS)}")
        return self._move(lambda p: p.move(p.backend, dtype))

    def _move(self, move: Callable[[Parameter | Buffer], None]) -> Self:
        """All or none. Parameters that lay side by side do so again."""
        packed = [p for p in self.parameters() if p.flat is not None]
        state = [x for _, x in self.named_state()]
        back = [returning(x) for x in state]
        try:
            for x in state:
                move(x)
            pack(packed)
        except BaseException:
            for put_back in back:
                put_back()
            raise
        return self

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of parameters and buffers as NumPy arrays, by name; they load on any backend."""
        return {name: np.array(x.numpy()) for name, x in self.named_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take parameters and buffers from `state`; StateError lists all keys that do not fit."""
        load_state(self, state)

    def summary(self, input_shape: tuple[int, ...] | None = None) -> Summary:
        """A table of layers: parameters, their bytes, whether they are trained, and the output's
        shape where `input_shape`, that of one input without the batch, is given.

        It is a string; a notebook shows it as a table.
        """
        from .summary import summary

        return summary(self, input_shape)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k}={v.shape}" for k, v in self.children() if isinstance(v, Parameter))
        return f"{type(self).__name__}({shapes})"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_record"}


def _walk(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Depth first, without recursion into the same object twice."""
    if isinstance(value, (Parameter, Buffer, Layer)):
        if id(value) in seen:
            return
        seen.add(id(value))
        yield name, value
    if isinstance(value, Layer):
        inner: Any = value.children()
    elif isinstance(value, (list, tuple)):
        inner = ((str(i), v) for i, v in enumerate(value))
    elif isinstance(value, dict):
        inner = ((str(k), v) for k, v in value.items())
    else:
        return
    for key, v in inner:
        yield from _walk(f"{name}.{key}" if name else key, v, seen)


def _outermost(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let the outermost forward on bare arrays run on a private tape."""

    @functools.wraps(forward)
    def run(self: Layer, *args: Any, **kwargs: Any) -> Any:
        try:
            recorder = recording()
            if recorder is not None:
                recorder.entered(self)
            if _running.get():
                return forward(self, *args, **kwargs)
            token = _running.set(True)
            try:
                if _has_tensor(args) or (kwargs and _has_tensor(kwargs.values())):
                    return forward(self, *args, **kwargs)
                return explicit.forward(self, forward, args, kwargs)
            finally:
                _running.reset(token)
        except NnxError as error:
            _name(error, self)
            raise

    return run


def _has_tensor(values: Iterable[Any]) -> bool:
    for v in values:  # noqa: SIM110 - on every call, where a generator costs more than the look
        if isinstance(v, Tensor) or (type(v) in (list, tuple) and _has_tensor(v)):
            return True
    return False


def _name(error: NnxError, layer: Layer) -> None:
    """Name the innermost layer, on one line."""
    if error.layer is None:
        error.layer = repr(layer).partition("\n")[0]
