"""Train on MNIST with a loop of your own. `nnx train --data mnist` does it in one command.

Run it with `python examples/mnist.py --data-dir DIR`.

DIR holds the four IDX files (train-images-idx3-ubyte.gz and so on, .gz or plain).
"""

from __future__ import annotations

import argparse

import numpy as np

import nnx
from nnx import layers as L
from nnx import optim
from nnx.data import DataLoader

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--data-dir", required=True, metavar="DIR")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--steps", type=int, metavar="N", help="stop each epoch after N batches")
parser.add_argument("--backend", default="numpy")
arguments = parser.parse_args()

nnx.set_backend(arguments.backend)  # before the network is made: its weights go there
nnx.seed(0)
train = nnx.data.load("mnist", arguments.data_dir)
test = nnx.data.load("mnist", arguments.data_dir, split="test")

net = L.Sequential(L.Linear(784, 100), L.Relu(), L.Linear(100, 10))
loss, opt = L.SoftmaxCrossEntropy(), optim.Adam(net.parameters(), lr=1e-3)
batches = DataLoader(train, batch_size=100, shuffle=True, seed=0)
print(net.summary((784,)))

for epoch in range(arguments.epochs):
    net.train()
    for step, (x, t) in enumerate(batches):
        if step == arguments.steps:
            break
        # By hand, as in the book: no Tensors. The loss goes first on the way back.
        value = loss.forward(net.forward(x), t)
        net.backward(loss.backward())
        opt.step()

    net.eval()  # keeps nothing for backward, and would switch dropout off
    right = 0
    for x, t in DataLoader(test, batch_size=1000):
        # The batches come from whichever backend is chosen; counting is done on the host.
        guesses = nnx.to_numpy(net.forward(x)).argmax(axis=1)
        right += int(np.sum(guesses == nnx.to_numpy(t)))
    print(f"epoch {epoch + 1}: loss {float(value):.4f}, test accuracy {right / len(test):.2%}")
