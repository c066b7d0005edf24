"""nnx on a GPU: `python benchmarks/gpu.py`. Written where there is none; it has yet to run on one.

Ceilings first: how fast the device copies, and multiplies matrices. Then training steps by nnx and
PyTorch, eager and as CUDA graphs, with full float32 and with TF32 on both sides; each op against
the ceiling that bounds it; and the batch size from which on the GPU overtakes this machine's CPU.

Times on the device are between two events around many calls, so they include what the device waits
for the host. All implementations take turns in rounds, each in a chunk of CHUNK_S; medians over the
rounds count, a ratio is taken within each round. The losses of the first steps are compared before
anything is timed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]  # the checkout's own, installed or not

import nnx  # noqa: E402
from nnx.bench import cases, nnx_cases  # noqa: E402
from nnx.bench.case import Case, Prepared  # noqa: E402
from nnx.bench.cases import NetworkCase, OpCase  # noqa: E402
from nnx.bench.machine import machine  # noqa: E402
from nnx.bench.op_table import OPS, SIZES  # noqa: E402

CHUNK_S, ROUNDS = 0.02, 25
STEPS = [case for case in cases.NETWORKS if case.trains]
LARGE = (4096, 4096)  # 64 MB of float32
PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "nvmath-python", "numpy", "torch")
Elapsed = Callable[[Callable[[], Any], int], float]  # seconds that so many calls take


def on_cupy(run: Callable[[], Any], calls: int) -> float:
    cuda = importlib.import_module("cupy").cuda
    first, last = cuda.Event(), cuda.Event()
    first.record()
    for _ in range(calls):
        run()
    last.record()
    last.synchronize()
    return float(cuda.get_elapsed_time(first, last)) / 1e3


def on_torch(run: Callable[[], Any], calls: int) -> float:
    cuda = importlib.import_module("torch").cuda
    first, last = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    first.record()
    for _ in range(calls):
        run()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def on_host(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


class Timed:
    """One implementation: what is called, by which clock, and its seconds per call by round."""

    def __init__(self, run: Callable[[], Any], elapsed: Elapsed) -> None:
        self.run, self.elapsed, self.seconds = run, elapsed, list[float]()
        elapsed(run, 5)  # compilers, caches
        once = min(elapsed(run, 3) / 3 for _ in range(3))
        self.calls = max(1, round(CHUNK_S / max(once, 1e-7)))

    def round(self) -> None:
        self.seconds.append(self.elapsed(self.run, self.calls) / self.calls)


def rounds(timed: dict[str, Timed], count: int, baseline: str | None = None) -> dict[str, Any]:
    """Medians and quartiles of seconds per call, and of the ratio to the baseline in each round."""
    for i in range(count):
        order = list(timed.values())
        for one in order[i % len(order) :] + order[: i % len(order)]:
            one.round()
    found: dict[str, Any] = {}
    for name, one in timed.items():
        found[name] = {"seconds": median(one.seconds), "quartiles": _quartiles(one.seconds)}
        if baseline in timed:
            pairs = zip(one.seconds, timed[baseline].seconds, strict=True)
            found[name]["ratio"] = median(mine / other for mine, other in pairs)
    return found


def _quartiles(values: list[float]) -> list[float]:
    return quantiles(values, n=4) if len(values) > 1 else values * 3


def ceilings(cupy: Any, n: int, nbytes: int, count: int) -> dict[str, float]:
    """Bytes per second that a copy reads and writes; FLOP/s of a product of n x n matrices."""
    a = cupy.zeros(nbytes // 4, "float32")
    b = cupy.empty_like(a)
    timed = {"copy": Timed(lambda: cupy.copyto(b, a), on_cupy)}
    found = {"copy_bytes_per_s": 2 * nbytes / rounds(timed, count)["copy"]["seconds"]}
    x = nnx.asarray(np.random.default_rng(0).standard_normal((n, n), dtype=np.float32))
    for precision in ("float32", "tf32"):
        nnx.set_matmul_precision(precision)
        timed = {"product": Timed(lambda: nnx.matmul(x, x), on_cupy)}
        seconds = rounds(timed, count)["product"]["seconds"]
        found[f"{precision}_flops_per_s"] = 2 * n**3 / seconds
    nnx.set_matmul_precision("float32")
    return found


def implementations(case: Case) -> dict[str, tuple[Prepared, Elapsed]]:
    """nnx and, where it sees the GPU, PyTorch."""
    found = {
        "cupy": (nnx_cases.prepare("cupy", False, case), on_cupy),
        "cupy replay": (nnx_cases.prepare("cupy", True, case), on_cupy),
    }
    if _torch() is not None:
        torch_cases = importlib.import_module("nnx.bench.torch_cases")
        for name in ("torch-cuda", "torch-cuda-graphs"):
            found[name] = (torch_cases.prepare(name, case), on_torch)
    return {name: (made, clock) for name, (made, clock) in found.items() if made is not None}


def _torch() -> Any:
    if find_spec("torch") is None:
        return None
    torch: Any = importlib.import_module("torch")
    return torch if torch.cuda.is_available() else None


def step(case: Case, precision: str, count: int) -> dict[str, Any]:
    """One training step by everyone."""
    nnx.set_matmul_precision(precision)
    torch = _torch()
    if torch is not None:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    made = implementations(case)
    losses = {
        name: [float(p.values(p.run())[0]) for _ in range(3)] for name, (p, _) in made.items()
    }
    tolerance = 1e-4 if precision == "float32" else 3e-2
    first = losses["cupy"]
    wrong = [n for n, found in losses.items() if not np.allclose(found, first, rtol=tolerance)]
    timed = {n: Timed(p.run, clock) for n, (p, clock) in made.items() if n not in wrong}
    times = rounds(timed, count, "torch-cuda")
    nnx.set_matmul_precision("float32")
    return {
        "name": case.name, "size": case.size, "what": case.what, "precision": precision,
        "times": times, "wrong": {n: losses[n] for n in wrong},
    }  # fmt: skip


def op(name: str, shape: tuple[int, int], limits: dict[str, float], count: int) -> dict[str, Any]:
    """An op's forward: the bytes or FLOP/s that it reaches, and the share of the ceiling."""
    case = OpCase(name, shape, backward=False)
    inputs = case.inputs()
    p = nnx_cases.prepare("cupy", True, case)
    assert p is not None
    values = p.values(p.run())
    seconds = rounds({name: Timed(p.run, on_cupy)}, count)[name]["seconds"]
    moved = sum(a.nbytes for a in (*inputs.args, *values))
    found = {"op": name, "size": case.size, "seconds": seconds, "bytes_per_s": moved / seconds}
    found["of_copy"] = found["bytes_per_s"] / limits["copy_bytes_per_s"]
    if name in ("matmul", "affine"):
        flops = 2 * inputs.args[0].size * inputs.args[1].shape[-1]
        found["flops_per_s"] = flops / seconds
        found["of_product"] = found["flops_per_s"] / limits["float32_flops_per_s"]
    return found


