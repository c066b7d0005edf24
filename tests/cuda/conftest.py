"""The backend "cupy" on the stand-in for cupy, whose kernels run on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import fake_cublaslt
import fake_cupy
import plugin_dirs
import pytest
from fake_cupy import FakeCupy

import nnx


@pytest.fixture(scope="module")
def cupy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCupy]:
    """The stand-in, and the entry point as the installed distribution has it; cupy is current."""
    site = tmp_path_factory.mktemp("site")
    plugin_dirs.install(site, "nnx-xp", {"cupy": "nnx_cupy:CupyBackend"})
    with plugin_dirs.fresh_process(site), pytest.MonkeyPatch.context() as patch:
        fake = fake_cupy.install(patch, FakeCupy())
        fake_cublaslt.install(patch, fake)
        with nnx.use_backend("cupy"):
            yield fake
