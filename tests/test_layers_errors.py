"""Every error of the layers: it names the layer, what was given, what was expected, the fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnx
from nnx import backend as backend_module
from nnx import layers as L


class Boxed:
    """An array of a library that is not NumPy."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim


class BoxedBackend(nnx.Backend):
    name = "boxed"
    xp = np

    def owns(self, array: object) -> bool:
        return isinstance(array, Boxed)

    def asarray(self, data: Any, dtype: str | None = None) -> Any:
        return Boxed(np.asarray(data.array if isinstance(data, Boxed) else data, dtype))

    def to_numpy(self, array: Any) -> Any:
        return array.array


@pytest.fixture
def boxed(monkeypatch: pytest.MonkeyPatch) -> nnx.Backend:
    backend = BoxedBackend()
    monkeypatch.setitem(backend_module._loaded, "boxed", backend)
    return backend


def mlp() -> L.Sequential:
    return L.Sequential(L.Linear(4, 5), L.Relu(), L.Linear(5, 3))


def f32(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def text(call: Any, kind: type[nnx.NnxError]) -> str:
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_wrong_width(as_tensor: bool) -> None:
    x = nnx.Tensor(f32(2, 3)) if as_tensor else f32(2, 3)
    assert text(lambda: mlp()(x), nnx.ShapeError) == (
        "in Linear(4, 5): affine: x has shape (2, 3), expected (..., 4), because W has shape "
        "(4, 5) = (in, out)"
    )


def test_wrong_width_further_in_names_the_layer_there() -> None:
    net = L.Sequential(mlp(), L.Residual(L.Linear(9, 9)))
    assert text(lambda: net.forward(f32(1, 4)), nnx.ShapeError).startswith("in Linear(9, 9): ")


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_float64_batch_into_a_float32_model(as_tensor: bool) -> None:
    x = nnx.Tensor(np.ones((2, 4))) if as_tensor else np.ones((2, 4))
    message = text(lambda: mlp()(x), nnx.DtypeError)
    assert message.startswith("in Linear(4, 5): affine: x is float64, W is float32, b is float32")
    assert message.endswith(
        "Cast the data with nnx.asarray(x, 'float32'), or the model with model.astype('float64')"
    )


def test_an_int_batch_says_how_to_cast() -> None:
    message = text(lambda: mlp().forward(np.ones((2, 4), np.uint8)), nnx.DtypeError)
    assert "x is uint8, W is float32" in message
    assert message.endswith("Cast the data with nnx.asarray(x, 'float32')")
    if np.dtype(np.longdouble) == np.float64:
        return
    wide = np.ones((2, 4), np.longdouble)  # no model is of it
    assert text(lambda: mlp()(wide), nnx.DtypeError).endswith("nnx.asarray(x, 'float32')")


def test_targets_of_another_width_are_what_is_to_be_cast() -> None:
    """Not the logits, nor the model: it may be of float32 already."""
    message = text(lambda: nnx.softmax_cross_entropy(f32(2, 3), np.eye(3)[:2]), nnx.DtypeError)
    assert message.endswith("silently. Cast the data with nnx.asarray(t, 'float32')")
    layer, state = L.LSTM(3, 2), (np.zeros((1, 1, 2)), np.zeros((1, 1, 2)))
    assert text(lambda: layer(f32(1, 4, 3), state), nnx.DtypeError).endswith(
        "Cast the data with nnx.asarray(h, 'float32') and nnx.asarray(c, 'float32')"
    )


def test_what_is_no_parameter_in_the_place_of_one() -> None:
    """`layer.W -= lr * dW` would leave a layer that learns no W."""
    layer = L.Linear(3, 2)
    W, dW = layer.W, np.ones((3, 2), np.float32)
    with pytest.raises(nnx.StateError) as error:
        layer.W -= 0.1 * dW  # type: ignore[assignment]
    assert str(error.value) == (
        "Linear.W is a Parameter, and a Tensor in its place would not be learned or saved; write "
        "its values, layer.W.data = array (or layer.W.data -= lr * layer.W.grad), or assign "
        "nnx.Parameter(array)"
    )
    assert "a ndarray in" in text(lambda: setattr(layer, "W", dW), nnx.StateError)
    norm = L.BatchNorm1d(2)
    assert "mean is a Buffer, and" in text(lambda: setattr(norm, "mean", dW), nnx.StateError)
    before = W.numpy().copy()
    layer.W.data -= 0.5 * dW
    np.testing.assert_array_equal(layer.W.numpy(), before - 0.5)
    layer.W, layer.b = nnx.Parameter(dW), None
    assert layer.parameters() == [layer.W]


def test_a_label_out_of_range() -> None:
    loss = L.SoftmaxCrossEntropy()
    assert text(lambda: loss.forward(f32(3, 2), np.array([0, 5, 1])), nnx.LabelError) == (
        "in SoftmaxCrossEntropy(): softmax_cross_entropy: class id 5 at t[1], expected 0..1 for 2 "
        "classes"
    )


def test_float_class_ids() -> None:
    loss = L.SoftmaxCrossEntropy()
    message = text(lambda: loss.forward(f32(2, 2), f32(2)), nnx.DtypeError)
    assert "class ids t are float32, expected ints; write nnx.asarray(t, 'int64')" in message


def test_a_target_of_another_shape() -> None:
    message = text(lambda: L.MeanSquaredError().forward(f32(4, 1), f32(4)), nnx.ShapeError)
    assert "in MeanSquaredError(): " in message and "(4, 1), the target t (4,)" in message


def test_an_unknown_reduction() -> None:
    loss = L.MeanSquaredError("average")
    assert "'average'" in text(lambda: loss.forward(f32(2), f32(2)), nnx.OptionError)


def test_mixed_backends(boxed: nnx.Backend) -> None:
    x = nnx.asarray(f32(2, 4), backend="boxed")
    for call in (mlp().forward, lambda x: mlp()(nnx.Tensor(x))):
        message = text(lambda call=call: call(x), nnx.MixedBackendsError)
        assert message.startswith("in Linear(4, 5): affine: argument 'W' is an array of backend")
        assert "'numpy', the others are of 'boxed'" in message
        assert "nnx.asarray(array, backend=NAME), a model with model.to(NAME)" in message


def test_dout_of_another_backend(boxed: nnx.Backend) -> None:
    net = mlp()
    net.forward(f32(2, 4))
    dout = nnx.asarray(f32(2, 3), backend="boxed")
    message = text(lambda: net.backward(dout), nnx.MixedBackendsError)
    assert "nnx.asarray(dout, backend='numpy')" in message


def test_dout_of_another_shape_or_dtype() -> None:
    net = mlp()
    net.forward(f32(2, 4))
    name = "in Sequential(Linear(4, 5), Relu(), Linear(5, 3)): "
    assert text(lambda: net.backward(f32(2, 4)), nnx.ShapeError) == (
        name + "backward: dout has shape (2, 4), expected (2, 3)"
    )
    assert text(lambda: net.backward(np.ones((2, 3))), nnx.DtypeError) == (
        name + "backward: dout is float64, the output is float32; "
        "write nnx.asarray(dout, 'float32')"
    )


def test_backward_before_forward() -> None:
    message = text(lambda: mlp().backward(f32(2, 3)), nnx.StateError)
    assert "backward() before forward(): call forward on bare arrays first" in message
    assert "on Tensors call loss.backward()" in message
    net = mlp()
    net(nnx.Tensor(f32(2, 4)))
    text(lambda: net.backward(f32(2, 3)), nnx.StateError)


def test_nested_lists_as_a_batch() -> None:
    message = text(lambda: mlp().forward([[1.0, 2.0, 3.0, 4.0]]), nnx.DtypeError)
    assert message.startswith("in Linear(4, 5): affine: argument 'x': no installed backend")
    assert "convert it with nnx.asarray(...)" in message


def test_a_layer_without_forward() -> None:
    class Empty(L.Layer):
        pass

    message = text(lambda: Empty().forward(1), nnx.StateError)
    assert message == "Empty has no forward; define `def forward(self, x): ...`"


@pytest.mark.parametrize("sizes", [(0, 3), (3, -1), (2.5, 3), ("4", 3)])
def test_linear_sizes(sizes: Any) -> None:
    message = text(lambda: L.Linear(*sizes), nnx.OptionError)
    assert message == f"Linear({sizes[0]!r}, {sizes[1]!r}): both sizes must be ints of at least 1"


def test_sequential_of_a_class() -> None:
    assert text(lambda: L.Sequential(L.Linear(3, 2), L.Relu), nnx.OptionError) == (
        "Sequential: argument 1 is the class Relu, expected a layer: write Relu(...)"
    )


@pytest.mark.parametrize("given", [[L.Relu()], np.tanh])
def test_sequential_takes_layers(given: Any) -> None:
    message = text(lambda: L.Sequential(L.Relu(), given), nnx.OptionError)
    assert message == (
        f"Sequential: argument 1 is {type(given).__name__}, expected a layer; write "
        f"Sequential(a, b) or Sequential(*layers)"
    )


def test_flatten_of_one_number() -> None:
    message = text(lambda: L.Flatten().forward(np.ones(())), nnx.ShapeError)
    assert message == "in Flatten(): x has shape (), expected (N, ...): a batch comes first"


def test_unflatten_of_another_length() -> None:
    message = text(lambda: L.Unflatten(1, 2, 3).forward(np.ones((4, 5))), nnx.ShapeError)
    assert message == (
        "in Unflatten(1, 2, 3): x has shape (4, 5), expected (N, 6), to be made (N, 1, 2, 3)"
    )


@pytest.mark.parametrize("shape", [(), (0, 2), (2.0,), ((1, 28),)])
def test_unflatten_to_no_shape(shape: tuple[Any, ...]) -> None:
    message = text(lambda: L.Unflatten(*shape), nnx.OptionError)
    assert message.startswith(f"Unflatten{shape}: expected the shape of one entry as ints")


def test_dropout_of_a_number() -> None:
    message = text(lambda: L.Dropout().forward(3.0), nnx.DtypeError)
    assert message.startswith("in Dropout(0.5): no installed backend computes on builtins.float")


def test_an_error_in_a_users_layer_names_it() -> None:
    class Bad(L.Layer):
        def forward(self, x: Any) -> Any:
            return x @ nnx.Parameter(f32(3, 3))

    message = text(lambda: L.Sequential(Bad()).forward(f32(2, 2)), nnx.ShapeError)
    assert message.startswith("in Bad(): matmul: x1 has shape (2, 2), x2 (3, 3)")


def test_an_error_that_is_not_ours_passes_unchanged() -> None:
    class Bad(L.Layer):
        def forward(self, x: Any) -> Any:
            raise KeyError("mine")

    with pytest.raises(KeyError, match=r"^'mine'$"):
        Bad().forward(f32(2))


@pytest.mark.parametrize("make", [lambda x: {"y": x}, lambda x: x.shape, lambda x: None])
def test_backward_of_a_forward_that_gives_no_arrays(make: Any) -> None:
    class Odd(L.Layer):
        def forward(self, x: Any) -> Any:
            return make(x)

    layer, x = Odd(), f32(2)
    kind = type(layer.forward(x)).__name__
    message = text(lambda: layer.backward(x), nnx.StateError)
    assert message.startswith(f"in Odd(): backward: forward returned {kind}, expected an array")
    assert "call forward on Tensors" in message
