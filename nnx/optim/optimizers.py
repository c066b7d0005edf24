"""SGD, AdaGrad, RMSProp, Adam, AdamW.

theta: a parameter, g: its gradient, t: its step 1, 2, ...; weight_decay adds
weight_decay * theta to g except in AdamW.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..errors import OptionError
from . import kernels
from .optimizer import Group, Optimizer, Plan


def _floats(group: Group, *names: str) -> dict[str, Any]:
    """NumPy's scalars would not be weak: a float32 parameter would be computed in float64."""
    return {name: float(group[name]) for name in names}


class SGD(Optimizer):
    """Gradient descent, with momentum or Nesterov's.

        theta <- theta - lr g                             momentum = 0
        m <- g at t = 1, then momentum m + (1 - dampening) g
        theta <- theta - lr m                             momentum > 0
        theta <- theta - lr (g + momentum m)              nesterov

    Defaults: lr=1e-3, momentum=0, dampening=0, nesterov=False, weight_decay=0.
    Sutskever et al. (2013), with lr outside m as in PyTorch.
    """

    defaults: ClassVar = {
        "lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0
    }  # fmt: skip

    def __init__(
        self, params: Any, lr: float = 1e-3, *, momentum: float = 0.0, dampening: float = 0.0,
        nesterov: bool = False, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov,
            weight_decay=weight_decay,
        )  # fmt: skip

    def check(self, group: Group) -> None:
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise OptionError(
                f"SGD: nesterov=True with momentum={group['momentum']}, "
                f"dampening={group['dampening']}; expected momentum > 0 and dampening = 0"
            )

    def plan(self, group: Group) -> Plan:
        if not group["momentum"]:
            return Plan(kernels.sgd, (), _floats(group, "weight_decay"))
        attrs = _floats(group, "momentum", "weight_decay")
        attrs["nesterov"] = group["nesterov"]
        return Plan(kernels.momentum, ("m",), attrs)

    def numbers(self, group: Group, step: int) -> tuple[float, ...]:
        lr = float(group["lr"])
        if not group["momentum"]:
            return (lr,)
        return lr, 1.0 if step == 1 else 1 - float(group["dampening"])


class AdaGrad(Optimizer):
    """A step for each weight that falls as its squared gradients add up.

        s <- s + g^2,  s_0 = initial_accumulator_value
        theta <- theta - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

    Defaults: lr=1e-2, lr_decay=0, initial_accumulator_value=0, eps=1e-10, weight_decay=0.
    Duchi, Hazan and Singer (2011).
    """

    defaults: ClassVar = {
        "lr": 1e-2, "lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10,
        "weight_decay": 0.0,
    }  # fmt: skip

    def __init__(
        self, params: Any, lr: float = 1e-2, *, lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
        )  # fmt: skip

    def plan(self, group: Group) -> Plan:
        return Plan(kernels.adagrad, ("s",), _floats(group, "eps", "weight_decay"))

    def numbers(self, group: Group, step: int) -> tuple[float, ...]:
        return (float(group["lr"]) / (1 + (step - 1) * float(group["lr_decay"])),)

    def initial(self, group: Group) -> float:
        return float(group["initial_accumulator_value"])


class RMSProp(Optimizer):
    """Gradients divided by the root of their recent mean square.

        v <- alpha v + (1 - alpha) g^2
        d = sqrt(v) + eps, or sqrt(v - a^2) + eps if centered, a <- alpha a + (1 - alpha) g
        theta <- theta - lr g / d                         momentum = 0
        m <- momentum m + g / d;  theta <- theta - lr m   momentum > 0

    Defaults: lr=1e-2, alpha=0.99, eps=1e-8, momentum=0, centered=False, weight_decay=0.
    Tieleman and Hinton (2012), lecture 6.5; centered: Graves (2013), eq. 38-45. A v - a^2 that
    rounding brings below 0 counts as 0 (PyTorch gives NaN).
    """

    defaults: ClassVar = {
        "lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False,
        "weight_decay": 0.0,
    }  # fmt: skip

    def __init__(
        self, params: Any, lr: float = 1e-2, *, alpha: float = 0.99, eps: float = 1e-8,
        momentum: float = 0.0, centered: bool = False, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered,
            weight_decay=weight_decay,
        )  # fmt: skip

    def plan(self, group: Group) -> Plan:
        attrs = _floats(group, "alpha", "eps", "weight_decay")
        if not group["momentum"]:
            if group["centered"]:
                return Plan(kernels.rmsprop_centered, ("v", "a"), attrs)
            return Plan(kernels.rmsprop, ("v",), attrs)
        attrs["momentum"] = float(group["momentum"])
        if group["centered"]:
            return Plan(kernels.rmsprop_centered_momentum, ("v", "a", "m"), attrs)
        return Plan(kernels.rmsprop_momentum, ("v", "m"), attrs)

    def numbers(self, group: Group, step: int) -> tuple[float, ...]:
        return (float(group["lr"]),)


class Adam(Optimizer):
    """Momentum over the root of the mean square, both corrected for their start at 0.

        m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
        theta <- theta - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Defaults: lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.
    Kingma and Ba (2015), algorithm 1.
    """

    defaults: ClassVar = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}

    def __init__(
        self, params: Any, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def plan(self, group: Group) -> Plan:
        beta1, beta2 = map(float, group["betas"])
        attrs = {"beta1": beta1, "beta2": beta2, "weight_decay": float(group["weight_decay"])}
        return Plan(kernels.adam, ("m", "v"), attrs)

    def numbers(self, group: Group, step: int) -> tuple[float, ...]:
        beta1, beta2 = map(float, group["betas"])
        root = math.sqrt(1 - beta2**step)
        return float(group["lr"]) * root / (1 - beta1**step), float(group["eps"]) * root


class AdamW(Adam):
    """Adam with weight decay beside the gradient, not in it.

        theta <- (1 - lr weight_decay) theta, then Adam's step with weight_decay = 0

    Defaults: lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2.
    Loshchilov and Hutter (2019), algorithm 2 with lr in the decay as in PyTorch.
    """

    defaults: ClassVar = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}

    def __init__(
        self, params: Any, lr: float = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def plan(self, group: Group) -> Plan:
        beta1, beta2 = map(float, group["betas"])
        return Plan(kernels.adamw, ("m", "v"), {"beta1": beta1, "beta2": beta2})

    def numbers(self, group: Group, step: int) -> tuple[float, ...]:
        shrink = 1 - float(group["lr"]) * float(group["weight_decay"])
        return *super().numbers(group, step), shrink
