"""Train LeNet-5 on MNIST: convolutions, pooling, and a training step that is replayed.

Run it with `python examples/lenet.py --data-dir DIR`.

DIR holds the four IDX files (train-images-idx3-ubyte.gz and so on, .gz or plain).
`nnx train --data mnist --data-dir DIR --model lenet` trains the same network in one command.
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

net = L.Sequential(
    L.Unflatten(1, 28, 28),  # the data set's rows are flat: (N, 784)
    L.Conv2d(1, 6, 5, padding=2), L.Relu(), L.MaxPool2d(2),
    L.Conv2d(6, 16, 5), L.Relu(), L.MaxPool2d(2),
    L.Flatten(),
    L.Linear(400, 120), L.Relu(),
    L.Linear(120, 84), L.Relu(),
    L.Linear(84, 10),
)  # fmt: skip
loss, opt = L.SoftmaxCrossEntropy(), optim.Adam(net.parameters(), lr=2e-3)
batches = DataLoader(train, batch_size=64, shuffle=True, seed=0, drop_last=True)
print(net.summary((784,)))


@nnx.capture  # the first two calls run as they are; then they are replayed without the tape
def step(x, t):
    opt.zero_grad()
    value = loss(net(nnx.Tensor(x)), t)
    value.backward()
    opt.step()
    return value


for epoch in range(arguments.epochs):
    net.train()
    for i, (x, t) in enumerate(batches):
        if i == arguments.steps:
            break
        value = step(x, t)

    net.eval()
    right = 0
    for x, t in DataLoader(test, batch_size=500):
        guesses = nnx.to_numpy(net.forward(x)).argmax(axis=1)
        right += int(np.sum(guesses == nnx.to_numpy(t)))
    print(f"epoch {epoch + 1}: loss {float(value):.4f}, test accuracy {right / len(test):.2%}")
