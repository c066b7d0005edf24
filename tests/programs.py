"""Small random training programs: layers, a loss, a step, and what happens between steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnx
from nnx import layers as L
from nnx import optim

Block = Callable[[Any], Any]
ACTIVATIONS = ("relu", "sigmoid", "tanh", "silu", "gelu", "softplus", "elu", "leaky_relu")
ELEMENTWISE: list[Block] = [
    lambda h: h * h, lambda h: nnx.where(h > 0.0, h, h * 0.1), lambda h: (h + 2.0) ** 2,
    lambda h: nnx.sqrt(h * h + 1.0), lambda h: abs(h) - h / (1.0 + h * h), nnx.softmax,
    lambda h: nnx.erf(h) - nnx.expm1(-abs(h)), lambda h: nnx.maximum(h, 0.3) ** 3,
    lambda h: nnx.clip(h, -1.0, 1.0), lambda h: nnx.log_softmax(h, axis=0), lambda h: h[::-1],
    lambda h: nnx.permute_dims(nnx.permute_dims(h, (1, 0)), (1, 0)) * 1.5,
    lambda h: h - nnx.mean(h, axis=1, keepdims=True), lambda h: h[:, -1:] * h,
    lambda h: h - nnx.logsumexp(h, axis=1, keepdims=True), lambda h: h + nnx.mean(h),
    lambda h: h / nnx.sqrt(nnx.var(h, axis=1, keepdims=True) + 1e-3),
    lambda h: h * nnx.sum(h, axis=0, keepdims=True) * 0.1,
    lambda h: h - nnx.max(h, axis=1, keepdims=True), lambda h: nnx.sum(nnx.stack([h, h * h]), 0),
]  # fmt: skip
LOSSES: list[Callable[[Any, Any], Any]] = [
    nnx.softmax_cross_entropy,
    lambda y, t: nnx.softmax_cross_entropy(y, t, ignore_index=0),
    lambda y, t: nnx.softmax_cross_entropy(y, t, label_smoothing=0.1, reduction="sum") * 0.01,
    lambda y, t: nnx.sum(nnx.softmax_cross_entropy(y, t, reduction="none") * 0.3),
    lambda y, t: nnx.mean_squared_error(y, y.detach() * 0.5),
    lambda y, t: nnx.huber(y, y.detach() * 0.2),
    lambda y, t: nnx.mean(nnx.tanh(y)),
]
OPTIMIZERS: list[Callable[[Any], optim.Optimizer]] = [
    lambda ps: optim.SGD(ps, 0.05, weight_decay=0.01),
    lambda ps: optim.SGD(ps, 0.05, momentum=0.9, nesterov=True),
    lambda ps: optim.AdaGrad(ps),
    lambda ps: optim.RMSProp(ps, centered=True, momentum=0.9),
    lambda ps: optim.Adam(ps),
    lambda ps: optim.AdamW(ps),
]


class Net(L.Layer):
    """Blocks one after the other, drawn at random; `found` has those with parameters."""

    def __init__(self, rng: np.random.Generator, dtype: str) -> None:
        self.rng, self.dtype, self.width = rng, dtype, int(rng.choice([1, 3, 16]))
        self.found: list[Any] = []
        self.inputs, makers = self.width, (self.linear, self.linear, self.activation, self.dropout)
        more = (self.elementwise, self.elementwise, self.scaled, self.picked, self.residual)
        chosen = rng.integers(0, len(makers) + len(more) + 1, rng.integers(2, 7))
        self._blocks = [(*makers, *more, self.tied)[i]() for i in chosen]
        self._blocks.append(self.linear(5))

    def forward(self, x: Any) -> Any:
        for block in self._blocks:
            x = block(x)
        return x

    def linear(self, n: int = 0) -> Block:
        before, self.width = self.width, n or int(self.rng.choice([1, 2, 8, 17]))
        bias = bool(self.rng.random() < 0.7)
        self.found.append(L.Linear(before, self.width, bias=bias, dtype=self.dtype))
        return self.found[-1]  # type: ignore[no-any-return]

    def activation(self) -> Block:
        return getattr(nnx, str(self.rng.choice(ACTIVATIONS)))  # type: ignore[no-any-return]

    def dropout(self) -> Block:
        self.found.append(L.Dropout(0.3))
        return self.found[-1]  # type: ignore[no-any-return]

    def elementwise(self) -> Block:
        return ELEMENTWISE[self.rng.integers(len(ELEMENTWISE))]

    def scaled(self) -> Block:
        p = nnx.Parameter(self.rng.standard_normal(self.width).astype(self.dtype))
        self.found.append(p)
        return (lambda h: h * p, lambda h: p - h, lambda h: h + p)[self.rng.integers(3)]

    def picked(self) -> Block:
        ids = self.rng.integers(0, self.width, 5)
        options: list[tuple[Block, int]] = [
            (lambda h: h[:, ::2], (self.width + 1) // 2),
            (lambda h: nnx.take(h, ids, axis=1), 5),
            (lambda h: h[:, ids], 5),
            (lambda h: nnx.concat([h, h * 2.0], axis=1), 2 * self.width),
        ]
        block, self.width = options[self.rng.integers(len(options))]
        return block

    def residual(self) -> Block:
        layer, activation = self.linear(self.width), self.activation()
        return lambda h: h + activation(layer(h))

    def tied(self) -> Block:
        """A layer that is there already, or its transpose."""
        layers = [x for x in self.found if isinstance(x, L.Linear) and self.width in x.W.shape]
        if not layers:
            return self.activation()
        layer, forward = layers[0], self.width == layers[0].W.shape[0]
        self.width = layer.W.shape[forward]
        return layer if forward else lambda h: h @ layer.W.T


class Program:
    """A network, optimizers and a step, all drawn from the seed.

    wrap   makes of the step what is called: `nnx.capture`, or the identity
    """

    def __init__(self, seed: int, wrap: Callable[..., Any]) -> None:
        self.rng = rng = np.random.default_rng(seed)
        nnx.seed(seed)
        self.net = Net(rng, str(rng.choice(["float32", "float64"])))
        self.loss = LOSSES[rng.integers(len(LOSSES))]
        self.zero, self.clip, self.back, self.given = (int(i) for i in rng.integers(0, 4, 4))
        make, self.rows, self.layout = OPTIMIZERS[rng.integers(len(OPTIMIZERS))], 5, 0
        ps, self.held = self.net.parameters(), list[Any]()
        some = int(rng.integers(0, len(ps)))
        self.optimizers = [make(ps[:some]), make(ps[max(some - 1, 0) :])] if some else [make(ps)]
        self.call = wrap(self.step)

    def step(self, x: Any, t: Any) -> Any:
        if self.zero < 2:
            self.net.zero_grad()
        y = self.net(nnx.Tensor(x))
        loss = self.loss(y, t)
        if self.back == 0:
            loss.backward(retain_graph=True)
        (loss * 0.5 if self.back == 1 else loss).backward()
        ps = self.net.parameters()
        norm = optim.clip_grad_norm(ps, 0.1) if self.clip == 0 else None
        if self.clip == 1:
            optim.clip_grad_value(ps, 0.01)
        for optimizer in self.optimizers:
            optimizer.step()
        made = (loss, (loss, y, y[:1], norm), (y.T, ps[0].grad), {"x": x, "W": ps[-1].data})
        if self.zero == 2:
            self.net.zero_grad()
        return made[self.given]

    def batch(self) -> tuple[Any, Any]:
        x = self.rng.standard_normal((self.rows, self.net.inputs)).astype(self.net.dtype)
        layouts = (x, x, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x[::-1])
        return layouts[self.layout], self.rng.integers(0, 5, self.rows)

    def state(self) -> Any:
        """All that a step may change."""
        ps, random = self.net.parameters(), nnx.random.generator().bit_generator.state
        saved = [optimizer.state_dict() for optimizer in self.optimizers]
        return [p.data for p in ps], [p.grad for p in ps], saved, random

    def happen(self) -> str:
        """One of the events, or nothing; its name."""
        names = [name for name in dir(self) if name.startswith("event_")]
        name = str(self.rng.choice([*names, *["nothing"] * len(names)]))
        ps = self.net.parameters()
        getattr(self, name, lambda p: None)(ps[self.rng.integers(len(ps))])
        return name

    def event_option(self, p: nnx.Parameter) -> None:
        option = str(self.rng.choice(["lr", "lr", "weight_decay"]))
        self.optimizers[0].param_groups[0][option] = float(self.rng.choice([0, 0.01, 0.1]))

    def event_batch(self, p: nnx.Parameter) -> None:
        self.rows, self.layout = int(self.rng.choice([1, 2, 5, 16])), int(self.rng.integers(5))

    def event_freeze(self, p: nnx.Parameter) -> None:
        if p is not self.net.parameters()[-1]:  # something is to be learned
            p.requires_grad = not p.requires_grad

    def event_mode(self, p: nnx.Parameter) -> None:
        self.net.train(not self.net.training)

    def event_assign(self, p: nnx.Parameter) -> None:
        p.data = p.data * float(self.rng.choice([0.5, 1.0]))
        p.grad = None if self.rng.random() < 0.3 else np.full(p.shape, 0.01, p.dtype)

    def event_hold(self, p: nnx.Parameter) -> None:
        options = (p.grad, p.data, None if p.grad is None else p.grad.T)
        self.held = [*self.held[self.rng.integers(2) :], options[self.rng.integers(3)]]

    def event_load(self, p: nnx.Parameter) -> None:
        if self.rng.random() < 0.5:
            self.net.load_state_dict({k: v * 0.9 for k, v in self.net.state_dict().items()})
        for optimizer in self.optimizers:
            optimizer.load_state_dict(optimizer.state_dict())

    def event_cast(self, p: nnx.Parameter) -> None:
        self.net.astype("float16").astype(self.net.dtype)

    def event_seed(self, p: nnx.Parameter) -> None:
        nnx.seed(int(self.rng.integers(100)))
