"""One network on every backend that works here.

Run it with `python examples/switching_backends.py`.
"""

from __future__ import annotations

import numpy as np

import nnx
from nnx import layers as L

# Asking is safe: a backend that cannot be used says why and what would help.
for name, backend in nnx.backends().items():
    print(f"{name}: {'available' if backend.available else backend.reason}")

nnx.set_backend("numpy")  # the whole process, until it is set again
nnx.seed(0)
net = L.Sequential(L.Linear(64, 32), L.Relu(), L.Linear(32, 10))
batch = nnx.data.load("digits").x[:5]
expected = net.forward(batch)

for name, backend in nnx.backends().items():
    if not backend.available:
        continue
    # Creation follows the current backend, so x is made there ...
    with nnx.use_backend(name):
        x = nnx.asarray(batch)
    # ... computation follows the arrays, so this does not depend on where it stands.
    net.to(name)
    y = net.forward(x)
    same = np.allclose(nnx.to_numpy(y), expected, atol=1e-5)
    print(f"{name}: {type(y).__module__}.{type(y).__name__}, same values: {same}")
net.to("numpy")

# Nothing moves silently. A backend that is not there is refused, and the old one stays.
try:
    nnx.set_backend("tpu")
except nnx.UnknownBackendError as error:
    print(error)
print("still:", nnx.get_backend().name)
