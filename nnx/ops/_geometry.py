"""Windows that slide over axes: options of convolutions and pools, and the lengths that follow.

An option is one number for all axes or one per axis. Padding is that too, or a pair (before, after)
per axis, or "valid" (none), or "same" (the result as long as x, for a stride of 1).
"""

from __future__ import annotations

from typing import Any

from ..errors import OptionError, ShapeError


def per_axis(value: Any, n: int) -> tuple[Any, ...]:
    """One number for each of n axes."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n


def pairs(
    padding: Any, sizes: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """(before, after) for each axis; "same" puts the odd one after, as PyTorch does."""
    if padding == "valid":
        return ((0, 0),) * len(sizes)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(sizes, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    return tuple((p[0], p[1]) for p in (per_axis(v, 2) for v in per_axis(padding, len(sizes))))


def span(size: int, dilation: int) -> int:
    """How many entries a window covers, from its first to its last."""
    return dilation * (size - 1) + 1


def count(length: int, size: int, stride: int, dilation: int) -> int:
    """How many windows fit."""
    return (length - span(size, dilation)) // stride + 1


def checked(op: str, name: str, value: Any, n: int, least: int) -> tuple[int, ...]:
    """The option for each axis; OptionError unless they are n ints of at least `least`."""
    given = per_axis(value, n)
    if len(given) != n or not all(is_int(v, least) for v in given):
        raise OptionError(
            f"{op}: {name}={value!r}, expected an int of at least {least}"
            + (f" or {n} of them" if n > 1 else "")
        )
    return given


def checked_padding(
    op: str, padding: Any, sizes: tuple[int, ...], stride: tuple[int, ...],
    dilation: tuple[int, ...], names: bool = True,
) -> tuple[tuple[int, int], ...]:  # fmt: skip
    """`pairs`, of a padding that is one.   names: whether "same" and "valid" are"""
    n = len(sizes)
    if names and padding == "same" and set(stride) != {1}:
        raise OptionError(
            f"{op}: padding='same' needs a stride of 1, given {stride}; give the padding as numbers"
        )
    if not (names and padding in ("same", "valid")):
        given = per_axis(padding, n)
        both = [p if isinstance(p, (tuple, list)) else (p, p) for p in given]
        if len(given) != n or not all(len(p) == 2 and all(map(is_int, p)) for p in both):
            other = ", 'same' or 'valid'" if names else ""
            raise OptionError(
                f"{op}: padding={padding!r}, expected an int of at least 0, or for each of {n} "
                f"axes an int or a pair (before, after){other}"
            )
    return pairs(padding, sizes, dilation)


def check_fit(
    op: str, shape: tuple[int, ...], sizes: tuple[int, ...], dilation: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
) -> None:  # fmt: skip
    """ShapeError where the window is longer than the padded axis."""
    for i, (size, d, (before, after)) in enumerate(zip(sizes, dilation, pads, strict=True)):
        axis = len(shape) - len(sizes) + i
        length = shape[axis] + before + after
        if span(size, d) > length:
            padded = f" and {length} with its padding {before, after}" if before + after else ""
            dilated = f" (size {size}, dilation {d})" if d > 1 else ""
            raise ShapeError(
                f"{op}: the window covers {span(size, d)} entries of axis {axis}{dilated}, but x "
                f"of shape {shape} has {shape[axis]} there{padded}; pad more, or take a smaller "
                f"window"
            )


def is_int(value: Any, least: int = 0) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and value >= least
