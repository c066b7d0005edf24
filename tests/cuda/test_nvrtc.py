"""Every `.cu` file compiles for two architectures, in every variant, with no GPU.

`pytest -s tests/cuda/test_nvrtc.py` shows what each kernel takes of a multiprocessor.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import nvrtc
import pytest

import nnx_cupy
from nnx_cupy import launch

pytestmark = pytest.mark.skipif(not nvrtc.available(), reason=nvrtc.NEEDS)

SOURCES = {
    value.file: value.flags
    for name, module in sys.modules.items()
    if name.startswith(f"{nnx_cupy.__name__}.")
    for value in vars(module).values()
    if isinstance(value, launch.Source)
}
FUNCTIONS = ("Identity", "Relu", "Sigmoid", "Tanh", "Silu", "Gelu", "GeluTanh")
LABELS = ({"NNX_LABEL": "int"}, {"NNX_LABEL": "long long"})
DEFINES = {
    "activation.cu": tuple({"NNX_F": name} for name in FUNCTIONS),
    "cross_entropy.cu": LABELS,
    "index.cu": LABELS,
    "max_pool.cu": ({"NNX_PLACE": "unsigned char"}, {"NNX_PLACE": "int"}),
}


def test_every_file_is_somebodys() -> None:
    assert sorted(p.name for p in launch.HERE.glob("*.cu")) == sorted(SOURCES)


@pytest.mark.parametrize("file", sorted(SOURCES))
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_kernel_compiles(file: str, arch: str) -> None:
    text, variants = launch.source(file), DEFINES.get(file, ({},))

    def compiled(dtype: str, defines: dict[str, str]) -> list[str]:
        told = (*launch.options(dtype, defines), *SOURCES[file])
        used = nvrtc.compiled(text, arch, told)
        assert used.keys() == launch.parameters(text, dtype, defines).keys()
        for name, usage in used.items():
            assert usage.spills == 0, f"{name} of {dtype} spills registers on {arch}"
        which = " ".join(defines.values())
        return [
            f"{arch} {dtype:8} {name:26} {which:9} {usage.registers:3} registers, {usage.spills} "
            f"bytes spilt, {usage.shared} shared"
            for name, usage in used.items()
        ]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [pool.submit(compiled, dtype, d) for dtype in launch.TYPES for d in variants]
        print("", *(line for one in made for line in one.result()), sep="\n")


def test_what_does_not_compile_is_an_error() -> None:
    text = launch.source("softmax.cu").replace("mass.s", "mass.t")
    with pytest.raises(AssertionError, match=r"softmax.cu\(\d+\): error: .*has no member \"t\""):
        nvrtc.compiled(text, "sm_90", launch.options("float32", {}))
