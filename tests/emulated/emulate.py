"""The tests on CuPy itself where there is no GPU: `python tests/emulated/emulate.py`; README.md.

Prepares a folder once (some 300 MB; CuPy and nvmath-python from their wheels), then runs the tests
marked `gpu` and those of the emulator. Arguments are pytest's; or of Python, after `--python`:

    python tests/emulated/emulate.py tests/test_cupy_replay.py
    python tests/emulated/emulate.py --python -m nnx train --backend cupy
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import compiler

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = Path(os.environ.get("NNX_EMULATED", ROOT / ".emulated"))
CUPY = "14.2.0"
PACKAGES = (
    f"cupy-cuda13x=={CUPY}", "nvmath-python==1.0.0", "cuda-bindings>=13,<14", "cuda-core>=1,<2",
    "cuda-pathfinder>=1.3", "nvidia-cuda-runtime==13.0.*", "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-profiler-api==13.0.*",
)  # fmt: skip
TOOLS = ("cython>=3.2,<3.3", "setuptools>=77", "wheel")
SOURCES = ("streams", "graphs", "memory", "driver", "blas", "blaslt", "unwatched")
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-w")
# Libraries that others load by name, and find the emulator in.
NAMES = ("libcuda.so.1", "libcublas.so.13")


def command(*words: object, **more: str) -> None:
    print("+", " ".join(map(str, words[:6])), "..." if len(words) > 6 else "", flush=True)
    subprocess.run([str(w) for w in words], check=True, env={**os.environ, **more})


def packages() -> Path:
    """CuPy and nvmath-python, beside the packages of this Python; with no GPU's libraries."""
    site = BUILD / "packages"
    if not (site / "cupy").exists():
        pip = (sys.executable, "-m", "pip")
        command(*pip, "install", "-q", "--no-deps", "--target", site, *PACKAGES)
        tools, sources = BUILD / "tools", BUILD / "sources"
        command(*pip, "install", "-q", "--no-deps", "--target", tools, *TOOLS)
        command(
            *pip, "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", "cupy",
            "-d", sources, f"cupy=={CUPY}", PYTHONPATH=str(tools), CUPY_INSTALL_USE_STUB="1",
        )  # fmt: skip
        shutil.unpack_archive(sources / f"cupy-{CUPY}.tar.gz", sources)
    return site


def include(site: Path) -> list[Path]:
    cccl = site / "cupy" / "_core" / "include" / "cupy" / "_cccl" / "libcudacxx"
    return [site / "nvidia" / "cu13" / "include", cccl, HERE]


def runtime_module(site: Path) -> None:
    """CuPy's module of the runtime's functions, from its source, with CUDA's library left open."""
    sources = BUILD / "sources" / f"cupy-{CUPY}"
    made = BUILD / "runtime.cpp"
    code = (
        "from Cython.Compiler.Main import CompilationOptions, compile\n"
        "known = dict(CUPY_USE_CUDA_PYTHON=False, CUPY_CUFFT_STATIC=False, CUPY_HIP_VERSION=0,\n"
        "             CUPY_CUDA_VERSION=13000, CUPY_CYTHON_VERSION='3.2')\n"
        "compile(['cupy_backends/cuda/api/runtime.pyx'], CompilationOptions(cplus=True,\n"
        f"    language_level=3, compile_time_env=known, output_file={str(made)!r}))\n"
    )
    tools = {**os.environ, "PYTHONPATH": str(BUILD / "tools")}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=sources, check=True, env=tools,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    api = sources / "cupy_backends" / "cuda" / "api"
    found = [*include(site), sysconfig.get_paths()["include"], api, sources]
    flags = ["-O1", "-w", "-fPIC", "-shared", *(f"-I{folder}" for folder in found)]
    command("g++", made, "-o", BUILD / "runtime.so", *flags)


