"""The cases written for PyTorch, eager. Imported only where PyTorch is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .cases import Array, OpCase, OpInputs, Prepared, StepCase, StepInputs

torch: Any = importlib.import_module("torch")
F = torch.nn.functional

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": torch.abs,
    "add": torch.add,
    "affine": lambda x, W, b: torch.addmm(b, x, W),
    "astype": lambda x, dtype: x.to(getattr(torch, dtype)),
    "categorical_crossentropy": lambda y, t: (-t * torch.log(y)).mean(),
    "clip": torch.clamp,
    "concat": lambda *xs: torch.cat(xs),
    "divide": torch.div,
    "elu": F.elu,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "gelu": F.gelu,
    "getitem": lambda x, index: x[index],
    "huber": F.huber_loss,
    "leaky_relu": F.leaky_relu,
    "log": torch.log,
    "log1p": torch.log1p,
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x, axis: torch.logsumexp(x, axis),
    "matmul": torch.matmul,
    "max": torch.amax,
    "maximum": torch.maximum,
    "mean": torch.mean,
    "mean_absolute_error": F.l1_loss,
    "mean_squared_error": F.mse_loss,
    "min": torch.amin,
    "minimum": torch.minimum,
    "multiply": torch.mul,
    "negative": torch.neg,
    "pow": torch.pow,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "sigmoid_cross_entropy": F.binary_cross_entropy_with_logits,
    "silu": F.silu,
    "softmax": lambda x: torch.softmax(x, -1),
    "softmax_cross_entropy": F.cross_entropy,
    "softplus": F.softplus,
    "sqrt": torch.sqrt,
    "stack": lambda *xs: torch.stack(xs),
    "subtract": torch.sub,
    "sum": torch.sum,
    "take": lambda x, indices: F.embedding(indices, x),
    "tanh": torch.tanh,
    "var": lambda x, axis: torch.var(x, axis, correction=0),
    "where": torch.where,
}


def _tensor(device: str, array: Array, requires_grad: bool = False) -> Any:
    return torch.tensor(array, device=device, requires_grad=requires_grad)


def _values(found: list[Any]) -> list[Array]:
    return [t.detach().cpu().numpy() for t in found]


def _synchronize(device: str) -> Callable[[], None]:
    wait: Callable[[], None] = torch.cuda.synchronize
    return wait if device == "cuda" else lambda: None


def op(device: str, case: OpCase, inputs: OpInputs, backward: bool) -> Prepared | None:
    """The op as PyTorch's users call it; gradients through its autograd."""
    f, attrs, smooth = FUNCTIONS[case.op], case.attrs, frozenset(case.smooth)
    args = [_tensor(device, a, backward and i in smooth) for i, a in enumerate(inputs.args)]
    leaves = [a for a in args if a.requires_grad]
    dy = _tensor(device, inputs.dy)

    def run() -> list[Any]:
        for leaf in leaves:
            leaf.grad = None
        y = f(*args, **attrs)
        if backward:
            y.backward(dy)
        return [y, *(leaf.grad for leaf in leaves)]

    return Prepared(run, _values, _synchronize(device))


def network(device: str, weights: list[tuple[Array, Array]]) -> Any:
    layers: list[Any] = []
    for W, b in weights:
        linear = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(W.T))
            linear.bias.copy_(torch.tensor(b))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).to(device)


def step(device: str, case: StepCase, inputs: StepInputs) -> Prepared:
    """A training step with torch.optim.SGD, or a prediction under inference_mode."""
    net = network(device, inputs.weights)
    x, t = _tensor(device, inputs.x), _tensor(device, inputs.t)
    optimizer = torch.optim.SGD(net.parameters(), lr=case.lr)

    def train() -> list[Any]:
        optimizer.zero_grad()
        value = F.cross_entropy(net(x), t)
        value.backward()
        optimizer.step()
        return [value]

    def predict() -> list[Any]:
        with torch.inference_mode():
            return [net(x)]

    return Prepared(train if case.train else predict, _values, _synchronize(device))
