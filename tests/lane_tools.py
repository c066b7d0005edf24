"""What the tests of lanes share: fixtures, and arrays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_info

import nnx
import nnx_numpy.recurrent as recurrent
from nnx import lanes, threads

BACKENDS = [name for name in ("numpy", "numba") if nnx.backends()[name].available]
Floats = np.ndarray[Any, Any]
examples = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
can_be_asked = pytest.mark.skipif(
    not any(p["user_api"] == "blas" for p in threadpool_info()),
    reason="NumPy has a BLAS that cannot be asked",
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small kernels use threads too; afterwards none works, and nobody holds the count."""
    monkeypatch.setattr(lanes, "SMALL", 0)
    monkeypatch.setattr(recurrent, "CALL", 1)
    before = nnx.get_num_threads()
    yield
    assert len(lanes._idle) == len(workers())
    assert threads._lock.acquire(blocking=False)
    threads._lock.release()
    nnx.set_num_threads(before)


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "nnx-lane"]


def floats(rng: np.random.Generator, *shape: int, dtype: Any = "f4") -> Floats:
    return rng.standard_normal(shape).astype(dtype)
