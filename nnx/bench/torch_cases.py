"""The cases written for PyTorch. Imported only where PyTorch is installed."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple

from .case import Case, Prepared
from .cases import LeNetCase, NetworkCase, OpCase
from .op_table import Array
from .sequences import BlockCase, LSTMCase

torch: Any = importlib.import_module("torch")
F = torch.nn.functional

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": torch.abs,
    "add": torch.add,
    "affine": lambda x, W, b: torch.addmm(b, x, W),
    "attention": lambda q, k, v, causal: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
    "astype": lambda x, dtype: x.to(getattr(torch, dtype)),
    "avg_pool2d": lambda x, size: F.avg_pool2d(x, size),
    "categorical_crossentropy": lambda y, t: (-t * torch.log(y)).mean(),
    "clip": torch.clamp,
    "concat": lambda *xs: torch.cat(xs),
    "conv2d": F.conv2d,
    "divide": torch.div,
    "elu": F.elu,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "gelu": F.gelu,
    "getitem": lambda x, index: x[index],
    "huber": F.huber_loss,
    "layer_norm": lambda x, g, b: F.layer_norm(x, g.shape, g, b),
    "leaky_relu": F.leaky_relu,
    "log": torch.log,
    "log1p": torch.log1p,
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x, axis: torch.logsumexp(x, axis),
    "matmul": torch.matmul,
    "max": torch.amax,
    "max_pool2d": lambda x, size: F.max_pool2d(x, size),
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
    "rms_norm": lambda x, g: F.rms_norm(x, g.shape, g, 1e-6),
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


class Variant(NamedTuple):
    """A way to use PyTorch: fused optimizers, `torch.compile`, a GPU, steps as CUDA graphs."""

    fused: bool = False
    compiled: bool = False
    device: str = "cpu"
    graphed: bool = False


VARIANTS = {
    "torch": Variant(),
    "torch-fused": Variant(fused=True),
    "torch-compile": Variant(compiled=True),
    "torch-thp": Variant(),  # the same in an environment of its own
    "torch-cuda": Variant(device="cuda"),
    "torch-cuda-graphs": Variant(device="cuda", graphed=True),
}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def set_threads(n: int) -> None:
    """Limit this process to n threads."""
    torch.set_num_threads(n)


def set_precision(precision: str) -> None:
    """Of float32 products, convolutions and recurrent layers on a GPU: "float32" or "tf32".

    Without it only products are exact. The older switches, because every version has them; to mix
    them with `fp32_precision` is an error of PyTorch's.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def prepare(name: str, case: Case) -> Prepared | None:
    """The case with that variant of PyTorch."""
    made = PREPARE.get(case.kind)
    return None if made is None else made(VARIANTS[name], case)


def _tensor(variant: Variant, array: Array, requires_grad: bool = False) -> Any:
    return torch.tensor(array, device=variant.device, requires_grad=requires_grad)


def _values(found: list[Any]) -> list[Array]:
    return [t.detach().cpu().numpy() for t in found]


def _synchronize(variant: Variant) -> Callable[[], None]:
    wait: Callable[[], None] = torch.cuda.synchronize
    return wait if variant.device == "cuda" else lambda: None


def _compiled(variant: Variant, fn: Callable[..., Any]) -> Callable[..., Any]:
    made: Callable[..., Any] = torch.compile(fn) if variant.compiled else fn
    return made


def op(variant: Variant, case: OpCase) -> Prepared:
    """The op as PyTorch's users call it; gradients through its autograd."""
    inputs, smooth = case.inputs(), frozenset(case.spec.smooth)
    f, attrs, backward = _compiled(variant, FUNCTIONS[case.op]), case.spec.attrs, case.backward
    args = [_tensor(variant, a, backward and i in smooth) for i, a in enumerate(inputs.args)]
    leaves = [a for a in args if a.requires_grad]
    dy = _tensor(variant, inputs.dy)

    def forward() -> list[Any]:
        return [f(*args, **attrs)]

    def both() -> list[Any]:
        for leaf in leaves:
            leaf.grad = None
        f(*args, **attrs).backward(dy)
        return [leaf.grad for leaf in leaves]

    return Prepared(both if backward else forward, _values, _synchronize(variant))


def _network(variant: Variant, weights: list[tuple[Array, Array]]) -> Any:
    layers: list[Any] = []
    for W, b in weights:
        linear = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(W.T))
            linear.bias.copy_(torch.tensor(b))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).to(variant.device)


def network(variant: Variant, case: NetworkCase) -> Prepared:
    """A training step, or a prediction under inference_mode.

    Compiled: the loss with its gradient, and the optimizer's step.
    """
    inputs = case.inputs()
    net = _network(variant, inputs.weights)
    if not case.trains:
        return _prediction(variant, net, cycle([(_tensor(variant, x),) for x, _ in inputs.batches]))
    return _training(variant, net, net, OPTIMIZERS[case.optimizer], case.rate, inputs.batches)


