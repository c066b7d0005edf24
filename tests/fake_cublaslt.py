"""A stand-in for `nvmath.bindings.cublasLt`: products by NumPy, from the descriptors alone.

The names and numbers of attributes are those of nvmath 1.0; `test_cupy_gemm` compares them with
the real ones where nvmath is installed. It refuses what cuBLASLt refuses: a leading dimension that
is too small, an address less aligned than was said, too small a workspace, a query while a stream
captures.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_memory import Ref, pointed

WORKSPACE = 1 << 16  # what its only algorithm asks for


class MatmulDescAttribute(IntEnum):
    COMPUTE_TYPE = 0
    SCALE_TYPE = 1
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12


class Epilogue(IntEnum):
    DEFAULT = 1
    BIAS = 4
    RELU_BIAS = 6
    RELU_AUX_BIAS = 134
    DRELU_BGRAD = 152
    BGRADA = 256


class MatrixLayoutAttribute(IntEnum):
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(IntEnum):
    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


DESC = {3: np.int32, 4: np.int32, 7: np.uint32, 8: np.int64, 11: np.int64, 12: np.int64}
LAYOUT = {5: np.int32, 6: np.int64}
PREFERENCE = {1: np.uint64, 5: np.uint32, 6: np.uint32, 7: np.uint32, 8: np.uint32}
DTYPES = {0: np.float32, 1: np.float64, 2: np.float16}
MANTISSA = {68: 23, 77: 10, 75: 7}  # bits that a float32 factor keeps, by compute type

heuristic_dtype = np.dtype(
    [("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4"),
     ("waves_count", "<f4"), ("reserved", "<i4", (4,))], align=True,
)  # fmt: skip


class cuBLASLtError(Exception):  # noqa: N801 - nvmath's name
    """As nvmath's."""


