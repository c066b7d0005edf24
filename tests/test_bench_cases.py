"""What `nnx bench` times: the cases, and that all implementations compute the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nnx.bench
from nnx import ops
from nnx.bench import columns, floor, nnx_cases, rounds
from nnx.bench.case import Case, Gemm, Prepared, Update
from nnx.bench.cases import (
    ELEMENTWISE,
    NETWORKS,
    PRODUCTS,
    QUICK,
    LeNetCase,
    NetworkCase,
    OpCase,
    decoded,
    encoded,
)
from nnx.bench.op_table import NOT_TIMED, OPS, QUICK_OPS
from nnx.bench.sequences import BlockCase, LSTMCase, SequenceCase
from nnx.bench.worker import check
from nnx_numpy import NumpyBackend

TINY = (6, 5, 3)
IMPLEMENTATIONS = (
    "torch", "torch-fused", "jax", "naive", "numpy replay", "numba", "numba replay",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _numpy_again() -> Iterator[None]:
    """A case makes its backend the process's current one."""
    yield
    nnx.set_backend("numpy")


def prepared(name: str, case: Case) -> Prepared | None:
    library = name.partition("-")[0].partition(" ")[0]
    if library in ("torch", "jax", "numba"):
        pytest.importorskip(library)
    return columns.implementation(name).prepare(case)


def results(name: str, case: Case) -> list[Any]:
    made = prepared(name, case)
    assert made is not None
    return check(made)


# ---- cases


def test_every_op_is_timed_or_says_why_not() -> None:
    assert set(OPS) | set(NOT_TIMED) == set(ops.__all__)
    assert not set(OPS) & set(NOT_TIMED)
    assert all(NOT_TIMED.values())
    assert set(QUICK_OPS) <= set(OPS)


def test_the_rows() -> None:
    assert [case.label for case in NETWORKS] == [
        "64-32-10, batch 1, SGD",
        "64-32-10, batch 32, SGD",
        "784-100-10, batch 100, SGD",
        "784-100-10, batch 100, Adam",
        "784-512-512-10, batch 128, SGD",
        "784-512-512-10, batch 128, Adam",
        "784-2048-2048-2048-10, batch 512, SGD",
        "784-2048-2048-2048-10, batch 512, Adam",
        "784-100-10, batch 1, inference",
        "LeNet-5, batch 64, Adam",
        "LSTM 128-256, batch 32, 64 steps, SGD",
        "LSTM 64-64, batch 32, 32 steps, SGD",
        "transformer block, 4 heads, 12x64x128, SGD",
        "transformer block, 4 heads, 4x256x256, SGD",
    ]
    assert [case.label for case in PRODUCTS] == [
        "conv2d, 32x64x28x28, forward+backward", "attention, 12x4x64x32, forward+backward",
    ]  # fmt: skip
    assert [case.label for case in ELEMENTWISE] == [
        f"{op}, {size}, forward+backward"
        for size in ("128x512", "4096x4096")
        for op in ("relu", "sigmoid", "softmax")
    ]
    assert set(QUICK) < {*NETWORKS, *ELEMENTWISE}


@pytest.mark.parametrize("case", [*NETWORKS, *ELEMENTWISE, *PRODUCTS], ids=lambda case: case.label)
def test_a_case_passes_through_json(case: Case) -> None:
    assert decoded(json.loads(json.dumps(encoded(case)))) == case


