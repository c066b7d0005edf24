"""Capture and replay: a function's calls recorded once, then repeated without their overhead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .captured import Captured

__all__ = ["capture"]


def capture(
    fn: Callable[..., Any], *, check: bool = False, max_plans: int = 8, fuse: str = "exact",
    backend: str | None = None,
) -> Captured:  # fmt: skip
    """`fn`, which repeats what it did: no tape, no dispatch, no new arrays.

        def step(x, t):
            optimizer.zero_grad()
            loss = nnx.softmax_cross_entropy(model(nnx.Tensor(x)), t)
            loss.backward()
            optimizer.step()
            return loss

        step = nnx.capture(step)
        for x, t in batches:
            loss = step(x, t)

    fn          a function, or a layer (`nnx.capture(model)`), of arrays or Tensors without a
                history; numbers, strings and None among its arguments, also in tuples, lists and
                dicts, distinguish plans. It returns arrays, Tensors or such values
    check       compare each replay with an eager call, and raise at the first difference
    max_plans   plans kept; the least recently used one is dropped
    fuse        "exact": several kernels are replaced by one only where the result is the same to
                the last bit; "fast": also where it differs by rounding
    backend     the name of the backend that the function computes on; NumPy arrays among the
                arguments are then moved to it. On a GPU a replay moves them from pinned memory,
                while the step before still runs. None: arguments are arrays of one backend,
                which is the one

    The first two calls run as they are and are recorded; if they did the same, later calls with
    arguments of the same shapes, dtypes and memory layout copy the arguments in and repeat the
    recorded calls, into the same arrays. On NumPy the results equal eager execution's to the last
    bit; on CuPy matrix products round otherwise. What is returned are copies, Tensors among them
    without a history; each parameter's `.grad` is the plan's own array, which the next call
    overwrites.

    Other shapes get a plan of their own, and so do: layers in train() or eval(), frozen
    parameters, gradients that are there or not, parameters that have moved, no_grad(), other
    options of the optimizer (its learning rate may change freely).

    A replay does not run the Python of `fn`. What would go wrong by that raises CaptureError,
    with the line, in one of the first calls: reading a value (float, item, if on a Tensor), an
    array that was made outside nnx's functions (x / 255 on a bare array, a mask from NumPy), a
    Python number that changes, a change in place, `nnx.seed`, an optimizer's option set inside
    `fn`. A branch in Python that first turns another way later, and a value that Python reads from
    a bare array and that changes later, are found by `check=True` alone: use it for some steps
    whenever `fn` has an `if`. Counters, prints and attributes set by `fn` stay as the last recorded
    call left them.

    `@nnx.capture` may decorate a method: each instance has plans of its own. A copy of a
    captured function begins without plans.

    A call that finds no memory (MemoryError, on a device DeviceMemoryError) while it is recorded or
    planned has done nothing: parameters, the optimizer's state and steps, gradients, statistics and
    the generator are as before it, and nothing of the plan stays. Free memory and call again. What
    is written in such a call is therefore copied to the host first.

    One call runs at a time: threads wait for each other. Raises CaptureError on a backend that
    has no replay, and whatever the function's checks of its arguments raise (LabelError).
    """
    from .captured import Captured  # a tenth of nnx's import time, for who captures

    return Captured(fn, check=check, max_plans=max_plans, fuse=fuse, backend=backend)
