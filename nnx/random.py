"""The host generator from which initialisers, dropout and loaders draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .backend import recording
from .errors import OptionError

if TYPE_CHECKING:
    import numpy as np

_generator: np.random.Generator | None = None
_scoped: ContextVar[np.random.Generator | None] = ContextVar("nnx_generator", default=None)


def seed(n: int) -> None:
    """Start the random numbers anew: the same seed gives the same weights on every backend.

    Raises OptionError unless n is an int of at least 0, and CaptureError in a function that
    `nnx.capture` records.
    """
    if isinstance(n, bool) or not hasattr(n, "__index__") or n < 0:
        raise OptionError(f"seed({n!r}): expected an int of at least 0")
    recorder = recording()
    if recorder is not None:
        recorder.refuse_seeding()
    host = generator()
    host.bit_generator.state = type(host.bit_generator)(n).state


def generator() -> np.random.Generator:
    """The host's generator. `seed` restarts it, so whoever holds it follows."""
    global _generator
    scoped = _scoped.get()
    if scoped is not None:
        return scoped
    if _generator is None:
        import numpy as np  # numpy.random is a tenth of NumPy's import time: load it when needed

        _generator = np.random.default_rng()
    return _generator


def spawned() -> np.random.Generator:
    """One of its own, which the state of the host's decides."""
    import numpy as np

    return np.random.default_rng(int(generator().integers(2**63)))


@contextmanager
def using(own: np.random.Generator) -> Iterator[None]:
    """Draw from that generator in this block, in this thread (or task) only."""
    token = _scoped.set(own)
    try:
        yield
    finally:
        _scoped.reset(token)
