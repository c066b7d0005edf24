"""XOR: the smallest problem that needs a hidden layer, trained by recording on the tape.

Run it with `python examples/xor.py`.
"""

from __future__ import annotations

import numpy as np

import nnx
from nnx import layers as L
from nnx import optim

nnx.seed(1)  # the initial weights are random: a seed makes the run repeatable
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
t = np.array([[0], [1], [1], [0]], np.float32)

net = L.Sequential(L.Linear(2, 8), L.Tanh(), L.Linear(8, 1))
loss, opt = L.SigmoidCrossEntropy(), optim.Adam(net.parameters(), lr=0.05)

for step in range(301):
    opt.zero_grad()  # the tape adds to .grad, so each step starts from nothing
    value = loss(net(nnx.Tensor(x)), t)
    value.backward()
    opt.step()
    if step % 100 == 0:
        print(f"step {step}: loss {float(value):.4f}")

# On bare arrays nothing is recorded for the tape: this is how a trained network is used.
net.eval()
for row, p in zip(x, nnx.sigmoid(net.forward(x)), strict=True):
    print(f"{row[0]:.0f} xor {row[1]:.0f} = {float(p[0]):.3f}")
