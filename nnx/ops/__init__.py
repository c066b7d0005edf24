"""All the mathematics: every op with its derivatives beside it."""

from __future__ import annotations

from .activation import (
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from .attention import attention
from .conv import conv1d, conv2d, conv_transpose2d
from .dropout import dropout
from .elementwise import (
    abs,
    add,
    astype,
    clip,
    divide,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    pow,
    sqrt,
    subtract,
    where,
)
from .embedding import embedding
from .index import getitem, getitem_adjoint, scatter_add, take
from .linear import affine, matmul
from .loss import (
    categorical_crossentropy,
    huber,
    mean_absolute_error,
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from .norm import batch_norm, group_norm, layer_norm, rms_norm
from .pool import avg_pool2d, max_pool2d
from .recurrent import gru, lstm, rnn
from .reduce import logsumexp, max, mean, min, sum, var
from .resize import upsample
from .shape import (
    broadcast_to,
    concat,
    expand_dims,
    matrix_transpose,
    permute_dims,
    reshape,
    split,
    squeeze,
    stack,
)
from .special import erf
from .window import fold, pad, windows

__all__ = [
    "abs",
    "add",
    "affine",
    "astype",
    "attention",
    "avg_pool2d",
    "batch_norm",
    "broadcast_to",
    "categorical_crossentropy",
    "clip",
    "concat",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "divide",
    "dropout",
    "elu",
    "embedding",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "fold",
    "gelu",
    "getitem",
    "getitem_adjoint",
    "group_norm",
    "gru",
    "huber",
    "layer_norm",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "lstm",
    "matmul",
    "matrix_transpose",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "mean_absolute_error",
    "mean_squared_error",
    "min",
    "minimum",
    "multiply",
    "negative",
    "pad",
    "permute_dims",
    "pow",
    "relu",
    "reshape",
    "rms_norm",
    "rnn",
    "scatter_add",
    "sigmoid",
    "sigmoid_cross_entropy",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "take",
    "tanh",
    "upsample",
    "var",
    "where",
    "windows",
]
