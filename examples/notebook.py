"""The notebook, retold: buying fruit, forward and backward, then the layers of a network.

Run it with `python examples/notebook.py`.
"""

from __future__ import annotations

import numpy as np

import nnx

# Two apples at 100, five bananas at 300, 10 % tax. Each node remembers its inputs, because the
# derivative of a product is the other factor.
apples, bananas = nnx.MulNode(), nnx.MulNode()
total, tax = nnx.AddNode(), nnx.MulNode()

apple_price = apples.forward(100, 2)
banana_price = bananas.forward(300, 5)
price = tax.forward(total.forward(apple_price, banana_price), 1.1)
print("price:", price)

# Backward asks how much the price changes if something changes by 1. It walks the same nodes in
# the opposite order, each passing on what it was given times its own derivative.
dtotal, dtax = tax.backward(1)
dapple_price, dbanana_price = total.backward(dtotal)
dapple, dapple_count = apples.backward(dapple_price)
dbanana, dbanana_count = bananas.backward(dbanana_price)
print("per unit on the price of an apple:", dapple)
print("per apple more:", dapple_count)
print("per unit on the price of a banana:", dbanana)
print("per banana more:", dbanana_count)

# The same with arrays: a layer is a node whose inputs are matrices.
x = np.array([[-1.0, 0.0], [1.0, 2.0], [2.0, 0.0]])
relu = nnx.Relu()
print("relu:", relu.forward(x).tolist())
print("its gradient:", relu.backward(np.ones_like(x)).tolist())

# A network of one layer, and the loss. Affine's backward gives three gradients; the layer before
# it, if there were one, would be given the first: take [0].
rng = np.random.default_rng(0)
affine = nnx.Affine(rng.normal(size=(2, 3)), np.zeros(3))
softmax, loss = nnx.Softmax(), nnx.Loss()
t = np.eye(3)[[0, 1, 2]]  # one-hot: row i belongs to class i

for step in range(101):
    y = softmax.forward(affine.forward(x))
    value = loss.forward(y, t)
    # The book's shortcut: Loss.backward is already the gradient for softmax's input. It is that
    # of the sum, and the value is a mean over all entries, hence 1 / y.size.
    dx, dw, db = affine.backward(loss.backward(1 / y.size))
    if step % 50 == 0:
        print(f"step {step}: loss {float(value):.4f}")
    affine.W.data = affine.W.data - 5 * dw
    affine.b.data = affine.b.data - 5 * db
