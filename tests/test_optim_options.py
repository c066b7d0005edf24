"""What an optimizer refuses to be made of, and clipping."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from nnx import layers, optim
from nnx.errors import MixedBackendsError, OptionError, ShapeError
from nnx.tensor import Parameter, Tensor


def one():
    return Parameter(np.ones(2, "f4"))


def shared():
    p = one()
    return [p, p]


WRONG_PARAMETERS = {
    "empty": (lambda: [], "Adam: no parameters were given"),
    "net": (
        lambda: layers.Sequential(layers.Linear(2, 2)),
        "Adam: got the layer Sequential itself; write net.parameters()",
    ),
    "uncalled": (lambda: layers.Linear(2, 2).parameters, "got a function; call it"),
    "single": (one, "got one Parameter; write a list"),
    "named": (
        lambda: layers.Linear(2, 2).named_parameters(),
        "params[0] is a tuple, expected a Parameter; write net.parameters(), not net.named",
    ),
    "layers": (
        lambda: [layers.Linear(2, 2)],
        "params[0] is a Linear, expected a Parameter; write *layer.parameters()",
    ),
    "tensor": (
        lambda: [one(), Tensor(np.ones(2), True)],
        "params[1] is a Tensor, expected a Parameter; make it one with nnx.Parameter(data)",
    ),
    "dict": (lambda: {"W": one()}, "got a dict, expected a list of Parameters"),
    "number": (lambda: 3, "got a int, expected a list of Parameters"),
    "twice": (shared, "parameter 1 (shape (2,)) was given before"),
    "group": (lambda: {"params": [one()]}, "one group was given by itself"),
    "mixture": (lambda: [{"params": [one()]}, one()], "params[1] is a Parameter; where one is"),
    "no_params": (lambda: [{"lr": 0.1}], "params[0] is a dict; where one is a dict"),
    "empty_group": (lambda: [{"params": []}], "no parameters were given"),
    "typo": (
        lambda: [{"params": [one()], "learning_rate": 1}],
        "unknown option 'learning_rate'; it takes lr, betas, eps, weight_decay",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG_PARAMETERS.values(), ids=WRONG_PARAMETERS)
def test_wrong_parameters(make, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        optim.Adam(make())


@pytest.mark.parametrize(
    ("cls", "option", "message"),
    [
        (optim.SGD, {"lr": -1}, "SGD: lr=-1, expected a finite number >= 0"),
        (optim.SGD, {"lr": math.nan}, "SGD: lr=nan, expected"),
        (optim.SGD, {"lr": "0.1"}, "SGD: lr='0.1', expected"),
        (optim.SGD, {"lr": True}, "SGD: lr=True, expected"),
        (optim.SGD, {"momentum": -0.1}, "SGD: momentum=-0.1, expected"),
        (optim.SGD, {"dampening": math.inf}, "SGD: dampening=inf, expected a finite number"),
        (optim.SGD, {"weight_decay": -1}, "SGD: weight_decay=-1, expected"),
        (optim.SGD, {"nesterov": True}, "nesterov=True with momentum=0.0, dampening=0.0; expected"),
        (optim.SGD, {"nesterov": 1}, "nesterov=1, expected True or False"),
        (optim.AdaGrad, {"lr_decay": -1}, "AdaGrad: lr_decay=-1, expected"),
        (optim.AdaGrad, {"initial_accumulator_value": -1}, "initial_accumulator_value=-1"),
        (optim.RMSProp, {"alpha": 1}, "RMSProp: alpha=1, expected a number with 0 <= value < 1"),
        (optim.Adam, {"betas": (0.9, 1.0)}, "Adam: betas[1]=1.0, expected a number with 0 <="),
        (optim.Adam, {"betas": 0.9}, "Adam: betas=0.9, expected two numbers, (0.9, 0.999)"),
        (optim.AdamW, {"eps": -1e-8}, "AdamW: eps=-1e-08, expected"),
    ],
)
def test_wrong_options(cls, option, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        cls([one()], **option)
    with pytest.raises(OptionError, match=re.escape(message.partition(": ")[2] or message)):
        cls([{"params": [one()], **option}])


class Halving(optim.Optimizer):
    defaults = {"share": 0.5}  # noqa: RUF012

    def check(self, group):
        if group["share"] > 1:
            raise OptionError(f"Halving: share={group['share']}, expected at most 1")


def test_options_of_an_optimizer_of_ones_own():
    assert Halving([one()], share=np.float32(0.25)).param_groups[0]["share"] == 0.25
    with pytest.raises(OptionError, match="Halving: share=nan, expected a finite number"):
        Halving([one()], share=math.nan)
    with pytest.raises(OptionError, match="share=2, expected at most 1"):
        Halving([one()], share=2)
    with pytest.raises(OptionError, match="unknown option 'lr'; it takes share"):
        Halving([one()], lr=1)


def test_a_group_added_later_is_checked_too():
    p = one()
    opt = optim.SGD([p])
    with pytest.raises(OptionError, match=re.escape("SGD, group 1: parameter 0 (shape (2,))")):
        opt.add_param_group({"params": [p]})
    with pytest.raises(OptionError, match="SGD, group 1: lr=-1"):
        opt.add_param_group({"params": [one()], "lr": -1})
    with pytest.raises(OptionError, match="SGD, group 1: got None, expected"):
        opt.add_param_group({"lr": 1})
    assert len(opt.param_groups) == 1


def test_repr_shows_the_options():
    text = (
        "SGD(1 parameters, lr=0.1, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0)"
    )
    assert repr(optim.SGD([one()], 0.1)) == text


def _gradients(scale, dtype="float64"):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    mine, other = [], []
    for shape in ((4, 3), (3,), ()):
        g = np.asarray(scale * rng.standard_normal(shape), dtype)
        p, q = Parameter(np.zeros(shape, dtype)), torch.nn.Parameter(torch.zeros(shape).double())
        p.grad, q.grad = g.copy(), torch.tensor(np.asarray(g, "float64"))
        mine.append(p)
        other.append(q)
    return mine, other, torch.nn.utils


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 0.0])
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 1e-5)])
def test_clip_grad_norm_is_pytorchs(scale, dtype, rtol):
    mine, other, utils = _gradients(scale, dtype)
    norm = optim.clip_grad_norm(mine, 0.7)
    expected = utils.clip_grad_norm_(other, 0.7)
    assert isinstance(norm, np.ndarray) and norm.shape == () and norm.dtype == dtype
    np.testing.assert_allclose(norm, expected.numpy(), rtol=rtol)
    for p, q in zip(mine, other, strict=True):
        assert p.grad.dtype == dtype
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=rtol)


def test_clip_grad_norm_of_infinity_only_measures():
    mine, _, _ = _gradients(5.0)
    before = [p.grad.copy() for p in mine]
    norm = optim.clip_grad_norm(mine, math.inf)
    np.testing.assert_allclose(norm, math.sqrt(sum((g**2).sum() for g in before)), rtol=1e-14)
    for p, g in zip(mine, before, strict=True):
        np.testing.assert_array_equal(p.grad, g)


@pytest.mark.parametrize("value", [0.0, 0.5, 100.0])
def test_clip_grad_value_is_pytorchs(value):
    mine, other, utils = _gradients(1.0)
    optim.clip_grad_value(mine, value)
    utils.clip_grad_value_(other, value)
    for p, q in zip(mine, other, strict=True):
        np.testing.assert_array_equal(p.grad, q.grad.numpy())


def test_clip_leaves_out_what_step_leaves_out():
    mine = [one(), one(), one()]
    mine[0].grad = np.array([3, 4], "f4")
    mine[1].grad = np.full(2, 100, "f4")
    mine[1].requires_grad = False
    assert float(optim.clip_grad_norm(mine, 1.0)) == 5
    np.testing.assert_allclose(mine[0].grad, [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(mine[1].grad, [100, 100])
    assert float(optim.clip_grad_norm([one()], 1.0)) == 0


@pytest.mark.parametrize("held", [(), (0,), (1, 3), (0, 1, 2, 3)])
def test_the_norm_is_the_same_to_the_bit_wherever_gradients_lie(held):
    shapes = [(300, 70), (70,), (70, 31), (31,)]

    def clipped(packed, seed):
        rng = np.random.default_rng(seed)
        parameters = [Parameter(rng.standard_normal(s).astype("f4")) for s in shapes]
        keep = None if packed else [p.data for p in parameters]
        optim.SGD(parameters, 0.1)
        assert all((p.flat is not None) == packed for p in parameters)
        for i, p in enumerate(parameters):
            g = rng.standard_normal(p.shape).astype("f4")
            if packed and i not in held:
                p.take_gradient(g)
                assert p.grad is p.slot
            else:
                p.grad = g
        norm = optim.clip_grad_norm((p for p in parameters), 0.5)
        assert keep is None or len(keep) == 4
        return [norm, *(p.grad for p in parameters)]

    for seed in range(20):
        for a, b in zip(clipped(True, seed), clipped(False, seed), strict=True):
            np.testing.assert_array_equal(a, b)


def test_clip_does_not_write_into_a_graph():
    p = Parameter(np.array([3.0, 4.0]))
    (p * p).sum().backward(create_graph=True)
    held = p.grad.data
    before = held.copy()
    assert float(optim.clip_grad_norm([p], 1.0)) == 10
    np.testing.assert_array_equal(held, before)
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)


def test_clip_errors():
    p = one()
    with pytest.raises(OptionError, match="clip_grad_norm: max_norm=-1, expected a number >= 0"):
        optim.clip_grad_norm([p], -1)
    with pytest.raises(OptionError, match="clip_grad_value: value=-1, expected a finite number"):
        optim.clip_grad_value([p], -1)
    with pytest.raises(OptionError, match="clip_grad_norm: got the layer Linear itself"):
        optim.clip_grad_norm(layers.Linear(2, 2), 1)
    p.grad = np.ones(3, "f4")
    with pytest.raises(ShapeError, match="clip_grad_norm: the gradient of parameter 0 has shape"):
        optim.clip_grad_norm([p], 1)


def test_clip_of_parameters_on_two_backends():
    from nnx.backend import Backend

    class Twin(Backend):
        """Owns arrays of one subclass only, as a backend of another device does."""

        name = "twin"

        def owns(self, array):
            return type(array) is TwinArray

    class TwinArray(np.ndarray):
        pass

    import nnx.backend as registry

    q = Parameter(np.ones(2, "f4").view(TwinArray))
    p = one()
    p.grad, q.grad = np.ones(2, "f4"), np.ones(2, "f4").view(TwinArray)
    numpy = registry.load_backend("numpy")
    owns = type(numpy).owns
    registry._loaded["twin"] = Twin()
    try:
        type(numpy).owns = lambda self, array: type(array) is np.ndarray
        message = "parameter 1 is of backend 'twin', those before it of 'numpy'; move the model"
        with pytest.raises(MixedBackendsError, match=message):
            optim.clip_grad_norm([p, q], 1)
    finally:
        type(numpy).owns = owns
        del registry._loaded["twin"]
