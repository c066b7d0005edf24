"""Counting what crosses between host and device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from .errors import TransferError

TO_DEVICE, TO_HOST = "to the device", "to the host"
_watching: ContextVar[Transfers | None] = ContextVar("nnx_transfers", default=None)


class Transfer(NamedTuple):
    """One crossing.

    direction   "to the device" or "to the host"
    arrays      how many went together: a loader brings a batch's inputs and targets at once
    how         what asked for it, where that was not a call to move something; else ""
    line        (file, number) of the innermost line that is not nnx's
    """

    direction: str
    arrays: int
    nbytes: int
    how: str
    line: tuple[str, int]


class Transfers:
    """Crossings so far: `len(t)`, `t.to_device`, `t.to_host`, `t.nbytes`, or each in `t.log`."""

    def __init__(self, forbid: bool, outer: Transfers | None) -> None:
        self.forbid, self._outer = forbid, outer
        self.log: list[Transfer] = []

    def __len__(self) -> int:
        return len(self.log)

    @property
    def to_device(self) -> int:
        """How many went to a device."""
        return sum(t.direction == TO_DEVICE for t in self.log)

    @property
    def to_host(self) -> int:
        """How many came to the host."""
        return sum(t.direction == TO_HOST for t in self.log)

    @property
    def nbytes(self) -> int:
        """Bytes in both directions."""
        return sum(t.nbytes for t in self.log)

    def clear(self) -> None:
        """Count anew, as at the beginning of a step."""
        self.log.clear()

    def add(self, transfer: Transfer) -> None:
        if self.forbid and transfer.how:
            raise TransferError(
                f"{transfer.line[0]}:{transfer.line[1]}: {transfer.how} moves "
                f"{transfer.nbytes:,} bytes {transfer.direction} and waits for it, inside "
                f"nnx.transfers(forbid=True); move it where you mean to, by nnx.to_numpy(array) or "
                f"nnx.asarray(array), or once after the loop"
            )
        self.log.append(transfer)
        if self._outer is not None:
            self._outer.add(transfer)

    def __repr__(self) -> str:
        return (
            f"<transfers: {self.to_device} to the device, {self.to_host} to the host, "
            f"{self.nbytes:,} bytes>"
        )


@contextmanager
def transfers(forbid: bool = False) -> Iterator[Transfers]:
    """Count what crosses between host and device in this block, in this thread (or task).

        with nnx.transfers() as t:
            loss = step(x, y)
        print(t)  # <transfers: 1 to the device, 0 to the host, 31,400 bytes>

    forbid   raise TransferError, with the line, at the first crossing that nobody asked for: a
             Tensor read as a number or printed, a NumPy array assigned to a Tensor's data. Calls
             that say so stay allowed: `nnx.asarray`, `nnx.to_numpy`, `Tensor.numpy`, `Layer.to`,
             a DataLoader's batches, saving and loading

    What a library does on its own arrays nnx does not see: `float(loss.data)`. Backends on the
    host have no crossings.
    """
    watch = Transfers(forbid, _watching.get())
    token = _watching.set(watch)
    try:
        yield watch
    finally:
        _watching.reset(token)


def crossed(direction: str, nbytes: int, how: str = "", arrays: int = 1) -> None:
    """Told of a crossing; raises if it is forbidden."""
    watch = _watching.get()
    if watch is not None:
        watch.add(Transfer(direction, arrays, nbytes, how, _line()))


def _line() -> tuple[str, int]:
    """The innermost line that is not nnx's."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] != "nnx":
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0
