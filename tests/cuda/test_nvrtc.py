"""Every `.cu` file compiles for two architectures, in every variant, with no GPU.

`pytest -s tests/cuda/test_nvrtc.py` shows what each kernel takes of a multiprocessor.
"""

from __future__ import annotations

import nvrtc
import pytest

from nnx_cupy import launch

pytestmark = pytest.mark.skipif(not nvrtc.available(), reason=nvrtc.NEEDS)

FILES = sorted(p.name for p in launch.HERE.glob("*.cu"))
DEFINES: dict[str, list[dict[str, str]]] = {
    "activation.cu": [
        {"NNX_F": name}
        for name in ("Identity", "Relu", "Sigmoid", "Tanh", "Silu", "Gelu", "GeluTanh")
    ],
    "cross_entropy.cu": [{"NNX_LABEL": "int"}, {"NNX_LABEL": "long long"}],
    "max_pool.cu": [{"NNX_PLACE": "unsigned char"}, {"NNX_PLACE": "int"}],
    "index.cu": [{"NNX_LABEL": "int"}, {"NNX_LABEL": "long long"}],
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_kernel_compiles(file: str, arch: str) -> None:
    text = launch.source(file)
    for dtype in launch.TYPES:
        for defines in DEFINES.get(file, [{}]):
            used = nvrtc.compiled(text, arch, launch.options(dtype, defines))
            assert used.keys() == launch.parameters(text, dtype, defines).keys()
            for name, usage in used.items():
                print(f"{arch} {dtype:8} {name:28} {usage.registers:4} registers, "
                      f"{usage.spills} bytes spilt, {usage.shared} shared")  # fmt: skip
                assert usage.spills == 0, f"{name} of {dtype} spills registers on {arch}"


def test_what_does_not_compile_is_an_error() -> None:
    text = launch.source("softmax.cu").replace("mass.s", "mass.t")
    with pytest.raises(AssertionError, match=r"softmax.cu\(\d+\): error: .*has no member \"t\""):
        nvrtc.compiled(text, "sm_90", launch.options("float32", {}))
