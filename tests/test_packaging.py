"""What is shipped, and which module may import which."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("nnx", "backends", "tests", "benchmarks", "examples")
PLUGINS = sorted(p.parent for p in (ROOT / "backends").glob("*/__init__.py"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


# The distribution


def test_every_backend_package_is_shipped_and_registered(project: dict[str, Any]) -> None:
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    entries = project["project"]["entry-points"]["nnx.backends"]
    assert packages == ["nnx", *(f"backends/{p.name}" for p in reversed(PLUGINS))]
    assert {v.partition(":")[0] for v in entries.values()} == {p.name for p in PLUGINS}
    assert {f"nnx_{name}" for name in entries} == {p.name for p in PLUGINS}


def test_every_registered_class_exists(project: dict[str, Any]) -> None:
    for name, value in project["project"]["entry-points"]["nnx.backends"].items():
        module, _, cls = value.partition(":")
        tree = ast.parse((ROOT / "backends" / module / "__init__.py").read_text("utf-8"))
        (found,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls)
        assigned = {
            n.targets[0].id: ast.literal_eval(n.value)
            for n in found.body
            if isinstance(n, ast.Assign)
            and isinstance(n.targets[0], ast.Name)
            and isinstance(n.value, ast.Constant)
        }
        assert assigned["name"] == name


def test_one_version(project: dict[str, Any]) -> None:
    import nnx

    assert nnx.__version__ == project["project"]["version"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, as `python -m build` makes them."""
    for needed in ("build", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("dist")
    command = ("-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(folder))
    # Outside the checkout, where a folder `build` would hide the package of that name.
    done = subprocess.run(
        [sys.executable, *command, str(ROOT)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("nnx_xp-*-py3-none-any.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = {n for n in wheel.namelist() if ".dist-info/" not in n}
    expected = {
        path.relative_to(base).as_posix()
        for base, package in [(ROOT, "nnx"), *((ROOT / "backends", p.name) for p in PLUGINS)]
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == expected
    assert {"nnx/py.typed", "nnx/data/digits.npz", "nnx/data/DIGITS.txt"} <= shipped
    assert {"nnx_cupy/softmax.cu", "nnx_cupy/common.cuh"} <= shipped


def test_the_wheels_metadata(wheel: zipfile.ZipFile, project: dict[str, Any]) -> None:
    (info,) = {n.partition("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    entries = wheel.read(f"{info}/entry_points.txt").decode().split("\n\n")
    lines = {line for block in entries for line in block.strip().splitlines()}
    assert {"nnx = nnx.cli:main", "numpy = nnx_numpy:NumpyBackend"} <= lines
    assert "cupy = nnx_cupy:CupyBackend" in lines
    metadata = wheel.read(f"{info}/METADATA").decode()
    required = {
        line.partition(": ")[2]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra ==" not in line
    }
    assert required == set(project["project"]["dependencies"])


def test_the_sdist_holds_what_a_developer_needs(built: Path) -> None:
    (path,) = built.glob("nnx_xp-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "tests/test_packaging.py"}
    wanted |= {"tests/cuda/shim.hpp", "backends/nnx_cupy/softmax.cu"}
    assert wanted <= names
    for folder in CODE:
        here = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*.py")}
        assert here <= names
        assert here, f"{folder} is empty"
    assert not [n for n in names if "cache" in n or n.endswith(".pyc")]


# Who imports whom


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    base = ROOT / "backends" if path.is_relative_to(ROOT / "backends") else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, text: str | None = None) -> set[str]:
    """The modules that a file imports anywhere, but for `if TYPE_CHECKING`, as absolute names.

    `from a import b` gives a.b where that is a module of the project, else a.
    """
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in _running(ast.parse(text or path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
                source = f"{base}.{source}".rstrip(".")
            found |= {
                f"{source}.{a.name}" if _is_module(f"{source}.{a.name}") else source
                for a in node.names
            }
    return found


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def of_nnx(path: Path) -> set[str]:
    """What a file imports of nnx, by the first name below it: {"op", "errors"}."""
    return {
        name.partition(".")[2].partition(".")[0]
        for name in imports(path)
        if name.partition(".")[0] == "nnx"
    }


def test_the_import_reader() -> None:
    """What the tests below rest on."""
    text = (
        "import numpy as np\nfrom . import plugins\nfrom .errors import NnxError\n"
        "if TYPE_CHECKING:\n    from .layers import Layer\n"
        "def f():\n    from .data.idx import read_idx\n    from nnx import tape, Tensor\n"
    )
    assert imports(ROOT / "nnx" / "backend.py", text) == {
        "numpy", "nnx.plugins", "nnx.errors", "nnx.data.idx", "nnx.tape", "nnx",
    }  # fmt: skip
    assert imports(ROOT / "nnx" / "ops" / "loss.py", "from ..op import op\nfrom . import _x") == {
        "nnx.op", "nnx.ops",
    }  # fmt: skip
    assert imports(ROOT / "nnx" / "__init__.py", "from . import tape") == {"nnx.tape"}
    assert module_name(ROOT / "backends" / "nnx_numpy" / "kernels.py") == "nnx_numpy.kernels"


def test_nothing_imports_backends_as_a_package() -> None:
    wrong = {
        str(path.relative_to(ROOT))
        for path in sources(*CODE)
        if any(name.partition(".")[0] == "backends" for name in imports(path))
    }
    assert wrong == set()


ALLOWED = {
    "errors.py": set(),
    "traffic.py": {"errors"},
    "backend.py": {"errors", "plugins", "traffic"},
    "plugins.py": {"backend", "errors"},
    "scalar.py": {"backend", "errors"},
    "arrays.py": {"backend", "errors", "traffic"},
    "signature.py": set(),
    "op.py": {"backend", "errors", "scalar", "signature"},
    "update.py": {"backend", "errors", "signature"},
    "calls.py": {"backend", "signature"},
    "threads.py": {"errors"},
    "lanes.py": {"calls", "threads"},
    "override.py": {"calls", "errors", "op", "signature", "update"},
    "optim/kernels.py": {"backend", "errors", "op", "update"},
    "ops": {"backend", "errors", "op", "ops"},
}


@pytest.mark.parametrize("what", ALLOWED)
def test_the_core_imports_only_what_lies_below_it(what: str) -> None:
    files = [ROOT / "nnx" / what] if what.endswith(".py") else list(sources(f"nnx/{what}"))
    assert files
    for path in files:
        assert of_nnx(path) <= ALLOWED[what], path


def test_nothing_below_the_layers_knows_them() -> None:
    above = {"layers", "optim", "train", "cli", "io", "bench", "data", "init", "runs", "report"}
    below = ["tape", "backward", "tensor", "higher", "operators", "functional", "random"]
    paths = [*sources("nnx/ops"), *(ROOT / "nnx" / f"{name}.py" for name in below)]
    for path in paths:
        assert not of_nnx(path) & above, path


def test_backends_import_only_what_they_override() -> None:
    allowed = {
        "op", "ops", "update", "override", "calls", "lanes", "backend", "errors", "precision",
            "threads",
    }  # fmt: skip
    for path in sources("backends"):
        assert of_nnx(path) - {"optim", "backward"} <= allowed, path
        named = imports(path)
        updates = {"nnx.optim.kernels", "nnx.backward"}  # where gradients are added up
        assert {n for n in named if n.startswith(("nnx.optim", "nnx.backward"))} <= updates, path
        own = path.relative_to(ROOT / "backends").parts[0]
        others = {p.name for p in PLUGINS} - {own, parent_of(own)}
        assert not {n.partition(".")[0] for n in named} & others, path


def parent_of(plugin: str) -> str:
    """The package of the backend whose arrays and kernels the plugin's backend shares."""
    text = (ROOT / "backends" / plugin / "__init__.py").read_text("utf-8")
    found = re.search(r'^    parent = "(\w+)"$', text, re.M)
    return f"nnx_{found[1]}" if found else ""


def test_the_core_imports_no_backend() -> None:
    for path in sources("nnx"):
        named = {name.partition(".")[0] for name in imports(path)} & {p.name for p in PLUGINS}
        assert not named, path


LATE = {
    "argparse", "concurrent.futures", "csv", "cupy", "gzip", "hashlib", "http.client",
    "importlib.metadata", "json", "matplotlib", "multiprocessing", "nnx.bench", "nnx.cli",
    "nnx.plugins", "nnx.train", "numba", "numpy.random", "pooch", "safetensors", "subprocess",
    "tempfile", "threadpoolctl", "torch", "tqdm",
}  # fmt: skip


def test_importing_nnx_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys, numpy; before = set(sys.modules); import nnx; "
        "print(*sorted(set(sys.modules) - before))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "nnx.tape" in loaded
    assert not loaded & LATE