class CublasLt(ModuleType):
    """The module.

    live      descriptors that were not destroyed, by handle
    refused   dtypes (of cudaDataType_t) for which it has no algorithm
    lacking   epilogues for which it has none
    failing   epilogues that it refuses when they are launched
    wrong     epilogues that leave the last entry of their results as it was
    dropped   whether its ReLU gives 0 for NaN
    done      epilogues of the products that were launched
    """

    Epilogue = Epilogue
    cuBLASLtError = cuBLASLtError  # noqa: N815
    MatmulDescAttribute = MatmulDescAttribute
    MatrixLayoutAttribute = MatrixLayoutAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    matmul_heuristic_result_dtype = heuristic_dtype

    def __init__(self, cupy: FakeCupy) -> None:
        super().__init__("nvmath.bindings.cublasLt")
        self._cupy, self.live, self._next = cupy, dict[int, dict[Any, Any]](), 1
        self.products, self.refused = 0, set[int]()
        self.lacking, self.failing, self.wrong = (set[Epilogue]() for _ in range(3))
        self.dropped = False
        self.done: list[Epilogue] = []
        for kind in ("matmul_desc", "matrix_layout", "matmul_preference"):
            setattr(self, f"{kind}_destroy", self._destroy)
        self.matmul_desc_set_attribute = self._setter(DESC)
        self.matrix_layout_set_attribute = self._setter(LAYOUT)
        self.matmul_preference_set_attribute = self._setter(PREFERENCE)

    def create(self) -> int:
        return 7

    def _make(self, **values: Any) -> int:
        self._next += 1
        self.live[self._next] = values
        return self._next

    def _destroy(self, made: int) -> None:
        del self.live[made]

    def _setter(self, dtypes: dict[int, Any]) -> Any:
        def set_attribute(target: int, attr: int, buf: int, size: int) -> None:
            assert size == np.dtype(dtypes[attr]).itemsize, "CUBLAS_STATUS_INVALID_VALUE"
            self.live[target][attr] = int(pointed(buf, dtypes[attr])[0])

        return set_attribute

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        return self._make(compute=compute_type, scale=scale_type)

    def matrix_layout_create(self, type: int, rows: int, cols: int, ld: int) -> int:
        assert ld >= rows > 0 < cols, "CUBLAS_STATUS_INVALID_VALUE"
        return self._make(type=type, rows=rows, cols=cols, ld=ld)

    def matmul_preference_create(self) -> int:
        return self._make()

    def matmul_algo_get_heuristic(
        self, light_handle: int, operation_desc: int, adesc: int, bdesc: int, cdesc: int,
        ddesc: int, preference: int, requested_algo_count: int, heuristic_results_array: int,
        return_algo_count: int,
    ) -> None:  # fmt: skip
        for stream in self._cupy.on.streams.values():
            assert stream.graph is None, "the query fails while a stream captures"
        if self.live[adesc]["type"] in self.refused:
            raise cuBLASLtError("CUBLAS_STATUS_NOT_SUPPORTED (15)")
        kind = self.live[operation_desc].get(MatmulDescAttribute.EPILOGUE, Epilogue.DEFAULT)
        if kind in self.lacking or (kind in K_ABOVE_1 and self._terms(operation_desc, adesc) == 1):
            raise cuBLASLtError("CUBLAS_STATUS_NOT_SUPPORTED (15)")
        asked = self.live[preference]
        assert asked[MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES] >= WORKSPACE
        found = pointed(heuristic_results_array, np.uint8, heuristic_dtype.itemsize)
        result = found.view(heuristic_dtype)
        result["algo"]["data_"][0, :4] = [asked[i] for i in (5, 6, 7, 8)]
        result["workspace_size"] = WORKSPACE
        pointed(return_algo_count, np.int32)[0] = 1

    def _terms(self, desc: int, adesc: int) -> int:
        """How many products each entry of the result sums."""
        turned = self.live[desc].get(MatmulDescAttribute.TRANSA)
        found: int = self.live[adesc]["rows" if turned else "cols"]
        return found

    def matmul(
        self, light_handle: int, compute_desc: int, alpha: int, a: int, adesc: int, b: int,
        bdesc: int, beta: int, c: int, cdesc: int, d: int, ddesc: int, algo: int, workspace: int,
        workspace_size_in_bytes: int, stream: int,
    ) -> None:  # fmt: skip
        on, op = self._cupy.on, dict(self.live[compute_desc])
        scale = DTYPES[op["scale"]]
        assert pointed(alpha, scale)[0] == 1 and pointed(beta, scale)[0] == 0
        assert (c, cdesc) == (d, ddesc) and light_handle == self.create()
        for address, alignment in zip((a, b, c, d), pointed(algo, np.uint64, 4), strict=True):
            assert address % int(alignment) == 0, "CUBLAS_STATUS_INVALID_VALUE: alignment"
        assert workspace_size_in_bytes >= WORKSPACE and on.memory.at(workspace, WORKSPACE).size
        laid = [dict(self.live[x]) for x in (adesc, bdesc, ddesc)]
        assert len({x.get(MatrixLayoutAttribute.BATCH_COUNT, 1) for x in laid}) == 1
        refs = [_ref(address, x) for address, x in zip((a, b, d), laid, strict=True)]
        epilogue = Ending(op, self.wrong, self.dropped)
        if epilogue.kind in self.failing:
            raise cuBLASLtError("CUBLAS_STATUS_INVALID_VALUE (7)")

        def run() -> None:
            left, right, out = map(on.memory.view, refs)
            left = left.swapaxes(-1, -2) if op.get(MatmulDescAttribute.TRANSA) else left
            right = right.swapaxes(-1, -2) if op.get(MatmulDescAttribute.TRANSB) else right
            assert out.shape[-2:] == (left.shape[-2], right.shape[-1])
            if out.dtype == np.float32:
                bits = MANTISSA[op["compute"]]
                left, right = rounded(left, bits), rounded(right, bits)
            self.products += 1
            on.memory.at(workspace, WORKSPACE)[...] = 0xEE
            if MatmulDescAttribute.EPILOGUE not in op:
                out[...] = left @ right
                return
            assert len(out) == 1, "one matrix"
            epilogue.run(on.memory, out[0], left[0], right[0])
            self.done.append(epilogue.kind)

        on.streams[stream].enqueue(run)


