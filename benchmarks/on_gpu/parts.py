"""What is measured on a GPU, the most telling first; each part gives a row of its own."""

from __future__ import annotations

import functools
import gc
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import nnx
from nnx.bench import cases, nnx_cases
from nnx.bench.case import Case, Prepared
from nnx.bench.cases import NetworkCase, OpCase, OpInputs
from nnx.bench.op_table import IMAGE_SIZES, OPS, PRODUCT_SIZES, SEQUENCE_SIZES, SIZES
from nnx.bench.sequences import SequenceCase

from . import timing
from .record import Row
from .timing import Run

STEPS = [case for case in cases.NETWORKS if case.trains]
COPY, PRODUCT = "copy", "product, {}"
OURS, FAST = ("cupy", "cupy replay"), "cupy replay fast"  # the last with what may round otherwise
EAGER, GRAPHS, HOST = "torch-cuda", "torch-cuda-graphs", "numpy"
ELEMENTWISE = (
    "relu", "sigmoid", "add", "abs", "clip", "divide", "elu", "erf", "exp", "expm1", "gelu",
    "leaky_relu", "log", "log1p", "maximum", "minimum", "multiply", "negative", "pow", "silu",
    "softplus", "sqrt", "subtract", "tanh", "where",
)  # fmt: skip
SOFTMAX = ("softmax", "log_softmax")
VIEWS = ("getitem",)  # nothing is computed
LARGE = {  # of each kind of op: 64 MB of float32 and more, but where the work is in products
    id(SIZES): (4096, 4096), id(PRODUCT_SIZES): (4096, 4096), id(IMAGE_SIZES): (128, 56),
    id(SEQUENCE_SIZES): (16, 1024),
}  # fmt: skip
LOSSES = 5  # steps that are compared: two of a captured function record, the others replay
TOLERANCE = {"float32": 1e-4, "tf32": 3e-2}


class BrokenDeviceError(Exception):
    """After that implementation's error nothing runs on the device any more, in this process."""


class Told(NamedTuple):
    """How a part is to be measured, and whom it tells what it does.

    begin     is called with each implementation before its first call, with "" before the rounds
    without   implementations that are left out
    errors    gets what the others could not do
    """

    quick: bool
    count: int
    begin: Callable[[str], None]
    without: Sequence[str]
    errors: dict[str, str]


class Part(NamedTuple):
    name: str
    run: Callable[[Told], Row]


def parts(quick: bool) -> list[Part]:
    """All of them, or a few small ones."""
    precisions = ("float32", "tf32")
    ceilings = [Part(COPY, copy)]
    ceilings += [Part(PRODUCT.format(p), functools.partial(product, p)) for p in precisions]
    steps = STEPS[:1] if quick else STEPS
    first = [case for case in steps if not isinstance(case, SequenceCase)]
    rest = [case for case in steps if isinstance(case, SequenceCase)]
    telling = ("relu", "softmax", "matmul") if quick else (*SOFTMAX, *ELEMENTWISE, "matmul")
    others = () if quick else [name for name in OPS if name not in (*telling, *VIEWS)]
    sizes, batches = cases.SWEEP_SIZES, cases.SWEEP_BATCHES
    if quick:
        sizes, batches = (64, 32, 10), batches[:2]
    return [
        *ceilings,
        *_steps(first, precisions),
        *(_op(name, quick) for name in telling),
        *(_batch(NetworkCase(sizes, n, "sgd")) for n in batches),
        *_steps(rest, precisions),
        *(_op(name, quick) for name in others),
    ]


def _steps(chosen: Iterable[Case], precisions: Iterable[str]) -> list[Part]:
    return [
        Part(f"{case.label}, {p}", functools.partial(step, case, p))
        for case in chosen for p in precisions
    ]  # fmt: skip


def _op(name: str, quick: bool) -> Part:
    case = Held(name, (64, 256) if quick else LARGE[id(OPS[name].sizes)], backward=False)
    return Part(f"{name} {case.size}", functools.partial(op, case))


def _batch(case: NetworkCase) -> Part:
    return Part(f"{case.name}, {case.size}, by batch", functools.partial(by_batch, case))


class Held(OpCase):
    """Draws its inputs once for all implementations."""

    def inputs(self, seed: int = 0) -> OpInputs:
        return _drawn(OpCase(self.op, self.shape, self.backward), seed)


@functools.lru_cache(maxsize=1)
def _drawn(case: OpCase, seed: int) -> OpInputs:
    return case.inputs(seed)


def torch() -> Any:
    """The module, where it sees a GPU; else None."""
    if find_spec("torch") is None:
        return None
    found: Any = importlib.import_module("torch")
    return found if found.cuda.is_available() else None


@contextmanager
def rounded(precision: str) -> Iterator[None]:
    """Matrix products of nnx and PyTorch, and PyTorch's convolutions and recurrent layers."""
    torch_cases = importlib.import_module("nnx.bench.torch_cases") if torch() else None
    nnx.set_matmul_precision(precision)
    try:
        if torch_cases is not None:
            torch_cases.set_precision(precision)
        yield
    finally:
        nnx.set_matmul_precision("float32")
        if torch_cases is not None:
            torch_cases.set_precision("float32")