def lenet(variant: Variant, case: LeNetCase) -> Prepared:
    """A training step of the same network."""
    nn, inputs = torch.nn, case.inputs()
    layers = [
        nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5), nn.Linear(400, 120),
        nn.Linear(120, 84), nn.Linear(84, 10),
    ]  # fmt: skip
    with torch.no_grad():
        for layer, (W, b) in zip(layers, inputs.weights, strict=True):
            layer.weight.copy_(torch.tensor(W.T if W.ndim == 2 else W))
            layer.bias.copy_(torch.tensor(b))
    first, second, *linear, last = layers
    pooled = [(conv, nn.ReLU(), nn.MaxPool2d(2)) for conv in (first, second)]
    hidden = [(layer, nn.ReLU()) for layer in linear]
    net = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)), *pooled[0], *pooled[1], nn.Flatten(), *hidden[0], *hidden[1],
        last,
    ).to(variant.device)  # fmt: skip
    return _training(variant, net, net, torch.optim.Adam, case.rate, inputs.batches)


def lstm(variant: Variant, case: LSTMCase) -> Prepared:
    """PyTorch's layer; of its two biases one stays 0."""
    weights, batches = case.inputs()
    net = torch.nn.LSTM(case.width, case.hidden, batch_first=True)
    net.bias_hh_l0.requires_grad_(False)
    with torch.no_grad():
        for name, w in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b")):
            getattr(net, f"{name}_l0").copy_(torch.tensor(weights[w].T))
        net.bias_hh_l0.zero_()
    net.to(variant.device)
    sgd = torch.optim.SGD
    return _training(variant, net, lambda x: net(x)[0], sgd, case.rate, batches, F.mse_loss)


def block(variant: Variant, case: BlockCase) -> Prepared:
    """As PyTorch's users write it, around its fused attention."""
    (weights, batches), nn, width = case.inputs(), torch.nn, case.width
    net = nn.ModuleDict({
        "norm1": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width),
        "out": nn.Linear(width, width), "norm2": nn.LayerNorm(width),
        "mlp0": nn.Linear(width, 4 * width), "mlp3": nn.Linear(4 * width, width),
    })  # fmt: skip
    with torch.no_grad():
        for name, w in weights.items():
            layer, _, kind = name.removeprefix("attention.").rpartition(".")
            made = net[layer.replace(".", "")]
            (made.weight if kind in ("W", "gamma") else made.bias).copy_(torch.tensor(w.T))
    net.to(variant.device)

    def forward(x: Any) -> Any:
        shape = (*x.shape[:2], case.heads, width // case.heads)
        parts = net["qkv"](net["norm1"](x)).split(width, -1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + net["out"](y.transpose(1, 2).reshape(x.shape))
        return x + net["mlp3"](F.gelu(net["mlp0"](net["norm2"](x))))

    return _training(variant, net, forward, torch.optim.SGD, case.rate, batches, F.mse_loss)


def _training(
    variant: Variant, net: Any, forward: Any, make: Any, rate: float,
    given: list[tuple[Array, Array]], loss_of: Any = F.cross_entropy,
) -> Prepared:  # fmt: skip
    """forward   the network's function, `net` itself if that is it"""
    batches = cycle([(_tensor(variant, x), _tensor(variant, t)) for x, t in given])
    options = {"fused": True} if variant.fused else {}
    if variant.graphed and make is torch.optim.Adam:
        options["capturable"] = True
    learned = [p for p in net.parameters() if p.requires_grad]
    optimizer = make(learned, lr=rate, **options)
    loss = _compiled(variant, lambda x, t: loss_of(forward(x), t))
    if variant.graphed:
        step = _graphed(net, optimizer, loss, batches)
        return Prepared(step, _values, _synchronize(variant))
    update = _compiled(variant, optimizer.step)

    def train() -> list[Any]:
        x, t = next(batches)
        optimizer.zero_grad()
        value = loss(x, t)
        value.backward()
        update()
        return [value]

    return Prepared(train, _values, _synchronize(variant))


def _graphed(
    net: Any, optimizer: Any, loss: Any, batches: Iterator[tuple[Any, Any]]
) -> Callable[[], Any]:
    """The whole step as one CUDA graph, as PyTorch's documentation shows it; from its start."""
    x, t = (batch.clone() for batch in next(batches))
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss(x, t)
        value.backward()
        optimizer.step()
        return value

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()
    with torch.no_grad():
        net.load_state_dict(before)
        for state in optimizer.state.values():
            for kept in state.values():
                if torch.is_tensor(kept):
                    kept.zero_()
    again = itertools.chain([(x.clone(), t.clone())], batches)

    def replay() -> list[Any]:
        for target, given in zip((x, t), next(again), strict=True):
            target.copy_(given)
        graph.replay()
        return [value]

    return replay


def _prediction(variant: Variant, net: Any, batches: Iterator[tuple[Any]]) -> Prepared:
    net = _compiled(variant, net.eval())

    def predict() -> list[Any]:
        with torch.inference_mode():
            return [net(next(batches)[0])]

    return Prepared(predict, _values, _synchronize(variant))


PREPARE: dict[str, Callable[[Variant, Any], Prepared | None]] = {
    "network": network,
    "lenet": lenet,
    "lstm": lstm,
    "block": block,
    "op": op,
}
