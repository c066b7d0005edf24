"""Layers: parameters and ops."""

from .activations import (
    Elu,
    Gelu,
    LeakyRelu,
    LogSoftmax,
    Relu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
)
from .base import Layer
from .book import AddNode, Affine, Loss, MulNode
from .linear import Dropout, Flatten, Linear, Residual, Sequential
from .losses import (
    CategoricalCrossentropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)

__all__ = [
    "AddNode",
    "Affine",
    "CategoricalCrossentropy",
    "Dropout",
    "Elu",
    "Flatten",
    "Gelu",
    "Huber",
    "Layer",
    "LeakyRelu",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MulNode",
    "Relu",
    "Residual",
    "Sequential",
    "Sigmoid",
    "SigmoidCrossEntropy",
    "Silu",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Tanh",
]
