"""Compiled loops over images (before, H, between, W, after) in memory; see nnx_numpy/pool.py.

size, step, first: of windows, down and across; first is where the first one begins, at most 0.
"""

from __future__ import annotations

import numpy as np

from .compiler import FUSE, SUM, compiled


@compiled()
def _within(window, step, first, size, length):
    """Where along an axis a window's entries within the image begin and end"""
    start = first + window * step
    return max(start, 0), min(start + size, length)


@compiled()
def max_pool(x, size, step, first, y):
    """y = the largest of each window, NaN if there is one"""
    for a in range(y.shape[0]):
        for h in range(y.shape[1]):
            top, bottom = _within(h, step[0], first[0], size[0], x.shape[1])
            for b in range(y.shape[2]):
                for w in range(y.shape[3]):
                    left, right = _within(w, step[1], first[1], size[1], x.shape[3])
                    best = y[a, h, b, w]
                    seen = x[a, top, b, left]
                    for d in range(best.size):
                        best[d] = seen[d]
                    for i in range(top, bottom):
                        for j in range(left, right):
                            seen = x[a, i, b, j]
                            for d in range(best.size):
                                v = seen[d]
                                best[d] = v if v > best[d] or v != v else best[d]


@compiled()
def max_pool_slope(dy, x, size, step, first, positive, dx):
    """dx = dy at the first of each window's largest entries, added up, else 0.

    positive   leave out windows that are not above 0, as relu's slope would
    """
    zero = x.dtype.type(0)
    n = x.shape[4]
    best, place = np.empty(n, x.dtype), np.empty(n, np.int32)
    flat = dx.reshape(-1)
    for i in range(flat.size):
        flat[i] = zero
    for a in range(dy.shape[0]):
        for h in range(dy.shape[1]):
            top, bottom = _within(h, step[0], first[0], size[0], x.shape[1])
            for b in range(dy.shape[2]):
                for w in range(dy.shape[3]):
                    left, right = _within(w, step[1], first[1], size[1], x.shape[3])
                    wide, given = right - left, dy[a, h, b, w]
                    _first_largest(x, a, top, bottom, b, left, right, positive, best, place)
                    for i in range(top, bottom):
                        for j in range(left, right):
                            k, into = np.int32((i - top) * wide + j - left), dx[a, i, b, j]
                            for d in range(n):
                                into[d] += given[d] if place[d] == k else zero


@compiled()
def _first_largest(x, a, top, bottom, b, left, right, positive, best, place):
    """Where in the window the first of the largest entries is, NaN above all; -1 if that is to be
    left out.
    """
    zero = x.dtype.type(0)
    seen = x[a, top, b, left]
    for d in range(best.size):
        best[d], place[d] = seen[d], np.int32(0)
    for i in range(top, bottom):
        for j in range(left, right):
            k, seen = np.int32((i - top) * (right - left) + j - left), x[a, i, b, j]
            for d in range(best.size):
                v = seen[d]
                more = (v > best[d]) | ((v != v) & (best[d] == best[d]))
                best[d] = v if more else best[d]
                place[d] = k if more else place[d]
    if positive:
        for d in range(best.size):
            place[d] = place[d] if best[d] > zero else np.int32(-1)


@compiled(fastmath=FUSE)
def avg_pool(x, size, step, first, all_count, y):
    """y = the mean of each window, over all its entries or those within x"""
    of = x.dtype.type
    for a in range(y.shape[0]):
        for h in range(y.shape[1]):
            top, bottom = _within(h, step[0], first[0], size[0], x.shape[1])
            for b in range(y.shape[2]):
                for w in range(y.shape[3]):
                    left, right = _within(w, step[1], first[1], size[1], x.shape[3])
                    count = size[0] * size[1] if all_count else (bottom - top) * (right - left)
                    scale, total = of(1) / of(count), y[a, h, b, w]
                    for d in range(total.size):
                        total[d] = 0
                    for i in range(top, bottom):
                        for j in range(left, right):
                            seen = x[a, i, b, j]
                            for d in range(total.size):
                                total[d] += seen[d]
                    for d in range(total.size):
                        total[d] *= scale


@compiled(fastmath=FUSE)
def avg_pool_slope(dy, size, step, first, all_count, dx):
    """dx = each window's dy over its count, added up"""
    of = dy.dtype.type
    flat = dx.reshape(-1)
    for i in range(flat.size):
        flat[i] = 0
    for a in range(dy.shape[0]):
        for h in range(dy.shape[1]):
            top, bottom = _within(h, step[0], first[0], size[0], dx.shape[1])
            for b in range(dy.shape[2]):
                for w in range(dy.shape[3]):
                    left, right = _within(w, step[1], first[1], size[1], dx.shape[3])
                    count = size[0] * size[1] if all_count else (bottom - top) * (right - left)
                    scale, given = of(1) / of(count), dy[a, h, b, w]
                    for i in range(top, bottom):
                        for j in range(left, right):
                            into = dx[a, i, b, j]
                            for d in range(given.size):
                                into[d] += given[d] * scale


@compiled()
def channel_sums(dy, db):
    """db = the sums of dy (before, C, after) for each channel"""
    for c in range(db.size):
        db[c] = 0
    for a in range(dy.shape[0]):
        for c in range(db.size):
            db[c] += _sum(dy[a, c])


@compiled(fastmath=SUM)
def _sum(line):
    total = line.dtype.type(0)
    for i in range(line.size):
        total += line[i]
    return total