def unused(runtime: Path) -> str:
    """C functions for what CuPy's modules name and the emulator lacks: they refuse."""
    nm = ("nm", "-D", "--undefined-only")
    cublas = next((BUILD / "packages" / "cupy_backends" / "cuda" / "libs").glob("cublas.*.so"))
    named = subprocess.run([*nm, runtime, cublas], capture_output=True, text=True, check=True)
    words = {line.split()[-1].split("@")[0] for line in named.stdout.splitlines() if line.strip()}
    have = "".join((HERE / f"{name}.cpp").read_text() for name in SOURCES)
    lacking = [w for w in sorted(words) if w.startswith(("cuda", "cublas")) and f"{w}(" not in have]
    return "".join(f"int {w}(void) {{ return {801 if 'cuda' in w else 15}; }}\n" for w in lacking)


def emulator(site: Path) -> None:
    """The library, and the header that each kernel's source begins with."""
    library, folders = BUILD / "libemulated.so", [f"-I{folder}" for folder in include(site)]
    sources = [*(HERE / f"{name}.cpp" for name in SOURCES), HERE.parent / "cuda" / "fibers.cpp"]
    headers = [*HERE.glob("*.hpp"), *(HERE.parent / "cuda").glob("*.hpp"), Path(__file__)]
    if library.exists():
        made = library.stat().st_mtime
        if all(path.stat().st_mtime < made for path in (*sources, *headers)):
            return
    rest, new = BUILD / "unused.c", BUILD / "libemulated.new"
    rest.write_text(unused(BUILD / "runtime.so"))
    objects = [BUILD / f"{path.stem}.o" for path in (*sources, rest)]
    for source, made_of in zip((*sources, rest), objects, strict=True):
        words = ("gcc", "-fPIC") if source.suffix == ".c" else ("g++", *FLAGS, *folders)
        command(*words, "-c", source, "-o", made_of)
    command("g++", "-shared", "-o", new, *objects, "-ldl")
    new.replace(library)
    (BUILD / "lib").mkdir(exist_ok=True)
    (BUILD / "kernels").mkdir(exist_ok=True)
    for name in NAMES:
        if not (link := BUILD / "lib" / name).is_symlink():
            link.symlink_to(library)
    command(
        "g++", *compiler.FLAGS, *folders, "-x", "c++-header", HERE / "prelude.hpp",
        "-o", BUILD / "prelude.hpp.gch",
    )  # fmt: skip


def environment(site: Path) -> dict[str, str]:
    library = BUILD / "libemulated.so"
    path = (HERE / "site", site, ROOT, ROOT / "backends")
    return {
        **os.environ,
        "NNX_EMULATED": str(BUILD),
        "NNX_EMULATED_INCLUDE": ":".join(map(str, include(site))),
        "NNX_EMULATED_COMPILE": f"env -u LD_PRELOAD {sys.executable} -S {HERE / 'compiler.py'}",
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(BUILD / "lib"),
        "PYTHONPATH": ":".join(map(str, path)),
        "CUPY_ACCELERATORS": "",  # CUB is compiled code for a device
        "CUPY_CACHE_DIR": str(BUILD / "cupy"),
    }


def prepared() -> dict[str, str]:
    """The environment variables of an emulated process; all that is missing is made."""
    os.environ["NNX_EMULATED"] = str(BUILD)
    BUILD.mkdir(parents=True, exist_ok=True)
    site = packages()
    if not (BUILD / "runtime.so").exists():
        runtime_module(site)
    emulator(site)
    return environment(site)


def main(given: Sequence[str]) -> int:
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or shutil.which("g++") is None:
        print("this needs Linux on x86_64, and g++")
        return 2
    if given[:1] == ["--python"]:
        words = list(given[1:])
    else:
        tests = list(given) or ["tests", str(HERE / "check_device.py"), "-m", "gpu"]
        words = ["-m", "pytest", *tests]
    return subprocess.run([sys.executable, *words], env=prepared()).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