K_ABOVE_1 = (Epilogue.DRELU_BGRAD, Epilogue.BGRADA)


class Ending:
    """What an epilogue does, seen by columns: results of (rows, columns), vectors of (rows,)."""

    def __init__(self, op: dict[Any, Any], wrong: set[Epilogue], dropped: bool) -> None:
        names = MatmulDescAttribute
        self.kind = Epilogue(op.get(names.EPILOGUE, Epilogue.DEFAULT))
        self.wrong, self.dropped = self.kind in wrong, dropped
        self.vector = op.get(names.BIAS_POINTER, 0)
        self.mask, self.ld = (
            op.get(x, 0) for x in (names.EPILOGUE_AUX_POINTER, names.EPILOGUE_AUX_LD)
        )

    def run(self, memory: Any, out: Any, left: Any, right: Any) -> None:
        rows, columns = out.shape
        vector = memory.view(Ref(self.vector, (rows,), (out.itemsize,), out.dtype))
        kept = out[-1, -1].copy(), vector[-1].copy()
        y = (left @ right).astype(out.dtype)
        if self.kind is Epilogue.BGRADA:
            vector[...] = left.sum(1)
        elif self.kind is Epilogue.DRELU_BGRAD:
            bits = np.unpackbits(self._mask(memory, rows, columns), axis=1, bitorder="little")
            y = y * bits[:, :rows].T
            vector[...] = y.sum(1)
        else:
            y = y + vector[:, None]
        if self.kind in (Epilogue.RELU_BIAS, Epilogue.RELU_AUX_BIAS):
            y = np.where(y > 0, y, 0) if self.dropped else np.where(y <= 0, 0, y)
        if self.kind is Epilogue.RELU_AUX_BIAS:
            bits = np.zeros((columns, self.ld), bool)
            bits[:, :rows] = y.T > 0
            self._mask(memory, rows, columns)[...] = np.packbits(bits, axis=1, bitorder="little")
        out[...] = y
        if self.wrong:
            out[-1, -1], vector[-1] = kept

    def _mask(self, memory: Any, rows: int, columns: int) -> Any:
        assert self.mask % 16 == 0 and self.ld % 128 == 0 and self.ld >= rows, "INVALID_VALUE"
        shape = columns, self.ld // 8
        return memory.view(Ref(self.mask, shape, (shape[1], 1), np.dtype(np.uint8)))


def _ref(address: int, x: dict[Any, Any]) -> Ref:
    """A stack of matrices that lie by columns."""
    dtype = np.dtype(DTYPES[x["type"]])
    count = x.get(MatrixLayoutAttribute.BATCH_COUNT, 1)
    step = x.get(MatrixLayoutAttribute.STRIDED_BATCH_OFFSET, 0)
    size = dtype.itemsize
    return Ref(address, (count, x["rows"], x["cols"]), (step * size, size, x["ld"] * size), dtype)


def rounded(x: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """float32 with so many bits of the fraction, to the nearest."""
    if bits == 23:
        return x
    step = np.uint32(1 << (23 - bits))
    words = np.ascontiguousarray(x).view(np.uint32) + step // np.uint32(2)
    return (words & ~(step - np.uint32(1))).view(np.float32)


def install(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy) -> CublasLt:
    """Make `import nvmath.bindings.cublasLt` give the stand-in."""
    made = CublasLt(cupy)
    for module in (ModuleType("nvmath"), ModuleType("nvmath.bindings"), made):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made
