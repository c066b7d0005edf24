"""What a drawing says: the book's numbers, and others by arithmetic of the tests' own."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import nnx
from nnx import layers as L


def rows(drawn: Any) -> dict[str, list[str]]:
    """The cells of the text, by name, and its remarks under "notes"."""
    lines = str(drawn).splitlines()
    starts = [m.start() for m in re.finditer(r"\S+", lines[0])]
    ends = [*starts[1:], None]
    found: dict[str, list[str]] = {"notes": []}
    for line in lines[1:]:
        if " is left out" in line or " are " in line:
            found["notes"].append(line)
            continue
        name, *cells = [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
        found[name] = cells
    return found


def apples() -> tuple[nnx.Tensor, dict[str, nnx.Tensor]]:
    """Buying apples: two at 100 yen, with a tax of 10 %."""
    names = {"apple": 100.0, "number": 2.0, "tax": 1.1}
    given = {name: nnx.Tensor(v, requires_grad=True) for name, v in names.items()}
    return given["apple"] * given["number"] * given["tax"], given


def test_buying_apples() -> None:
    price, names = apples()
    assert str(nnx.draw(price, names={**names, "price": price})) == (
        "name    call                     value  gradient\n"
        "apple                            100    2.2\n"
        "number                           2      110\n"
        "v1      multiply(apple, number)  200    1.1\n"
        "tax                              1.1    200\n"
        "price   multiply(v1, tax)        220    1"
    )
    assert all(t.grad is None for t in names.values()), "nothing is kept"
    price.backward()
    assert names["tax"].grad == 200, "nothing is freed"


def test_apples_and_oranges() -> None:
    """The book's second example; the sum is no value that the tape keeps for itself."""
    a, b, c, d, tax = (nnx.Tensor(v, requires_grad=True) for v in (2.0, 100.0, 3.0, 150.0, 1.1))
    found = rows(
        nnx.draw((a * b + c * d) * tax, names={"c": c, "d": d, "a": a, "b": b, "tax": tax})
    )
    assert {name: cells[-1] for name, cells in found.items() if name in "abcd tax"} == {
        "a": "110", "b": "2.2", "c": "165", "d": "3.3", "tax": "650",
    }  # fmt: skip
    assert [cells[1] for name, cells in found.items() if name[0] == "v"] == [
        "200", "450", "650", "715",
    ]  # fmt: skip


def test_a_value_that_is_used_twice_has_a_gradient_for_each_use() -> None:
    x = nnx.Tensor(3.0, requires_grad=True)
    drawn = nnx.draw(x * x + x, names={"x": x})
    assert rows(drawn)["x"][-1] == "7", "2x + 1"
    assert [a.gradient for a in drawn.graph.arrows if a.source == 0] == ["3", "3", "1"]


def test_numbers_and_arrays_that_take_no_gradient() -> None:
    x = nnx.Tensor(nnx.asarray([1.0, 2.0]), requires_grad=True)
    drawn = rows(nnx.draw((nnx.Tensor(nnx.asarray([3.0, 4.0])) * x * 2.0).sum()))
    assert drawn["v2"][:2] == ["multiply(v1, 2)", "(2,) float32 [6, 16]"]
    assert drawn["x_2"][1:] == ["(2,) float32 [1, 2]", "[6, 8]"]
    assert drawn["x"][1:] == ["(2,) float32 [3, 4]", ""]


def test_a_constant_has_a_box_for_each_use_and_one_line() -> None:
    mask, x = nnx.asarray([1.0, 0.0]), nnx.Tensor(nnx.asarray([1.0, 2.0]), requires_grad=True)
    drawn = nnx.draw(x * mask * mask, names={"mask": mask})
    assert [box.symbol for box in drawn.graph.boxes].count("mask") == 2
    assert str(drawn).count("\nmask ") == 1 and rows(drawn)["v2"][0] == "multiply(v1, mask)"


def test_a_layer_with_its_parameters(backend: nnx.Backend) -> None:
    net = L.Sequential(L.Linear(3, 5), L.Relu(), L.Dropout(0.5), L.Linear(5, 2))
    x = np.arange(6.0, dtype="float32").reshape(2, 3)
    found = rows(nnx.draw(net, x=nnx.asarray(x)))
    assert {"x", "0.W", "0.b", "3.W", "3.b"} <= set(found)
    assert found["3.b"][1:] == ["(2,) float32 [0, 0]", "[2, 2]"], "of two rows"
    assert found["3.W"][1] == "(5, 2) float32"
    y = net.eval()(nnx.Tensor(nnx.asarray(x)))
    y.backward(nnx.asarray(np.ones((2, 2), "float32")))
    norm = np.linalg.norm(nnx.to_numpy(net.layers[3].W.grad))
    assert found["3.W"][2] == f"norm {norm:.4g}"
    assert net.train() is not None and all(p.grad is not None for p in net.parameters())


def test_a_layer_is_left_as_it_was() -> None:
    net = L.Sequential(L.Linear(3, 2), L.Dropout(0.5))
    nnx.draw(net, x=np.ones((1, 3), "float32"))
    assert net.training and net.layers[1].training
    assert all(p.grad is None for p in net.parameters())


def test_a_model_with_a_loss() -> None:
    net = L.Sequential(L.Linear(3, 4), L.Relu(), L.Linear(4, 2))
    x, t = nnx.Tensor(np.ones((5, 3), "float32")), nnx.asarray([0, 1, 0, 1, 0], "int64")
    found = rows(nnx.draw(nnx.softmax_cross_entropy(net(x), t), names={"net": net, "t": t}))
    assert found["v4"][0] == "softmax_cross_entropy(v3, t)" and found["v4"][2] == "1"
    assert found["t"][1:] == ["(5,) int64", ""] and "net.2.W" in found


