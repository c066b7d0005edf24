"""What `nnx bench` asks of PyTorch on a GPU, on the CPU: its switches, and steps as CUDA graphs."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nnx.bench.case import Case
from nnx.bench.cases import LeNetCase, NetworkCase
from nnx.bench.sequences import BlockCase

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_map_only  # noqa: E402

from nnx.bench import torch_cases  # noqa: E402


class Graph(TorchDispatchMode):  # type: ignore[misc]
    """Notes what is called, and calls it again on the same memory, as a CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = f(*args, **(kwargs or {}))
        self.calls.append((f, *map(bare, (args, kwargs or {}, out))))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for f, args, kwargs, out in self.calls:
            results = f(*args, **kwargs)
            for target, value in zip(tensors(out), tensors(results), strict=True):
                if target.data_ptr() != value.data_ptr():
                    target.copy_(value)


def bare(value: Any) -> Any:
    """The same memory, without a history."""
    return tree_map_only(torch.Tensor, lambda t: t.detach(), value)


def tensors(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return [value] if torch.is_tensor(value) and value.numel() else []


class Stream:
    def wait_stream(self, other: Any) -> None:
        pass


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda's streams and graphs, of the CPU."""

    @contextlib.contextmanager
    def graph(made: Graph) -> Iterator[None]:
        with made:
            yield

    cuda = torch_cases.torch.cuda
    for name, value in (
        ("Stream", Stream), ("current_stream", Stream), ("CUDAGraph", Graph), ("graph", graph),
        ("stream", lambda stream: contextlib.nullcontext()),
    ):  # fmt: skip
        monkeypatch.setattr(cuda, name, value)
    # Adam's capturable form exists on devices with graphs only.
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda *_: ["cpu"])


@pytest.mark.usefixtures("graphs")
@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable")
@pytest.mark.parametrize(
    "case",
    [
        NetworkCase((6, 5, 3), 4, "sgd"), NetworkCase((6, 5, 3), 4, "adam"), LeNetCase(2),
        BlockCase(2, 3, 8, 2),  # and no LSTM, of which CPUs have another kernel
    ],
    ids=lambda case: case.label,
)  # fmt: skip
def test_a_graphed_step_trains_from_the_start(case: Case) -> None:
    """Neither the warm-up nor the capture is left in weights, moments or batches."""
    ran = []
    for variant in (torch_cases.Variant(graphed=True), torch_cases.Variant()):
        p = torch_cases.PREPARE[case.kind](variant, case)
        assert p is not None
        ran.append([float(p.values(p.run())[0]) for _ in range(10)])
    np.testing.assert_allclose(ran[0], ran[1], rtol=1e-5)
    assert len(set(ran[0][:8])) == 8


def test_the_precision_is_of_all_that_rounds() -> None:
    """By PyTorch's newer switches, which the older ones set too; no warning, no mixture."""
    b = torch.backends
    try:
        for precision, expected in (("tf32", "tf32"), ("float32", "ieee")):
            torch_cases.set_precision(precision)
            assert b.cuda.matmul.fp32_precision == expected
            for op in (b.cudnn.conv, b.cudnn.rnn):
                assert (op.fp32_precision == "tf32") == (precision == "tf32")
            assert b.cuda.matmul.allow_tf32 == b.cudnn.allow_tf32 == (precision == "tf32")
            assert torch.get_float32_matmul_precision() in ("highest", "high")
    finally:
        torch_cases.set_precision("float32")
