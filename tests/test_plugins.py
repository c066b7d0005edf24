"""Plugins that are missing, broken, doubled or outdated: each says so and harms no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plugin_dirs
import pytest

import nnx
from nnx.backend import backend_of


@pytest.fixture(autouse=True)
def site(tmp_path: Path) -> Iterator[Path]:
    """A site directory in which "toy" is installed: NumPy under another name."""
    plugin_dirs.install_toy(tmp_path)
    with plugin_dirs.fresh_process(tmp_path):
        yield tmp_path


def error(kind: type[Exception], f: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(kind) as caught:
        f(*args)
    return str(caught.value)


def test_unknown_backend_lists_the_installed_ones() -> None:
    text = error(nnx.UnknownBackendError, nnx.set_backend, "tpu")
    assert text.startswith("no backend named 'tpu' is installed; installed: numpy, ")
    assert "toy" in text and "entry-point group 'nnx.backends'" in text
    assert nnx.get_backend().name == "numpy"


def test_backends_lists_and_says_why_not(site: Path) -> None:
    plugin_dirs.install(site, "nnx-gone", {"gone": "nnx_gone:Gone"})
    found = nnx.backends()
    assert next(iter(found)) == "numpy" and {"numpy", "toy", "gone"} <= set(found)
    assert found["toy"].available and found["toy"].reason == ""
    assert found["toy"].package == "nnx-toy 1.0" and found["toy"].name == "toy"
    assert not found["gone"].available and "outdated" in found["gone"].reason
    assert nnx.get_backend().name == "numpy", "asking must not choose"


def test_a_device_of_a_backend_without_devices() -> None:
    assert error(nnx.BackendError, nnx.set_backend, "numpy:1") == (
        "the backend 'numpy' has no device '1'; call nnx.set_backend('numpy')"
    )


def test_a_stranger_cannot_take_the_name_numpy(site: Path) -> None:
    plugin_dirs.install(site, "nnx-fast", {"numpy": "nnx_toy:Toy"})
    found = nnx.backends()["numpy"]
    assert found.available and nnx.set_backend("numpy").name == "numpy"
    assert found.reason == (
        "nnx-fast 1.0 registers the name too (nnx_toy:Toy) and is ignored: uninstall it"
    )


BAD = "from nnx_numpy import NumpyBackend\nclass Bad(NumpyBackend):\n    name = 'bad'\n"
BROKEN = {
    "two claims": (
        {"nnx-one": "one:Bad", "nnx-two": "two:Bad"}, {},
        "two packages register a backend named 'bad': nnx-one 1.0 (one:Bad) and nnx-two 1.0 "
        "(two:Bad); uninstall one of them",
    ),
    "module gone": (
        {"nnx-bad": "bad_gone.sub:Bad"}, {},
        "backend 'bad': nnx-bad 1.0 registers 'bad_gone.sub:Bad', which does not exist (No module "
        "named 'bad_gone'); the entry point is outdated: reinstall nnx-bad",
    ),
    "submodule gone": (
        {"nnx-bad": "bad_mod.old:Bad"}, {"bad_mod": BAD},
        "backend 'bad': nnx-bad 1.0 registers 'bad_mod.old:Bad', which does not exist (No module "
        "named 'bad_mod.old'; 'bad_mod' is not a package); the entry point is outdated: reinstall "
        "nnx-bad",
    ),
    "attribute gone": (
        {"nnx-bad": "bad_mod:Old"}, {"bad_mod": BAD},
        "backend 'bad': nnx-bad 1.0 registers 'bad_mod:Old', which does not exist (module "
        "'bad_mod' has no attribute 'Old'); the entry point is outdated: reinstall nnx-bad",
    ),
    "dependency missing": (
        {"nnx-bad": "bad_mod:Bad"}, {"bad_mod": "import a_package_that_is_not_there"},
        "backend 'bad' of nnx-bad 1.0 needs the package 'a_package_that_is_not_there', which is "
        "not installed: pip install a_package_that_is_not_there",
    ),
    "import raises": (
        {"nnx-bad": "bad_mod:Bad"}, {"bad_mod": "1 / 0"},
        "backend 'bad' of nnx-bad 1.0 fails to import: ZeroDivisionError: division by zero",
    ),
    "import misses an attribute of another module": (
        {"nnx-bad": "bad_mod:Bad"}, {"bad_mod": "import math; math.tau2"},
        "backend 'bad' of nnx-bad 1.0 fails to import: AttributeError: module 'math' has no "
        "attribute 'tau2'",
    ),
    "a module of its own is missing": (
        {"nnx-bad": "bad_mod:Bad"}, {"bad_mod": "import bad_mod.inner"},
        "backend 'bad' of nnx-bad 1.0 fails to import: ModuleNotFoundError: No module named "
        "'bad_mod.inner'; 'bad_mod' is not a package",
    ),
    "not a backend": (
        {"nnx-bad": "math:pi"}, {},
        "backend 'bad' of nnx-bad 1.0 is 3.141592653589793, not a subclass of nnx.Backend",
    ),
    "written for an older nnx": (
        {"nnx-bad": "bad_mod:Bad"}, {"bad_mod": BAD + "    api_version = 0\n"},
        "backend 'bad' of nnx-bad 1.0 is written for version 0 of the Backend contract, this nnx "
        "has version 1: upgrade the package",
    ),
    "written for a newer nnx": (
        {"nnx-bad": "bad_mod:Bad"}, {"bad_mod": BAD + "    api_version = 2\n"},
        "backend 'bad' of nnx-bad 1.0 is written for version 2 of the Backend contract, this nnx "
        "has version 1: upgrade nnx",
    ),
    "start raises": (
        {"nnx-bad": "bad_mod:Bad"},
        {"bad_mod": BAD + "    def __init__(self, device=None): raise OSError('no lib')\n"},
        "backend 'bad' of nnx-bad 1.0 fails to start: OSError: no lib",
    ),
    "another name": (
        {"nnx-bad": "nnx_toy:Toy"}, {},
        "backend 'bad' of nnx-bad 1.0 calls itself 'toy'; the class attribute `name` and the entry "
        "point must agree",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_names_itself_and_harms_no_other(site: Path, case: str) -> None:
    distributions, modules, expected = BROKEN[case]
    for distribution, value in distributions.items():
        plugin_dirs.install(site, distribution, {"bad": value}, modules)
    nnx.set_backend("toy")
    assert error(nnx.BackendPackageError, nnx.set_backend, "bad") == expected
    assert nnx.get_backend().name == "toy"
    found = nnx.backends()
    assert found["bad"].reason == expected and found["toy"].available and found["numpy"].available
    assert type(error(nnx.DtypeError, backend_of, object())) is str, "looking through all plugins"


def test_metadata_that_repeats_itself_is_one_plugin(site: Path) -> None:
    """A checkout's egg-info beside the installed distribution says the same thing twice."""
    plugin_dirs.install(site, "nnx-toy-again", {"toy": "nnx_toy:Toy"})
    assert nnx.set_backend("toy").name == "toy"