def test_gradients_inside_are_pytorchs() -> None:
    net, data = L.Sequential(L.Linear(4, 5), L.Relu(), L.Linear(5, 3)), np.random.default_rng(0)
    x, t = data.normal(size=(6, 4)).astype("float32"), np.arange(6) % 3
    found = rows(nnx.draw(nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t), names={"net": net}))
    w1, b1, w2, b2 = (torch.tensor(p.numpy(), requires_grad=True) for p in net.parameters())
    hidden = torch.tensor(x) @ w1 + b1
    out = hidden.relu() @ w2 + b2
    hidden.retain_grad()
    out.retain_grad()
    torch.nn.functional.cross_entropy(out, torch.tensor(t)).backward()
    for name, peer in {
        "net.0.W": w1,
        "net.0.b": b1,
        "net.2.W": w2,
        "v1": hidden,
        "v3": out,
    }.items():
        assert peer.grad is not None
        norm = float(found[name][2].removeprefix("norm "))
        assert norm == pytest.approx(float(peer.grad.norm()), rel=1e-3), name


def test_of_a_captured_function_the_model_is_drawn() -> None:
    net = L.Sequential(L.Linear(4, 5), L.Relu())
    step = nnx.capture(lambda x: net(x).sum())
    x = nnx.Tensor(np.ones((2, 4), "float32"))
    for _ in range(4):
        y = step(x)
    assert "in a captured function; compute it again" in refused(y)
    assert "affine" in str(nnx.draw(net, x=x))


def test_a_layer_of_several_inputs_and_names() -> None:
    found = rows(nnx.draw(nnx.MulNode(), x=(3.0, 4.0), names={}))
    assert [cells[-1] for name, cells in found.items() if name != "notes"][:2] == ["4", "3"]


def test_a_call_with_several_results_and_options() -> None:
    x = nnx.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    found = rows(nnx.draw(nnx.sum(x, axis=1)[0], names={"x": x}))
    assert found["v1"][0] == "sum(x, axis=1)"
    assert found["v2"][1] == "3"


def test_a_large_graph_is_cut() -> None:
    x = y = nnx.Tensor(1.0, requires_grad=True)
    for _ in range(50):
        y = y * 2.0
    drawn = nnx.draw(y, limit=3)
    assert [b.kind for b in drawn.graph.boxes].count("call") == 3
    assert str(drawn).endswith("Earlier calls are left out: 47. limit=50 draws all.")
    assert drawn.graph.arrows[0].gradient == "8"
    assert rows(nnx.draw(y, names={"x": x}))["x"][-1] == f"{2.0**50:.4g}"


def test_after_backward_what_it_left_in_the_leaves_is_known() -> None:
    price, names = apples()
    price.backward()
    text = str(nnx.draw(price, names=names))
    assert "gradients inside are not known: backward() has freed" in text.lower()
    assert rows(text)["apple"][-1] == "2.2"


def test_after_an_update_values_and_gradients_that_are_no_more() -> None:
    net = L.Linear(2, 1)
    y = net(nnx.Tensor(np.ones((1, 2), "float32"))).sum()
    y.backward(retain_graph=True)
    nnx.optim.SGD(net.parameters(), lr=1.0).step()
    assert "parameters have changed since. Draw before the optimizer's step." in str(nnx.draw(y))


def test_hooks_and_dout() -> None:
    x = nnx.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    x.register_hook(lambda g: g * 10)
    drawn = nnx.draw(x * 3.0, names={"x": x}, dout=np.array([1.0, 5.0]))
    assert rows(drawn)["x"][-1] == "[30, 150]"


def refused(*given: Any, **options: Any) -> str:
    with pytest.raises(nnx.NnxError) as error:
        nnx.draw(*given, **options)
    return f"{type(error.value).__name__}: {error.value}"


def test_errors() -> None:
    price, _ = apples()
    x = np.ones((1, 3), "float32")
    assert refused(np.ones(3)) == (
        "OptionError: draw: got a ndarray, expected a Tensor, computed from Tensors such as "
        "nnx.Tensor(array), or a layer with its input: nnx.draw(layer, x=array)"
    )
    assert refused(L.Linear(3, 2)) == (
        "OptionError: draw: a layer is drawn for an input: nnx.draw(layer, x=array)"
    )
    assert "a Tensor is drawn without: nnx.draw(t)" in refused(price, x=x)
    assert refused(price, limit=0) == "OptionError: draw: limit=0, expected an int of at least 1"
    assert "names is a list, expected a dict such as {'x': x}" in refused(price, names=[])
    assert "names has 'x': str, expected names with Tensors" in refused(price, names={"x": "y"})
    assert refused(price, "price.jpg") == (
        "OptionError: draw: the path 'price.jpg' ends in '.jpg', expected one of .svg, .png, "
        ".pdf, .dot, .txt"
    )
    assert "ends in 'nothing', expected" in refused(price, "price")


def test_a_tensor_that_nothing_was_recorded_of() -> None:
    x = nnx.Tensor(2.0, requires_grad=True)
    with nnx.no_grad():
        hidden = x * 2.0
    for tensor in (x, nnx.Tensor(2.0) * 3.0, hidden):
        assert refused(tensor) == (
            "StateError: draw: nothing was recorded of this Tensor: it was not computed, or no "
            "input had requires_grad=True, or it was under no_grad() or in a captured function; "
            "compute it again without these, or draw the model: nnx.draw(model, x=array)"
        )


class Two(L.Layer):
    def forward(self, x: Any) -> Any:
        return x * 2, x * 3


def test_a_layer_that_gives_several() -> None:
    assert "Two.forward gives a tuple, expected one Tensor; draw a part" in refused(
        Two(), x=np.ones(2)
    )
