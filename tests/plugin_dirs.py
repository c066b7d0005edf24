"""Plugins that a test installs: the metadata that pip would write, in a folder on sys.path."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nnx.backend

ROOT = Path(__file__).resolve().parent.parent


def install(
    site: Path, distribution: str, entries: dict[str, str], modules: dict[str, str] | None = None
) -> None:
    """A distribution of version 1.0 that registers `entries` (backend: "module:Class")."""
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[nnx.backends]\n{lines}")
    for name, source in (modules or {}).items():
        (site / f"{name}.py").write_text(source, encoding="utf-8")
    importlib.invalidate_caches()


def install_toy(site: Path) -> None:
    """NumPy under another name: "toy" of nnx-toy 1.0."""
    source = "from nnx_numpy import NumpyBackend\nclass Toy(NumpyBackend):\n    name = 'toy'\n"
    install(site, "nnx-toy", {"toy": "nnx_toy:Toy"}, {"nnx_toy": source})


@contextlib.contextmanager
def fresh_process(site: Path) -> Iterator[None]:
    """nnx as a new process sees it, with `site` on its path: nothing loaded, nothing chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnx.backend, "_loaded", {})
        patch.setattr(nnx.backend, "_default", None)
        patch.syspath_prepend(site)
        importlib.invalidate_caches()
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
                del sys.modules[name]


__all__ = ["ROOT", "fresh_process", "install", "install_toy"]
