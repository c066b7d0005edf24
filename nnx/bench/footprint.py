"""What a library costs before it does anything: the time of its import, its size on disk."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from ..errors import NnxError
from .columns import PEERS
from .process import ROOT
from .report import Footprint
from .summary import spread

OWN_NEEDS = ("numpy", "safetensors", "tqdm", "threadpoolctl")
TIMER = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
IMPORTS = {
    "NumPy": "import numpy",
    "nnx": "import nnx; nnx.get_backend()",
    "nnx with numba": "import nnx; nnx.set_backend('numba')",
    **{title: f"import {name}" for name, title in PEERS.items()},
}
NEEDS = {
    "NumPy": ("numpy",),
    "nnx": OWN_NEEDS,
    "nnx with numba": (*OWN_NEEDS, "numba"),
    **{title: (name,) for name, title in PEERS.items()},
}


def footprints(peers: Iterable[str], rounds: int) -> list[Footprint]:
    """nnx, NumPy and these peers ("torch", ...), as far as they are installed.

    Each import runs in an interpreter of its own, in random order, round after round; the
    interpreter's own start is not counted.
    """
    left_out = {title for name, title in PEERS.items() if name not in set(peers)}
    names = [n for n in IMPORTS if n not in left_out and all(map(_installed, NEEDS[n]))]
    times: dict[str, list[float]] = {name: [_import_seconds(name)] for name in names}
    order = list(names)
    for i in range(rounds):
        random.Random(i).shuffle(order)
        for name in order:
            times[name].append(_import_seconds(name))
    return [
        Footprint(name=name, seconds=list(spread(times[name][1:])), bytes=size(name))
        for name in names  # the first import of each compiled its modules and read the disk
    ]


def _import_seconds(name: str) -> float:
    # Without compiled modules kept, each import would compile them again.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), variables.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", TIMER.format(IMPORTS[name])],
        env=variables, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise NnxError(
            f"nnx bench: {IMPORTS[name]} fails in a fresh interpreter: "
            f"{done.stderr.strip().rpartition(chr(10))[2]}; reinstall it"
        )
    return float(done.stdout)


def size(name: str) -> int:
    """Bytes of the installed files of a library and of all that it requires; what is compiled when
    it runs (`__pycache__`) left out.
    """
    found = sum(_bytes(d) for d in _closure(NEEDS[name]))
    return found + (_own_bytes() if name.startswith("nnx") else 0)


def _closure(names: Iterable[str]) -> list[Distribution]:
    """The distributions of these names and of what they require, extras aside."""
    found: dict[str, Distribution] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        try:
            made = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or version of Python
        key = made.metadata["Name"].lower().replace("_", "-")
        if key not in found:
            found[key] = made
            todo += _required(made)
    return list(found.values())


def _required(made: Distribution) -> Iterator[str]:
    for line in made.requires or ():
        requirement, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", requirement.strip())
        if name is not None and "extra" not in marker:
            yield name[0]


def _bytes(made: Distribution) -> int:
    paths = (Path(str(made.locate_file(file))) for file in made.files or ())
    return _sum(paths)


def _own_bytes() -> int:
    """nnx's packages, in a checkout or where they are installed."""
    folders = [ROOT / "nnx", *ROOT.glob("nnx_*"), *ROOT.glob("backends/nnx_*")]
    return _sum(p for folder in folders for p in folder.rglob("*"))


def _sum(paths: Iterable[Path]) -> int:
    kept = (p for p in paths if "__pycache__" not in p.parts and p.suffix != ".pyc")
    return sum(p.stat().st_size for p in kept if p.is_file())


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
