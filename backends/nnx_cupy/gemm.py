"""Matrix products through cuBLASLt, on a stream and in a workspace that they are given.

CuPy refuses cuBLAS while a stream captures. Here each product is prepared before (descriptors, the
choice of an algorithm) and then launched by one call that allocates nothing.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from .matrices import Matrix, dense, leading, matrix, stacks, swapped

WORKSPACE = 32 << 20  # bytes that an algorithm may ask for; cuBLAS's own for sm_90
ALIGNED = 256  # bytes: what cuBLASLt takes an address to be aligned to if it is not told
CUDA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}  # cudaDataType_t
COMPUTE = {"float32": 68, "tf32": 77, "bfloat16": 75}  # cublasComputeType_t, for float32
COMPUTE_64F = 70
MASK_ROWS = 128  # bits that a column of a mask takes are a multiple of these


class UnavailableError(Exception):
    """nvmath-python or cuBLASLt cannot be used; the message says why."""


class CublasLt:
    """cuBLASLt on one device."""

    def __init__(self) -> None:
        try:
            self.bindings = lt = import_module("nvmath.bindings.cublasLt")
            self.handle = lt.create()
        except Exception as error:  # the package, libcublasLt or the driver; each raises its own
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        self.desc, self.layout = lt.MatmulDescAttribute, lt.MatrixLayoutAttribute
        self.preference = lt.MatmulPreferenceAttribute
        self._relu_is_ours: dict[str, bool] = {}

    def relu_is_ours(self, cupy: Any, dtype: str) -> bool:
        """Whether its ReLU lets NaN through, and has the slope 0 at 0."""
        if dtype not in self._relu_is_ours:
            try:
                self._relu_is_ours[dtype] = _relu_is_ours(self, cupy, dtype)
            except (UnavailableError, self.bindings.cuBLASLtError):
                self._relu_is_ours[dtype] = False
        return self._relu_is_ours[dtype]


class Epilogue(NamedTuple):
    """What a product also does, to its result or to the factor that cuBLASLt has first.

    name     of its kind in cublasLtEpilogue_t
    vector   address of a bias, or of the place for the gradient of one: an entry for each column
    mask     address of `mask_nbytes` bytes, or 0: in them a bit for each entry, that ReLU let pass
    """

    name: str
    vector: int
    mask: int = 0


def mask_nbytes(shape: tuple[int, ...]) -> int:
    """Bytes of the mask of a row-major matrix."""
    rows, columns = shape
    return rows * (_mask_ld(columns) // 8)


def _mask_ld(columns: int) -> int:
    return -(-columns // MASK_ROWS) * MASK_ROWS


class Gemm:
    """One product, or a stack of them, prepared: y[i] = a[i] @ b[i].

    workspace   bytes that `launch` must be given
    """

    def __init__(
        self, lt: CublasLt, y: Operand, a: Operand, b: Operand, precision: str,
        epilogue: Epilogue | None = None,
    ) -> None:  # fmt: skip
        self._lt, self._bindings, self._made = lt, lt.bindings, list[tuple[Any, int]]()
        dtype, count = y.dtype, y.stack
        scale = np.float64 if dtype == "float64" else np.float32
        self._one, self._zero = np.ones(1, scale), np.zeros(1, scale)
        kind = CUDA_TYPES[dtype]
        compute = COMPUTE[precision] if dtype == "float32" else COMPUTE["float32"]
        compute = COMPUTE_64F if dtype == "float64" else compute
        bindings = self._bindings
        self._desc = self._keep(
            bindings.matmul_desc_create(compute, 1 if dtype == "float64" else 0),
            bindings.matmul_desc_destroy,
        )
        set_desc = bindings.matmul_desc_set_attribute
        self._set(set_desc, self._desc, lt.desc.TRANSA, np.int32(b.matrix.turned))
        self._set(set_desc, self._desc, lt.desc.TRANSB, np.int32(a.matrix.turned))
        if epilogue is not None:
            for name, value in self._told(epilogue, y.matrix.rows).items():
                self._set(set_desc, self._desc, name, value)
        self._layouts = [self._layout(x.matrix, kind, count) for x in (b, a, y)]
        self._pointers = [x.pointer for x in (b, a, y)]
        self._algorithm: Any = np.zeros(1, bindings.matmul_heuristic_result_dtype)
        self._choose(b, a, y)
        self.workspace = int(self._algorithm["workspace_size"][0])
        self._algo = self._algorithm["algo"].ctypes.data

    def launch(self, workspace: int, size: int, stream: int) -> None:
        """Enqueue the product on the stream.   workspace: an address, and how many bytes there"""
        (a, b, y), (la, lb, ly) = self._pointers, self._layouts
        self._bindings.matmul(
            self._lt.handle, self._desc, self._one.ctypes.data, a, la, b, lb,
            self._zero.ctypes.data, y, ly, y, ly, self._algo, workspace, size, stream,
        )  # fmt: skip

    def _choose(self, a: Operand, b: Operand, y: Operand) -> None:
        """Ask for an algorithm that suits these sizes and addresses."""
        bindings, names = self._bindings, self._lt.preference
        preference = bindings.matmul_preference_create()
        try:
            wanted: list[tuple[int, Any]] = [
                (names.MAX_WORKSPACE_BYTES, np.uint64(WORKSPACE)),
                (names.MIN_ALIGNMENT_A_BYTES, np.uint32(a.alignment)),
                (names.MIN_ALIGNMENT_B_BYTES, np.uint32(b.alignment)),
                (names.MIN_ALIGNMENT_C_BYTES, np.uint32(y.alignment)),
                (names.MIN_ALIGNMENT_D_BYTES, np.uint32(y.alignment)),
            ]
            for name, value in wanted:
                self._set(bindings.matmul_preference_set_attribute, preference, name, value)
            found, (la, lb, ly) = np.zeros(1, np.int32), self._layouts
            bindings.matmul_algo_get_heuristic(
                self._lt.handle, self._desc, la, lb, ly, ly, preference, 1,
                self._algorithm.ctypes.data, found.ctypes.data,
            )  # fmt: skip
        except bindings.cuBLASLtError as error:  # NOT_SUPPORTED, where there is no algorithm
            raise UnavailableError(f"cuBLASLt refuses such a product: {error}") from error
        finally:
            bindings.matmul_preference_destroy(preference)
        if not found[0]:
            raise UnavailableError("cuBLASLt has no algorithm for such a product")

    def _told(self, epilogue: Epilogue, rows: int) -> dict[int, Any]:
        names = self._lt.desc
        told: dict[int, Any] = {
            names.EPILOGUE: np.uint32(self._bindings.Epilogue[epilogue.name]),
            names.BIAS_POINTER: np.int64(epilogue.vector),
        }
        if epilogue.mask:
            told[names.EPILOGUE_AUX_POINTER] = np.int64(epilogue.mask)
            told[names.EPILOGUE_AUX_LD] = np.int64(_mask_ld(rows))
        return told

    def _layout(self, m: Matrix, kind: int, count: int) -> int:
        bindings, names = self._bindings, self._lt.layout
        made = self._keep(
            bindings.matrix_layout_create(kind, m.rows, m.cols, m.ld),
            bindings.matrix_layout_destroy,
        )
        if count > 1:
            setter = bindings.matrix_layout_set_attribute
            self._set(setter, made, names.BATCH_COUNT, np.int32(count))
            self._set(setter, made, names.STRIDED_BATCH_OFFSET, np.int64(m.offset))
        return made

    def _set(self, setter: Any, target: int, name: int, value: Any) -> None:
        held = np.asarray(value)
        setter(target, int(name), held.ctypes.data, held.nbytes)

    def _keep(self, made: int, destroy: Any) -> int:
        self._made.append((destroy, made))
        return made

    def __del__(self) -> None:
        for destroy, made in self._made:
            destroy(made)


class Operand(NamedTuple):
    """An array as part of a product: where it lies, and how."""

    pointer: int
    dtype: str
    matrix: Matrix
    stack: int
    alignment: int


def operand(
    pointer: int, dtype: str, itemsize: int, laid: Matrix, count: int
) -> Operand:  # fmt: skip
    apart = laid.offset * itemsize if count > 1 else 0
    return Operand(pointer, dtype, laid, count, math.gcd(ALIGNED, pointer, apart))


def products(
    lt: CublasLt, y: Any, a: Any, b: Any, precision: str, epilogue: Epilogue | None = None
) -> list[Gemm] | None:  # fmt: skip
    """y = a @ b of at least two axes each, leading ones broadcast, as prepared products.

    None if an array has strides that cuBLASLt does not know: a copy of it has others.
    epilogue    of matrices only, with y in rows
    """
    if not dense(y, turned=False):
        if not dense(y, turned=True):
            return None
        y, a, b = swapped(y), swapped(b), swapped(a)
    made = []
    for count, places in stacks(y.shape[:-2], [leading(x, y.ndim) for x in (y, a, b)]):
        operands = []
        for x, (start, step) in zip((y, a, b), places, strict=True):
            size = x.itemsize
            row, col = x.strides[-2] // size, x.strides[-1] // size
            laid = matrix(x.shape[-2:], (row, col), step // size)
            if laid is None or x.strides[-2] % size or x.strides[-1] % size or step % size:
                return None
            operands.append(operand(x.data.ptr + start, str(x.dtype), size, laid, count))
        made.append(Gemm(lt, operands[0], operands[1], operands[2], precision, epilogue))
    return made


def _relu_is_ours(lt: CublasLt, cupy: Any, dtype: str) -> bool:
    n = 16
    x = np.zeros((n, n))
    x[0], x[1], x[2] = np.nan, -1, 1
    given, one, dz, b = (cupy.asarray(v, dtype) for v in (x, np.eye(n), np.ones((n, n)), x[3]))
    z, dx, mask = cupy.empty_like(given), cupy.empty_like(given), cupy.empty(n * n, "uint8")
    stream = cupy.cuda.get_current_stream().ptr
    for y, a, kind in ((z, given, "RELU_AUX_BIAS"), (dx, dz, "DRELU_BGRAD")):
        made = products(lt, y, a, one, "float32", Epilogue(kind, b.data.ptr, mask.data.ptr))
        for gemm in made or []:
            workspace = cupy.empty(max(gemm.workspace, 1), "uint8")
            gemm.launch(workspace.data.ptr, gemm.workspace, stream)
    found = [y.astype("float64").get() for y in (z, dx)]
    expected = [np.where(x <= 0, 0, x), x > 0]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, expected, strict=True))
