"""Compiled loops after matrix products: a bias, with an activation or without, and slopes with the
gradient of the bias. A matrix product has been written to y; the loops go over it in place.

Values are those of the loops that they stand for, to the last bit: nothing is fused here but what
is fused within a function of one number.
"""

from __future__ import annotations

from .compiler import compiled
from .scalars import sigmoid_of, sigmoid_slope_of, tanh_of, tanh_slope_of


@compiled()
def add_bias(y, b):
    """y = y + b, b one number a column"""
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] += b[j]


@compiled()
def bias_relu(y, b):
    zero = y.dtype.type(0)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            v = y[i, j] + b[j]
            y[i, j] = zero if v <= zero else v


@compiled()
def bias_sigmoid(y, b):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = sigmoid_of(y[i, j] + b[j])


@compiled()
def bias_tanh(y, b):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = tanh_of(y[i, j] + b[j])


@compiled()
def column_sums(dy, db):
    """db = the sum of each column, row after row"""
    for j in range(db.size):
        db[j] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            db[j] += dy[i, j]


@compiled()
def relu_slope_sums(dy, y, dx, db):
    """dx as relu's slope gives it, and its column sums"""
    of = y.dtype.type
    for j in range(db.size):
        db[j] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = dy[i, j] * (of(1) if y[i, j] > of(0) else of(0))
            dx[i, j] = d
            db[j] += d


@compiled()
def sigmoid_slope_sums(dy, y, dx, db):
    for j in range(db.size):
        db[j] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = sigmoid_slope_of(dy[i, j], y[i, j])
            dx[i, j] = d
            db[j] += d


@compiled()
def tanh_slope_sums(dy, y, dx, db):
    for j in range(db.size):
        db[j] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            d = tanh_slope_of(dy[i, j], y[i, j])
            dx[i, j] = d
            db[j] += d
