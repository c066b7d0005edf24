"""What a layer holds: names, state dicts, moving and casting, summary, copies, seeds."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx import optim


def mlp(**options: Any) -> L.Sequential:
    return L.Sequential(L.Linear(4, 5, **options), L.Relu(), L.Linear(5, 3, **options))


def x4(n: int = 2) -> Any:
    return np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)


def test_names_and_sharing() -> None:
    class Tied(L.Layer):
        def __init__(self) -> None:
            self.first = L.Linear(3, 3)
            self.again = self.first
            self.second = L.Linear(3, 3)
            self.second.W = self.first.W
            self.table = {"k": nnx.Parameter([1.0]), 2: [nnx.Parameter([2.0])]}
            self.not_one = nnx.Tensor([3.0], requires_grad=True)

    net = Tied()
    names = ["first.W", "first.b", "second.b", "table.k", "table.2.0"]
    assert [name for name, _ in net.named_parameters()] == names
    assert list(net.state_dict()) == names
    assert len({id(p) for p in net.parameters()}) == len(net.parameters()) == 5
    assert [n for n, _ in mlp().named_parameters()] == ["0.W", "0.b", "2.W", "2.b"]


def test_zero_grad() -> None:
    net = mlp()
    net.forward(x4())
    net.backward(np.ones((2, 3), np.float32))
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_state_dict_round_trip() -> None:
    source, target = mlp(), mlp()
    state = source.state_dict()
    assert all(type(v) is np.ndarray and v.dtype == np.float32 for v in state.values())
    kept = target.parameters()
    target.load_state_dict(state)
    np.testing.assert_array_equal(target.forward(x4()), source.forward(x4()))
    assert all(a is b for a, b in zip(kept, target.parameters(), strict=True))
    state["0.W"][:] = 0
    assert source[0].W.numpy().any() and target[0].W.numpy().any()


def test_load_casts_to_the_parameters_dtype_and_takes_lists_and_tensors() -> None:
    net = L.Sequential(L.Linear(2, 1))
    net.load_state_dict({"0.W": np.array([[1.0], [2.0]]), "0.b": [3]})
    assert net[0].W.dtype == np.float32 and net[0].b.dtype == np.float32
    assert net.forward(np.float32([[1, 1]])).tolist() == [[6.0]]
    net.load_state_dict({"0.W": nnx.Tensor([[5.0], [0.0]]), "0.b": np.array([0])})
    assert net.forward(np.float32([[1, 1]])).tolist() == [[5.0]]


def test_load_reports_everything_at_once_and_changes_nothing() -> None:
    net = mlp()
    before = net.state_dict()
    state = {**before, "0.W": np.ones((5, 4)), "extra": np.ones(1)}
    del state["2.b"]
    with pytest.raises(nnx.StateError) as error:
        net.load_state_dict(state)
    assert str(error.value) == (
        "load_state_dict: the state does not fit the model, nothing was changed:\n"
        "  missing: 2.b\n"
        "  unexpected: extra\n"
        "  misshaped: 0.W is (5, 4), expected (4, 5)"
    )
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_load_works_while_an_optimizer_holds_the_parameters() -> None:
    net = mlp()
    opt = optim.SGD(net.parameters(), lr=1.0)
    net.load_state_dict({k: np.zeros_like(v) for k, v in net.state_dict().items()})
    net.forward(x4())
    net.backward(np.ones((2, 3), np.float32))
    opt.step()
    np.testing.assert_array_equal(net.state_dict()["2.b"], [-2, -2, -2])


def test_astype_keeps_the_parameter_objects() -> None:
    net = mlp()
    opt = optim.Adam(net.parameters(), lr=0.1)
    kept, y = net.parameters(), net.forward(x4())
    assert net.astype("float64") is net
    assert all(a is b for a, b in zip(kept, net.parameters(), strict=True))
    out = net.forward(x4().astype(np.float64))
    assert out.dtype == np.float64
    np.testing.assert_allclose(out, y, rtol=1e-5, atol=1e-6)
    net.backward(np.ones((2, 3)))
    before = net.state_dict()
    opt.step()
    assert all((v != before[k]).any() for k, v in net.state_dict().items() if k != "0.b")


def test_astype_casts_the_gradients_too() -> None:
    net = mlp()
    net.forward(x4())
    net.backward(np.ones((2, 3), np.float32))
    net.astype("float64")
    assert all(p.grad.dtype == np.float64 for p in net.parameters())


@pytest.mark.parametrize("dtype", ["int32", "float31", "complex64"])
def test_astype_refuses_what_is_no_float(dtype: str) -> None:
    with pytest.raises(nnx.OptionError, match=rf"astype\('{dtype}'\): parameters are float16"):
        mlp().astype(dtype)


def test_to_the_same_backend_and_to_an_unknown_one() -> None:
    net = mlp()
    kept = net.parameters()
    arrays = [p.data for p in kept]
    assert net.to("numpy") is net
    assert all(p.data is a for p, a in zip(net.parameters(), arrays, strict=True))
    with pytest.raises(nnx.UnknownBackendError, match="no backend named 'nope' is installed"):
        net.to("nope")
    assert all(a is b for a, b in zip(kept, net.parameters(), strict=True))


def test_summary() -> None:
    net = L.Sequential(L.Linear(64, 100), L.Relu(), L.Dropout(0.5), L.Linear(100, 10))
    net[0].W.requires_grad = False
    net[2].eval()
    assert net.summary((64,)).splitlines() == [
        "name  layer            output    parameters   bytes  trained",
        "----  ---------------  --------  ----------  ------  ------------",
        "0     Linear(64, 100)  (N, 100)       6,500  26,000  100 of 6,500",
        "1     Relu()           (N, 100)           0       0  -",
        "2     Dropout(0.5)     (N, 100)           0       0  -",
        "3     Linear(100, 10)  (N, 10)        1,010   4,040  yes",
        "7,510 parameters (30,040 bytes), 1,110 trained",
    ]
    net[0].b.requires_grad = False
    net.astype("float16")
    frozen = net.summary().splitlines()
    assert frozen[0].split() == ["name", "layer", "parameters", "bytes", "trained"]
    assert frozen[2].split()[-3:] == ["6,500", "13,000", "no"]
    assert frozen[-1] == "7,510 parameters (15,020 bytes), 1,010 trained"
    assert net.training and net[0].training and not net[2].training
    assert "(N" not in net.summary() and repr(net.summary()) == net.summary()
    assert "forward" not in vars(net[0])


def test_summary_restores_modes_and_layers_after_an_error() -> None:
    net = L.Sequential(L.Linear(4, 2), L.Dropout(0.5))
    with pytest.raises(nnx.ShapeError):
        net.summary((3,))
    assert net[1].training and "forward" not in vars(net[0])


def test_summary_counts_own_and_shared_parameters_once() -> None:
    class Own(L.Layer):
        def __init__(self) -> None:
            self.inner, self.tied = L.Linear(2, 2), L.Linear(2, 2, bias=False)
            self.tied.W = self.inner.W
            self.scale = nnx.Parameter([1.0, 1.0])

        def forward(self, x: Any) -> Any:
            return self.tied(self.inner(x)) * self.scale

    lines = Own().summary((2,)).splitlines()
    assert [line.split()[-3:] for line in lines[2:5]] == [
        ["2", "8", "yes"], ["6", "24", "yes"], ["0", "0", "-"],
    ]  # fmt: skip
    assert lines[2].startswith("-") and "(N, 2)" in lines[2]
    assert lines[5] == "8 parameters (32 bytes), 8 trained"
    assert L.Linear(2, 3).summary((2,)).splitlines()[2].split() == [
        "-", "Linear(2,", "3)", "(N,", "3)", "9", "36", "yes",
    ]  # fmt: skip


@pytest.mark.parametrize("after_forward", [False, True])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_pickle_and_deepcopy(how: Any, after_forward: bool) -> None:
    net = L.Sequential(L.Linear(4, 4), L.Dropout(0.1), L.Residual(L.Linear(4, 4)))
    net[2].layer.W = net[0].W
    net[0].b.requires_grad = False
    net.eval()
    net[2].train()
    y = net.forward(x4())
    if after_forward:
        net.train().forward(x4())
        net.backward(x4())
        net.eval()[2].train()
    copied = how(net)
    np.testing.assert_array_equal(copied.forward(x4()), y)
    assert copied[2].layer.W is copied[0].W and len(copied.parameters()) == 3
    assert not copied[0].b.requires_grad and not copied.training and copied[2].training
    copied[0].W.data = np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(net.forward(x4()), y)
    with pytest.raises(nnx.StateError, match="before forward"):
        how(net.train()).backward(x4())


def test_notebook_layers_pickle() -> None:
    layer = nnx.Affine(np.eye(2), np.ones(2))
    layer.forward(np.ones((1, 2)))
    again = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(again.forward(np.ones((1, 2))), [[2, 2]])


def test_the_same_seed_gives_the_same_weights() -> None:
    nnx.seed(3)
    first = mlp().state_dict()
    nnx.seed(3)
    again = mlp().state_dict()
    nnx.seed(4)
    other = mlp().state_dict()
    assert all((first[k] == again[k]).all() for k in first)
    assert (first["0.W"] != other["0.W"]).all()
    nnx.seed(3)
    wide = mlp(dtype="float64").state_dict()
    np.testing.assert_array_equal(wide["0.W"].astype(np.float32), first["0.W"])


def test_layers_of_equal_shape_differ() -> None:
    nnx.seed(3)
    a, b = L.Linear(5, 5), L.Linear(5, 5)
    assert (a.W.numpy() != b.W.numpy()).all()
