"""What the tests of Tensors and of the tape share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import Tensor


def leaf(data: Any, dtype: str = "float64") -> Tensor:
    """A Tensor of the current backend that requires a gradient."""
    return Tensor(nnx.asarray(np.asarray(data, dtype)), requires_grad=True)


def values(x: Any) -> Any:
    """As nested lists of Python numbers."""
    return nnx.to_numpy(x).tolist()


def message(kind: type[nnx.NnxError], f: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """What the error says that the call must raise."""
    with pytest.raises(kind) as caught:
        f(*args, **kwargs)
    return str(caught.value)
