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
from .attention import MultiHeadAttention
from .base import Layer
from .book import AddNode, Affine, Loss, MulNode
from .conv import Conv1d, Conv2d, ConvTranspose2d
from .embedding import Embedding, LearnedPositions, SinusoidalPositions
from .linear import Dropout, Flatten, Linear, Residual, Sequential, Unflatten
from .losses import (
    CategoricalCrossentropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from .norm import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm
from .pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d, Pad2d, Upsample
from .recurrent import GRU, LSTM, RNN
from .transformer import GPT, TransformerBlock

__all__ = [
    "GPT",
    "GRU",
    "LSTM",
    "RNN",
    "AddNode",
    "Affine",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "CategoricalCrossentropy",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Elu",
    "Embedding",
    "Flatten",
    "Gelu",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Huber",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "LearnedPositions",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MaxPool2d",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MulNode",
    "MultiHeadAttention",
    "Pad2d",
    "RMSNorm",
    "Relu",
    "Residual",
    "Sequential",
    "Sigmoid",
    "SigmoidCrossEntropy",
    "Silu",
    "SinusoidalPositions",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Tanh",
    "TransformerBlock",
    "Unflatten",
    "Upsample",
]
