"""What `nnx info` prints: what a bug report needs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import nnx

from .backend import backends, load_backend

PACKAGES = (
    "safetensors", "tqdm", "threadpoolctl", "cupy", "cupy-cuda12x", "cupy-cuda13x", "torch",
    "array-api-strict", "matplotlib",
)  # fmt: skip


def lines() -> list[str]:
    """The report, line by line."""
    import numpy as np

    rows = [
        ("nnx", f"{nnx.__version__}, {os.path.dirname(os.path.abspath(nnx.__file__))}"),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("numpy", np.__version__),
        ("platform", platform.platform()),
        ("cpus", f"{os.cpu_count()}, {_usable()} usable by this process"),
    ]
    report = [f"{name:<10}{value}" for name, value in rows]
    report += ["", "backends"]
    for name, info in backends().items():
        report.append(f"  {name} ({info.package}): {_state(info.available, info.reason)}")
        if info.available:
            described = load_backend(name).describe()
            report += [f"    {key}: {value}" for key, value in described.items()]
    found = {name: _installed(name) for name in PACKAGES}
    report += ["", "packages"]
    report += [f"  {name:<18}{v}" for name, v in found.items() if v]
    report += [f"  not installed: {', '.join(name for name, v in found.items() if not v) or '-'}"]
    return report


def _state(available: bool, reason: str) -> str:
    return "available" if available else f"not available: {' '.join(reason.split())}"


def _usable() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
