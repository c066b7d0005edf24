"""nnx's ops on sequences in PyTorch's words; see torch_ops.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Torch = torch.Tensor


def attention(
    q: Torch, k: Torch, v: Torch, bias: Torch | None = None, mask: Torch | None = None,
    drawn: Torch | None = None, causal: bool = False, scale: float | None = None, p: float = 0.0,
    rows: int | None = None,
) -> Torch:  # fmt: skip
    """The formula: PyTorch's own has no dropout with given draws, and another causal mask."""
    s = (q @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    s = s if bias is None else s + bias
    seen = torch.ones(s.shape[-2:], dtype=torch.bool)
    seen = seen.tril(s.shape[-1] - s.shape[-2]) if causal else seen
    seen = seen if mask is None else seen & mask
    w = torch.softmax(s.masked_fill(~seen, -1e300), -1).masked_fill(~seen, 0.0)
    return (w if drawn is None else w * (drawn >= p).to(w.dtype) / (1 - p)) @ v


def embedding(W: Torch, ids: Torch, padding: int | None = None) -> Torch:
    if not ids.numel():  # of which PyTorch has no second derivatives
        return torch.index_select(W, 0, ids.reshape(-1)).reshape(*ids.shape, W.shape[1])
    return F.embedding(ids.long(), W, padding)


def rnn(
    x: Torch, U: Torch, h: Torch, lengths: Torch | None = None, nonlinearity: str = "tanh",
    reverse: bool = False,
) -> Any:  # fmt: skip
    f = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
    y, (h,) = over_time(lambda a, h: [f(a + h @ U)], x, [h], lengths, reverse)
    return y, h


def lstm(
    x: Torch, U: Torch, h: Torch, c: Torch, lengths: Torch | None = None, reverse: bool = False
) -> Any:
    def cell(a: Torch, h: Torch, c: Torch) -> list[Torch]:
        i, f, g, o = (a + h @ U).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(c), c]

    y, (h, c) = over_time(cell, x, [h, c], lengths, reverse)
    return y, h, c


def gru(
    x: Torch, U: Torch, b: Torch, h: Torch, lengths: Torch | None = None, reverse: bool = False
) -> Any:
    def cell(a: Torch, h: Torch) -> list[Torch]:
        (ar, az, an), (sr, sz, sn) = a.chunk(3, -1), (h @ U + b).chunk(3, -1)
        z = torch.sigmoid(az + sz)
        return [(1 - z) * torch.tanh(an + torch.sigmoid(ar + sr) * sn) + z * h]

    y, (h,) = over_time(cell, x, [h], lengths, reverse)
    return y, h


def over_time(
    cell: Callable[..., list[Torch]], x: Torch, state: list[Torch], lengths: Any, reverse: bool
) -> tuple[Torch, list[Torch]]:
    shown = [torch.zeros_like(state[0])] * len(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        new = cell(x[t], *state)
        seen = torch.ones(x.shape[1], dtype=torch.bool) if lengths is None else lengths > t
        state = [torch.where(seen[:, None], a, b) for a, b in zip(new, state, strict=True)]
        shown[t] = torch.where(seen[:, None], new[0], 0.0)
    return torch.stack(shown), state


ORACLE: dict[str, Callable[..., Torch]] = {
    "attention": attention, "embedding": embedding, "gru": gru, "lstm": lstm, "rnn": rnn,
}  # fmt: skip
