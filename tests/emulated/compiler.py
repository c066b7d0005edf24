"""Compile a CUDA source by g++, in NVRTC's place: `compiler.py FOLDER`.

The folder has its `source`, the `options` that NVRTC was given, and the `expressions` that name
instances of templates; it gets `library`, the path of what was made, and g++'s `log`.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = (
    "-std=c++17", "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing",
    "-fpermissive", "-D__CUDACC_VER_MAJOR__=13", "-D__CUDACC_VER_MINOR__=0",
)  # fmt: skip
_BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
_KERNEL = re.compile(rf"__global__\s+void\s+{_BOUNDS}(\w+)\s*\(")
_TEMPLATE = re.compile(rf"template\s*<[^>]*>\s*__global__\s+void\s+{_BOUNDS}(\w+)")
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\s*\[\s*\]")


def translated(source: str, expressions: list[str]) -> str:
    """The source for g++, with an entry for each of its kernels."""
    source = _DYNAMIC.sub(r"\1* \2 = (\1*)emu::dynamic()", source)
    plain = [
        n for n in dict.fromkeys(_KERNEL.findall(source)) if n not in _TEMPLATE.findall(source)
    ]
    entries = [f"EMULATED_KERNEL({name}, {name})" for name in plain]
    entries += [f"EMULATED_KERNEL(expression{i}, ({e}))" for i, e in enumerate(expressions)]
    return "\n".join(['#include "prelude.hpp"', source, *entries, ""])


def main(at: Path) -> int:
    build = Path(os.environ["NNX_EMULATED"])
    options = (at / "options").read_text().split("\n")
    kept = [o for o in options if o.startswith(("-I", "-D"))]
    expressions = (at / "expressions").read_text().splitlines()
    text = translated((at / "source").read_text(), expressions)
    prelude = (HERE / "prelude.hpp").read_text() + (HERE.parent / "cuda" / "shim.hpp").read_text()
    key = hashlib.sha256(repr((text, kept, prelude)).encode()).hexdigest()[:24]
    library = build / "kernels" / f"{key}.so"
    (at / "library").write_text(str(library))
    (at / "log").touch()
    if library.exists():
        return 0
    source, made = library.with_suffix(".cpp"), library.with_suffix(f".{os.getpid()}")
    source.write_text(text)
    include = [f"-I{folder}" for folder in os.environ["NNX_EMULATED_INCLUDE"].split(":")]
    done = subprocess.run(
        ["g++", *FLAGS, "-shared", f"-I{build}", *kept, *include, str(source), "-o", str(made)],
        capture_output=True, text=True,
    )  # fmt: skip
    (at / "log").write_text(done.stderr)
    if done.returncode == 0:
        made.replace(library)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
