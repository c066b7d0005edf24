"""An op of your own: a forward kernel, and beside it the derivative.

Run it with `python examples/custom_op.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import nnx
from nnx.op import op


# A kernel is pure: it takes the array namespace `xp` and arrays, uses the functions of the Array
# API standard and Python's operators, and changes nothing. So it runs on every backend.
@op
def swish(xp: Any, x: Any, *, beta: float = 1.0) -> Any:
    """y = x / (1 + e^(-beta x))"""
    return x / (1 + xp.exp(-beta * x))


# The names after `dy` say what the derivative reads: an argument, an attribute, or the result y.
# The tape keeps these and no more.
@swish.d("x")
def _(xp: Any, dy: Any, x: Any, y: Any, beta: float) -> Any:
    s = 1 / (1 + xp.exp(-beta * x))
    return dy * (beta * y + s * (1 - beta * y))


x = np.array([-2.0, 0.0, 3.0])
print("on an array:", swish(x))
print("on a number:", swish(0.0))

leaf = nnx.Tensor(x, requires_grad=True)
swish(leaf, beta=2.0).sum().backward()
print("gradient:", leaf.grad)

# Always compare with a difference quotient: a wrong derivative trains, only worse.
h = 1e-6
print("measured:", (swish(x + h, beta=2.0) - swish(x - h, beta=2.0)) / (2 * h))

# The derivative is itself made of known functions, so the second one comes for free.
second = nnx.grad(nnx.grad(lambda x: swish(x)))
print("second derivative at 0:", second(0.0))
