"""The one host generator from which initialisers, dropout and loaders draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backend import recording

if TYPE_CHECKING:
    import numpy as np

_generator: np.random.Generator | None = None


def seed(n: int) -> None:
    """Start the random numbers anew: the same seed gives the same weights on every backend.

    Raises CaptureError in a function that `nnx.capture` records.
    """
    recorder = recording()
    if recorder is not None:
        recorder.refuse_seeding()
    host = generator()
    host.bit_generator.state = type(host.bit_generator)(n).state


def generator() -> np.random.Generator:
    """The host's generator. `seed` restarts it, so whoever holds it follows."""
    global _generator
    if _generator is None:
        import numpy as np  # numpy.random is a tenth of NumPy's import time: load it when needed

        _generator = np.random.default_rng()
    return _generator
