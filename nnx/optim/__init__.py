"""Optimizers, and clipping of gradients. Formulas and defaults are PyTorch's."""

from . import schedules
from .clip import clip_grad_norm, clip_grad_value
from .optimizer import Optimizer
from .optimizers import SGD, AdaGrad, Adam, AdamW, RMSProp

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSProp",
    "clip_grad_norm",
    "clip_grad_value",
    "schedules",
]
