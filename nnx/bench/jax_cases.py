"""The cases written for JAX, compiled with `jax.jit`. Imported only where JAX is installed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

from .case import Case, Prepared
from .cases import NetworkCase, OpCase
from .op_table import Array

jax: Any = importlib.import_module("jax")
np: Any = jax.numpy
nn: Any = importlib.import_module("jax.nn")
tree_map: Any = importlib.import_module("jax.tree_util").tree_map


def _cross_entropy(x: Any, t: Any) -> Any:
    return -np.mean(np.take_along_axis(nn.log_softmax(x), t[:, None], 1))


def _huber(y: Any, t: Any) -> Any:
    d = np.abs(y - t)
    return np.mean(np.where(d < 1, 0.5 * d * d, d - 0.5))


def _conv(x: Any, W: Any, b: Any, padding: int) -> Any:
    y = jax.lax.conv_general_dilated(x, W, (1, 1), [(padding, padding)] * 2)
    return y + b[:, None, None]


def _pool(x: Any, size: int, start: float, f: Any) -> Any:
    window = (1, 1, size, size)
    return jax.lax.reduce_window(x, start, f, window, window, "VALID")


def _layer_norm(x: Any, g: Any, b: Any) -> Any:
    centred = x - np.mean(x, -1, keepdims=True)
    return centred * jax.lax.rsqrt(np.mean(centred**2, -1, keepdims=True) + 1e-5) * g + b


def _attention(q: Any, k: Any, v: Any, causal: bool) -> Any:
    s = q @ k.mT / q.shape[-1] ** 0.5
    return nn.softmax(np.where(np.tri(*s.shape[-2:], dtype=bool), s, -math.inf)) @ v


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "affine": lambda x, W, b: x @ W + b,
    "attention": _attention,
    "avg_pool2d": lambda x, size: _pool(x, size, 0.0, jax.lax.add) / size**2,
    "categorical_crossentropy": lambda y, t: np.mean(-t * np.log(y)),
    "clip": np.clip,
    "concat": lambda *xs: np.concatenate(xs),
    "conv2d": _conv,
    "divide": np.divide,
    "elu": nn.elu,
    "erf": jax.scipy.special.erf,
    "exp": np.exp,
    "expm1": np.expm1,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "getitem": lambda x, index: x[index],
    "huber": _huber,
    "layer_norm": _layer_norm,
    "leaky_relu": nn.leaky_relu,
    "log": np.log,
    "log1p": np.log1p,
    "log_softmax": nn.log_softmax,
    "logsumexp": nn.logsumexp,
    "matmul": np.matmul,
    "max": np.max,
    "max_pool2d": lambda x, size: _pool(x, size, -math.inf, jax.lax.max),
    "maximum": np.maximum,
    "mean": np.mean,
    "mean_absolute_error": lambda y, t: np.mean(np.abs(y - t)),
    "mean_squared_error": lambda y, t: np.mean(np.square(y - t)),
    "min": np.min,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "negative": np.negative,
    "pow": np.power,
    "relu": nn.relu,
    "rms_norm": lambda x, g: x * jax.lax.rsqrt(np.mean(x * x, -1, keepdims=True) + 1e-6) * g,
    "sigmoid": nn.sigmoid,
    "sigmoid_cross_entropy": lambda x, t: np.mean(nn.softplus(x) - x * t),
    "silu": nn.silu,
    "softmax": nn.softmax,
    "softmax_cross_entropy": _cross_entropy,
    "softplus": nn.softplus,
    "sqrt": np.sqrt,
    "stack": lambda *xs: np.stack(xs),
    "subtract": np.subtract,
    "sum": np.sum,
    "take": lambda x, indices: x[indices],
    "tanh": np.tanh,
    "var": np.var,
    "where": np.where,
}


def prepare(case: Case) -> Prepared | None:
    """The case with JAX, or None where it has none (float64)."""
    made = PREPARE.get(case.kind)
    return None if made is None else made(case)


def _array(a: Array) -> Any:
    return jax.device_put(a.astype("int32") if a.dtype.kind == "i" else a)


def _waiting(run: Callable[[], Any], values: Callable[[Any], list[Array]]) -> Prepared:
    """Each call waits for its result: unlike steps, calls of their own might run side by side."""
    return Prepared(lambda: jax.block_until_ready(run()), values)


def _host(arrays: Any) -> list[Array]:
    import numpy

    return [numpy.asarray(a) for a in arrays]


def op(case: OpCase) -> Prepared | None:
    """The op compiled; its gradients by `jax.vjp`, compiled together with it."""
    if case.op not in FUNCTIONS:
        return None
    inputs, smooth = case.inputs(), case.spec.smooth
    args, dy = [_array(a) for a in inputs.args], _array(inputs.dy)
    f, attrs = FUNCTIONS[case.op], case.spec.attrs

    def forward(args: list[Any], dy: Any) -> list[Any]:
        return [f(*args, **attrs)]

    def both(args: list[Any], dy: Any) -> list[Any]:
        def of_smooth(*chosen: Any) -> Any:
            given = dict(zip(smooth, chosen, strict=True))
            return f(*(given.get(i, a) for i, a in enumerate(args)), **attrs)

        y, back = jax.vjp(of_smooth, *(args[i] for i in smooth))
        return [y, *back(dy)]  # y too, or its computation would be left out

    call = jax.jit(both if case.backward else forward)
    return _waiting(
        lambda: call(args, dy), lambda found: _host(found[1:] if case.backward else found)
    )


def _forward(params: list[tuple[Any, Any]], x: Any) -> Any:
    for W, b in params[:-1]:
        x = nn.relu(x @ W + b)
    return x @ params[-1][0] + params[-1][1]


def _loss(params: list[tuple[Any, Any]], x: Any, t: Any) -> Any:
    return _cross_entropy(_forward(params, x), t)


def _sgd(rate: float, params: Any, grads: Any, moments: Any) -> tuple[Any, Any]:
    return tree_map(lambda p, g: p - rate * g, params, grads), moments


def _adam(rate: float, params: Any, grads: Any, moments: Any) -> tuple[Any, Any]:
    m, v, count = moments
    count = count + 1
    m = tree_map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    # 1 - beta**count without the cancellation that float32 suffers in the first steps
    to_m, to_v = (-1 / np.expm1(count * math.log(beta)) for beta in (0.9, 0.999))
    params = tree_map(
        lambda p, m, v: p - rate * to_m * m / (np.sqrt(to_v * v) + 1e-8), params, m, v
    )
    return params, (m, v, count)


OPTIMIZERS: dict[str, Callable[..., tuple[Any, Any]]] = {"sgd": _sgd, "adam": _adam}


def network(case: NetworkCase) -> Prepared:
    """A training step as one compiled function that overwrites its state, or a prediction."""
    inputs = case.inputs()
    params = [(_array(W), _array(b)) for W, b in inputs.weights]
    batches = cycle([(_array(x), _array(t)) for x, t in inputs.batches])
    if not case.trains:
        predict = jax.jit(_forward)
        return _waiting(lambda: predict(params, next(batches)[0]), lambda found: _host([found]))
    optimizer = OPTIMIZERS[case.optimizer]

    def step(state: Any, x: Any, t: Any) -> tuple[Any, Any]:
        params, moments = state
        loss, grads = jax.value_and_grad(_loss)(params, x, t)
        return optimizer(case.rate, params, grads, moments), loss

    compiled = jax.jit(step, donate_argnums=0)
    zeros = tree_map(np.zeros_like, params)
    moments = (zeros, tree_map(np.zeros_like, params), np.zeros((), "float32"))
    state = [(params, moments if case.optimizer == "adam" else ())]

    def train() -> Any:
        state[0], loss = compiled(state[0], *next(batches))
        return loss

    return Prepared(train, lambda loss: _host([loss]), lambda: jax.block_until_ready(state[0]))


PREPARE: dict[str, Callable[[Any], Prepared | None]] = {"network": network, "op": op}
