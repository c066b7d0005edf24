"""A layer of your own: parameters, and a forward made of layers and operators.

Run it with `python examples/custom_layer.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import nnx
from nnx import layers as L
from nnx import optim


class Gated(L.Layer):
    """y = sigmoid(gate(x)) * inner(x) * scale

    No backward is written: the derivatives of what forward calls are known.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        # Parameters are found by name in attributes, lists and dicts, in layers within layers too.
        self.gate, self.inner = L.Linear(n_in, n_out), L.Linear(n_in, n_out)
        self.scale = nnx.Parameter(np.ones(n_out, np.float32))

    def forward(self, x: Any) -> Any:
        return nnx.sigmoid(self.gate(x)) * self.inner(x) * self.scale


nnx.seed(0)
gated = Gated(64, 32)
net = L.Sequential(gated, L.Linear(32, 10))
print(net.summary((64,)))
print([name for name, _ in net.named_parameters()])

digits = nnx.data.load("digits")
x, t = nnx.asarray(digits.x[:100]), nnx.asarray(digits.t[:100])
loss = L.SoftmaxCrossEntropy()

# Two ways to the same gradients. On Tensors, the tape records what happens:
loss(net(nnx.Tensor(x)), t).backward()
by_tape = nnx.to_numpy(gated.scale.grad).copy()

# on bare arrays, forward and backward are called by hand:
loss.forward(net.forward(x), t)
net.backward(loss.backward())
print("the same gradient:", np.array_equal(by_tape, nnx.to_numpy(gated.scale.grad)))

# An optimizer does not ask which way the gradients came.
opt = optim.Adam(net.parameters(), lr=0.01)
for step in range(51):
    value = loss.forward(net.forward(x), t)
    net.backward(loss.backward())
    opt.step()
    if step % 25 == 0:
        print(f"step {step}: loss {float(value):.4f}")