def sweep(batches: tuple[int, ...], count: int) -> dict[str, Any]:
    """Seconds per replayed step on the processor and on the GPU, by batch size."""
    found: dict[str, Any] = {"step": "-".join(map(str, cases.SWEEP_SIZES)), "batches": batches}
    seconds: dict[str, list[float]] = {"numpy replay": [], "cupy replay": []}
    for batch in batches:
        case = NetworkCase(cases.SWEEP_SIZES, batch, "sgd")
        for name, clock in (("numpy", on_host), ("cupy", on_cupy)):
            p = nnx_cases.prepare(name, True, case)
            assert p is not None
            timed = rounds({name: Timed(p.run, clock)}, count)
            seconds[f"{name} replay"].append(timed[name]["seconds"])
    won = [b for b, cpu, gpu in zip(batches, *seconds.values(), strict=True) if gpu < cpu]
    nnx.set_backend("cupy")
    return {**found, "seconds": seconds, "gpu_wins_from": won[0] if won else None}


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def shown(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{k} {v:.4g}" for k, v in result["ceilings"].items()]
    for row in result["steps"]:
        times = (
            f"{n} {t['seconds'] * 1e6:.1f} us" + (f" ({t['ratio']:.2f}x)" if "ratio" in t else "")
            for n, t in row["times"].items()
        )
        wrong = f"; other losses: {', '.join(row['wrong'])}" if row["wrong"] else ""
        lines.append(f"{row['name']}, {row['size']}, {row['what']}, {row['precision']}: "
                     f"{', '.join(times)}{wrong}")  # fmt: skip
    for row in result["ops"]:
        lines.append(
            f"{row['op']} {row['size']}: {row['of_copy']:.0%} of a copy's bytes per second"
        )
    lines.append(f"the GPU is faster from batch {result['sweep']['gpu_wins_from']} on")
    return "\n".join(lines)


def measured(quick: bool) -> dict[str, Any]:
    backend = nnx.set_backend("cupy")
    cupy = importlib.import_module("cupy")
    count, large = (3, (256, 256)) if quick else (ROUNDS, LARGE)
    limits = ceilings(cupy, 256 if quick else 8192, (1 << 20) if quick else (1 << 30), count)
    chosen = STEPS[:1] if quick else STEPS
    names = ("relu", "softmax", "matmul") if quick else tuple(OPS)
    sizes = {
        name: large if OPS[name].sizes is SIZES else OPS[name].sizes["large"] for name in names
    }
    return {
        "format": 1,
        "date": datetime.date.today().isoformat(),
        "device": backend.describe(),
        "machine": machine([]),
        "versions": versions(),
        "ceilings": limits,
        "steps": [step(c, precision, count) for c in chosen for precision in ("float32", "tf32")],
        "ops": [op(name, sizes[name], limits, count) for name in names],
        "sweep": sweep(cases.SWEEP_BATCHES[:2] if quick else cases.SWEEP_BATCHES, count),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="a few small rows, to see that it runs"
    )
    parser.add_argument("--json", type=Path, help="where to write; by default under results/")
    given = parser.parse_args(arguments)
    result = measured(given.quick)
    path = given.json or ROOT / "benchmarks" / "results" / f"device-{result['date']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(shown(result), f"written to {path}", sep="\n")


if __name__ == "__main__":
    main()