def copy(told: Told) -> Row:
    """The bytes per second of a copy, read and written: the ceiling of what computes little."""
    cupy = importlib.import_module("cupy")
    nbytes = (1 << 20) if told.quick else (1 << 30)
    a = cupy.zeros(nbytes // 4, "float32")
    b = cupy.empty_like(a)
    seconds = _timed({"cupy": lambda: lambda: cupy.copyto(b, a)}, told)
    return {"section": "ceilings", "seconds": seconds, "bytes": 2 * nbytes}


def product(precision: str, told: Told) -> Row:
    """The FLOPs per second of a product of square matrices, by nnx and PyTorch."""
    n = 256 if told.quick else 8192
    drawn = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)

    def ours() -> Run:
        x = nnx.asarray(drawn)
        return lambda: nnx.matmul(x, x)

    def theirs() -> Run:
        x = torch().tensor(drawn, device="cuda")
        return lambda: x @ x

    with rounded(precision):
        seconds = _timed({EAGER: theirs, "cupy": ours}, told)
    return {
        "section": "ceilings", "seconds": seconds, "flops": 2 * n**3, "precision": precision,
    }  # fmt: skip


def step(case: Case, precision: str, told: Told) -> Row:
    """A training step by nnx and PyTorch, eager and as CUDA graphs."""
    wanted = [EAGER, GRAPHS, *OURS, FAST]
    with rounded(precision):
        seconds = compared(case, wanted, told, _losses(case), TOLERANCE[precision])
    return {"section": "steps", "seconds": seconds, "precision": precision}


def by_batch(case: NetworkCase, told: Told) -> Row:
    """A training step at one of several batch sizes, on this machine's processor too."""
    wanted = [EAGER, *OURS, f"{HOST} replay"]
    seconds = compared(case, wanted, told, _losses(case), TOLERANCE["float32"])
    return {"section": "sweep", "seconds": seconds, "batch": case.batch}


def op(case: OpCase, told: Told) -> Row:
    """An op's result from bare arrays. A replay copies arguments and results besides."""
    inputs = case.inputs()
    y = np.asarray(case.spec.target(*inputs.args, **case.spec.attrs))
    seconds = compared(case, [EAGER, *OURS], told, [y], 1e-3)
    moved = sum(a.nbytes for a in (*inputs.args, y))
    row: Row = {"section": "ops", "seconds": seconds, "bytes": moved}
    if case.op in ("matmul", "affine"):
        row["flops"] = 2 * inputs.args[0].size * inputs.args[1].shape[-1]
    return row


def _losses(case: Case) -> list[Any]:
    """Of the first steps, by nnx on NumPy."""
    p = nnx_cases.prepare(HOST, False, case)
    assert p is not None
    return [np.asarray(p.values(p.run())[0]) for _ in range(LOSSES)]


def compared(
    case: Case, wanted: Iterable[str], told: Told, expected: list[Any], tolerance: float
) -> dict[str, list[float]]:
    """Seconds by round of those whose first results are the expected ones."""

    def made(name: str) -> Run | None:
        p = _prepared(name, case)
        if p is None:
            return None
        _check(p, expected, tolerance)
        return p.run

    try:
        return _timed({name: functools.partial(made, name) for name in wanted}, told)
    finally:
        nnx.set_backend("cupy")


def _timed(makers: Mapping[str, Callable[[], Run | None]], told: Told) -> dict[str, list[float]]:
    """Seconds by round of what each makes; one that raises is left out."""
    ready: dict[str, timing.Timed] = {}
    for name, make in makers.items():
        if name in told.without or (name.startswith("torch") and torch() is None):
            continue
        told.begin(name)
        gc.collect()  # what is freed while PyTorch captures would end its capture
        try:
            run = make()
            if run is not None:
                ready[name] = timing.Timed(run, _elapsed(name))
        except Exception as error:
            told.errors[name] = f"{type(error).__name__}: {error}"
            if not alive():
                raise BrokenDeviceError(name) from error
    told.begin("")
    return timing.rounds(ready, told.count)


def _elapsed(name: str) -> timing.Elapsed:
    """The implementation's clock, with its backend current meanwhile."""
    backend, measure = HOST if name.startswith(HOST) else "cupy", timing.clock(name)

    def elapsed(run: Run, calls: int) -> float:
        nnx.set_backend(backend)
        return measure(run, calls)

    return elapsed


def _prepared(name: str, case: Case) -> Prepared | None:
    if name.startswith("torch"):
        made: Prepared | None = importlib.import_module("nnx.bench.torch_cases").prepare(name, case)
        return made
    backend, _, form = name.partition(" ")
    fuse = "fast" if form.endswith("fast") else "exact"
    return nnx_cases.prepare(backend, form.startswith("replay"), case, fuse)


def _check(p: Prepared, expected: list[Any], tolerance: float) -> None:
    for i, want in enumerate(expected, 1):
        got = np.asarray(p.values(p.run())[0])
        if not np.allclose(got, want, rtol=tolerance, atol=tolerance / 10):
            off = float(np.abs(got - want).max()) if got.shape == want.shape else got.shape
            raise ArithmeticError(f"result {i} of {len(expected)} differs from NumPy's by {off}")


def alive() -> bool:
    """Whether the device still runs anything; after an illegal access it does not."""
    try:
        cupy = importlib.import_module("cupy")
        cupy.cuda.Device(cupy.cuda.runtime.getDevice()).synchronize()
        return float(cupy.sum(cupy.ones(8, "float32"))) == 8.0
    except Exception:
        return False


def free() -> None:
    """What the part before held."""
    gc.collect()
    nnx.get_backend().free_memory()
    if (module := torch()) is not None:
        module.cuda.empty_cache()
