"""nnx on a GPU: `python benchmarks/gpu.py`. Written where there is none; it has yet to run on one.

Ceilings first: how fast the device copies, and multiplies matrices. Then training steps by nnx and
PyTorch, eager and as CUDA graphs, with full float32 and with TF32 on both sides; each op against
the ceiling that bounds it; and the batch size from which on the GPU overtakes this machine's CPU.

Times on the device are between two events around many calls, so they include what the device waits
for the host. All implementations take turns in rounds; medians over the rounds count, a ratio is
taken within each round. What they compute is compared with NumPy before anything is timed.

The file is written after each part. A process of its own does the work: where it dies, hangs, or
leaves the device broken, a new one goes on without the implementation that did it.
"""

from __future__ import annotations

import argparse
import datetime
import faulthandler
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# The checkout's own nnx; that it is installed makes the backend cupy known.
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]

from on_gpu import parts, record, tables  # noqa: E402
from on_gpu.record import ALL, Result  # noqa: E402

import nnx  # noqa: E402
from nnx.bench.machine import machine  # noqa: E402

ROUNDS, QUICK_ROUNDS = 25, 3
PART_S = 120  # a part that takes longer hangs
AGAIN = 3  # the exit code of a worker whose device is broken
PACKAGES = {"nvmath-python": "nvmath-python", "PyTorch": "torch", "NumPy": "numpy"}


def blank(quick: bool) -> Result:
    """A result in which nothing is measured yet."""
    command = "python benchmarks/gpu.py" + (" --quick" if quick else "")
    return {
        "format": record.FORMAT, "date": datetime.date.today().isoformat(), "command": command,
        "quick": quick, "device": {}, "machine": machine([]), "versions": {}, "rows": {},
        "errors": {}, "warnings": [], "left": [], "begun": [],
    }  # fmt: skip


def versions(described: dict[str, str]) -> dict[str, str]:
    """Of the driver, of CUDA, and of the packages."""
    found = {"driver": driver(), "CUDA": described["cuda runtime"], "CuPy": described["cupy"]}
    for title, name in PACKAGES.items():
        try:
            found[title] = version(name)
        except PackageNotFoundError:
            continue
    return {title: given for title, given in found.items() if given}


def driver() -> str:
    """As nvidia-smi says it; "" where there is no such program."""
    if (program := shutil.which("nvidia-smi")) is None:
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def worker(path: Path, until: float) -> int:
    """Measure what the file lacks, until that time (`time.time()`)."""
    result = record.read(path)
    backend = nnx.set_backend("cupy")
    here = backend.describe()
    known = versions(here)
    if result["device"] and (result["device"], result["versions"]) != (here, known):
        raise SystemExit(f"{path} was begun on {result['device']}, {result['versions']}")
    result["device"], result["versions"] = here, known
    wanted = [part for part in parts.parts(result["quick"]) if not done(result, part.name)]
    for i, part in enumerate(wanted):
        result["left"] = [later.name for later in wanted[i:]]
        if time.time() > until:
            break
        if not measure(part, result, path):
            return AGAIN
    else:
        result["left"] = []
    record.write(result, path)
    return 0


def done(result: Result, part: str) -> bool:
    return part in result["rows"] or ALL in result["errors"].get(part, {})


def measure(part: parts.Part, result: Result, path: Path) -> bool:
    """Add the part's row or its error to the file; False if the device is broken now."""
    errors = dict(result["errors"].get(part.name, {}))

    def keep(*begun: str) -> None:
        result["begun"] = list(begun)
        if errors:
            result["errors"][part.name] = errors
        record.write(result, path)

    def begin(implementation: str) -> None:
        keep(part.name, implementation)

    count = QUICK_ROUNDS if result["quick"] else ROUNDS
    told = parts.Told(result["quick"], count, begin, tuple(errors), errors)
    begin("")
    start, whole = time.perf_counter(), True
    faulthandler.dump_traceback_later(PART_S, exit=True, file=sys.__stderr__)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            parts.free()
            result["rows"][part.name] = part.run(told)
        except parts.BrokenDeviceError:
            whole = False
        except Exception as error:
            errors[ALL] = f"{type(error).__name__}: {error}"
            whole = parts.alive()
        finally:
            faulthandler.cancel_dump_traceback_later()
    result["warnings"] += sorted({str(w.message) for w in caught} - set(result["warnings"]))
    keep()
    print(f"[{time.perf_counter() - start:5.1f} s] {shown(result, part.name)}", flush=True)
    return whole


def shown(result: Result, part: str) -> str:
    """What came of it, as a line."""
    row, errors = result["rows"].get(part), result["errors"].get(part, {})
    times = [] if row is None else [
        f"{name} {(record.seconds(row, name) or 0.0) * 1e6:.1f} us" for name in row["seconds"]
    ]  # fmt: skip
    return f"{part}: {', '.join(times + [f'{name}: {text}' for name, text in errors.items()])}"


def spawn(path: Path, until: float) -> int:
    """A worker in a process of its own; its exit code."""
    command = [sys.executable, str(Path(__file__).resolve()), "--json", str(path)]
    return subprocess.run([*command, "--worker", str(until)], check=False).returncode


def run(path: Path, until: float) -> None:
    """Workers, one after the other, until everything is measured or the time is up."""
    while (code := spawn(path, until)) != 0:
        result = record.read(path)
        if result["begun"]:
            part, implementation = result["begun"]
            told = f"its process ended with code {code}"
            result["errors"].setdefault(part, {})[implementation or ALL] = told
            result["begun"] = []
            record.write(result, path)
            print(f"{part}, {implementation or 'in the rounds'}: {told}", flush=True)
        elif code != AGAIN:
            raise SystemExit(code)  # it said why


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true",
        help="a few small rows, to see that it runs; kept only with --json")  # fmt: skip
    add("--minutes", type=float, default=60.0, metavar="N", help="begin nothing after so many (60)")
    add("--json", type=Path, metavar="FILE",
        help="where to write; by default benchmarks/results/device-DATE.json")  # fmt: skip
    add("--resume", action="store_true",
        help="measure what the file lacks: what failed, and what nobody got to")  # fmt: skip
    add("--worker", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    path = given.json or RESULTS / f"device-{datetime.date.today().isoformat()}.json"
    if given.worker is not None:
        raise SystemExit(worker(path, given.worker))
    cupy = nnx.backends().get("cupy")
    if cupy is None or not cupy.available:
        reason = cupy.reason if cupy else "nothing registers it: pip install '.[cuda12]'"
        raise SystemExit(f"benchmarks/gpu.py measures the backend cupy: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        if given.quick and given.json is None:
            path = Path(folder) / "quick.json"
        if given.resume:
            result = record.read(path)
            result["errors"], result["begun"] = {}, []
        else:
            result = blank(given.quick)
        record.write(result, path)
        try:
            run(path, time.time() + 60 * given.minutes)
        finally:
            text = tables.text(record.read(path))
            path.with_suffix(".md").write_text(text, encoding="utf-8")
            print(f"\n{text}\nwritten to {path}")


if __name__ == "__main__":
    main()