def test_inputs_are_the_same_in_each_process_and_differ_from_batch_to_batch() -> None:
    inputs, again = (NetworkCase(TINY, 4, "sgd").inputs() for _ in range(2))
    assert len(inputs.batches) == 8
    for (x, t), (x2, t2) in zip(inputs.batches, again.batches, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(t, t2)
    assert len({x.tobytes() for x, _ in inputs.batches}) == 8


def test_matrix_products_and_updates_by_hand() -> None:
    case = NetworkCase((64, 32, 10), 20, "sgd")
    assert case.gemms() == [
        Gemm(20, 64, 32),
        Gemm(20, 32, 10),
        Gemm(32, 20, 10, left=True),  # dW2 = h.T @ dy
        Gemm(20, 10, 32, right=True),  # dh = dy @ W2.T
        Gemm(64, 20, 32, left=True),  # dW1 = x.T @ dh; x needs no gradient
    ]
    assert Gemm(20, 64, 32).flops == 2 * 20 * 64 * 32
    numbers = 64 * 32 + 32 + 32 * 10 + 10
    assert case.update() == Update(held=2 * 4 * numbers, moved=3 * 4 * numbers)
    adam = NetworkCase((64, 32, 10), 20, "adam").update()
    assert adam == Update(held=4 * 4 * numbers, moved=7 * 4 * numbers)
    assert NetworkCase((64, 32, 10), 20).update() is None
    assert adam is not None and floor.update_seconds(adam, 4.0) == 7.0


# ---- implementations


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("name", OPS)
def test_implementations_of_an_op_agree(name: str, backward: bool) -> None:
    case = OpCase(name, (6, 8), backward)
    expected = results("torch", case)
    assert len(expected) == 3 * (len(case.spec.smooth) if backward else 1)
    for other in ("numpy", "naive"):
        if prepared(other, case) is not None:
            rounds.agree(case, "torch", expected, other, results(other, case))


def test_jax_has_the_ops_and_agrees() -> None:
    pytest.importorskip("jax")
    without = {"astype"}  # float64, which JAX leaves out unless told
    for name in sorted(OPS):
        case = OpCase(name, (6, 8), True)
        if name in without:
            assert prepared("jax", case) is None
        else:
            rounds.agree(case, "numpy", results("numpy", case), "jax", results("jax", case))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_training_is_the_same(name: str, optimizer: str) -> None:
    """Longer than the benchmark looks, and at a rate at which the loss moves a lot."""
    case = Fast(TINY, 4, optimizer)
    ours, theirs = prepared("numpy", case), prepared(name, case)
    assert ours is not None and theirs is not None
    losses = [[p.values(p.run())[0] for _ in range(20)] for p in (ours, theirs)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[0][16] < 0.9 * losses[0][0]  # the first batch again


@pytest.mark.parametrize("name", ["numba", "torch", "torch-fused"])
def test_lenet_is_the_same(name: str) -> None:
    case = FastLeNet(4)
    ours, theirs = prepared("numpy", case), prepared(name, case)
    assert ours is not None and theirs is not None
    losses = [[p.values(p.run())[0] for _ in range(10)] for p in (ours, theirs)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert len(set(map(float, losses[0]))) == 10
    assert prepared("naive", case) is None


class FastLeNet(LeNetCase):
    rate = 1e-3


class FastLSTM(LSTMCase):
    rate = 1.0


class FastBlock(BlockCase):
    rate = 0.1


@pytest.mark.parametrize("name", ["numpy replay", "numba", "torch", "torch-fused"])
@pytest.mark.parametrize("case", [FastLSTM(3, 5, 4, 6), FastBlock(2, 5, 8, 2)])
def test_sequences_are_the_same(name: str, case: SequenceCase) -> None:
    ours, theirs = prepared("numpy", case), prepared(name, case)
    assert ours is not None and theirs is not None
    losses = [[p.values(p.run())[0] for _ in range(24)] for p in (ours, theirs)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[0][16] < 0.98 * losses[0][0]  # the first batch again
    assert prepared("naive", case) is None


def test_products_of_sequences_by_hand() -> None:
    case = LSTMCase(32, 64, 128, 256)
    step, rows = 2 * 32 * 256 * 1024, 32 * 64
    inputs = 2 * rows * 128 * 1024
    assert sum(g.flops for g in case.gemms()) == 2 * inputs + 2 * 64 * step + 64 * step
    weights = 128 * 1024 + 256 * 1024 + 1024
    assert case.update() == Update(held=2 * 4 * weights, moved=3 * 4 * weights)
    block = BlockCase(12, 64, 128, 4)
    linear = 3 * 2 * (12 * 64) * 12 * 128 * 128
    attention = 6 * 2 * (12 * 4) * 64 * 32 * 32  # 64 queries that see 32 keys on average
    assert sum(g.flops for g in block.gemms()) == linear + attention
    products = floor.prepare("floor products", 1, BlockCase(2, 5, 8, 2))
    assert products is not None and products.run() is None


def test_images_are_shown_as_such() -> None:
    assert OpCase("conv2d", (4, 14)).label == "conv2d, 4x64x14x14, forward+backward"


class Fast(NetworkCase):
    rate = 0.05


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_predictions_agree(name: str) -> None:
    case = NetworkCase(TINY, 2)
    expected = results("numpy", case)
    assert expected[0]["shape"] == [2, 3]
    assert expected[0] != expected[1]  # another batch
    if name == "torch-fused":
        assert not columns.columns(names=[name])[0].takes(case)
        return
    rounds.agree(case, "numpy", expected, name, results(name, case))


def test_a_wrong_learning_rate_does_not_agree() -> None:
    """The check before timing sees less than half an update, even where it moves the loss least."""
    for case in (NetworkCase((64, 32, 10), 32, "sgd"), NetworkCase((784, 100, 10), 100, "adam")):
        expected = results("numpy", case)
        rounds.agree(case, "numpy", expected, "naive", results("naive", case))
        slower = Slower(case.sizes, case.batch, case.optimizer)
        with pytest.raises(rounds.DisagreementError, match="loss of step 2 differs from numpy's"):
            rounds.agree(case, "numpy", expected, "naive", results("naive", slower))


class Slower(NetworkCase):
    @property
    def rate(self) -> float:
        return 0.6 * super().rate


def test_a_backend_that_shares_arrays_runs_its_own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Sharing(NumpyBackend):
        name, parent = "sharing", "numpy"

        def call(self, kernel: Any, args: Any, attrs: Any) -> Any:
            seen.append(kernel)
            return super().call(kernel, args, attrs)

    monkeypatch.setitem(nnx.backend._loaded, "sharing", Sharing())
    made = nnx_cases.prepare("sharing", False, OpCase("relu", (6, 8), False))
    assert made is not None
    made.run()
    assert seen


def test_the_floor_runs_the_products_and_touches_the_bytes() -> None:
    case = NetworkCase((6, 5, 3), 4, "adam")
    products = floor.prepare("floor products", 1, case)
    assert products is not None and products.run() is None
    for threads, held in ((1, 800), (2, 2 * floor.THREADED_BYTES)):
        source, target, copy = floor.copy_of(held, threads)
        copy()
        assert source.nbytes + target.nbytes == held
        np.testing.assert_array_equal(target, source)
    assert floor.prepare("floor update", 1, NetworkCase((6, 5, 3), 4)) is None
