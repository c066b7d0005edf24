"""What a reader needs to judge the times: processor, cores, versions, BLAS."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..threads import blas_name
from .columns import Column, backend_of, on_device

PACKAGES = ("numpy", "torch", "jax", "numba")


def usable_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def machine(columns: list[Column]) -> dict[str, str]:
    """Facts by name; versions of what the columns stand for, and their devices."""
    found = {
        "cpu": _cpu(),
        "cores": str(usable_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    usable = [c for c in columns if not c.reason]
    names = {"numpy", *(c.name.partition(" ")[0].partition("-")[0] for c in usable)}
    for package in PACKAGES:
        if package in names:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "of unknown version"
    found["blas"] = blas_name()
    for column in filter(on_device, usable):
        backend = backend_of(column)
        described = {} if backend is None else backend.describe()
        found[f"device {column.name}"] = ", ".join(f"{k} {v}" for k, v in described.items())
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
