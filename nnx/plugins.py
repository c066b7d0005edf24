"""Backends that other packages register through the entry-point group `nnx.backends`."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from .backend import API_VERSION, Backend, load_backend
from .errors import BackendError, BackendPackageError, NnxError, UnknownBackendError

GROUP = "nnx.backends"
_NUMPY = "nnx_numpy:NumpyBackend"


@dataclass(frozen=True)
class BackendInfo:
    """One installed backend: whether `set_backend(name)` works, and if not, why."""

    name: str
    available: bool
    reason: str
    package: str


def info(name: str) -> BackendInfo:
    """Whether the backend of that name can be loaded here."""
    package = _packages(name)
    try:
        load_backend(name)
    except BackendError as error:
        return BackendInfo(name, False, str(error), package)
    others = [e for e in _entries(name) if name == "numpy" and e.value != _NUMPY]
    ignored = "; ".join(
        f"{_package(e)} registers the name too ({e.value}) and is ignored: uninstall it"
        for e in others
    )
    return BackendInfo(name, True, ignored, package)


def names() -> list[str]:
    """The names that installed packages register, `numpy` first."""
    registered = {entry.name for entry in entry_points(group=GROUP)}
    return ["numpy", *sorted(registered - {"numpy"})]


def backend_class(name: str) -> type[Backend]:
    """The class that `name` stands for.

    Raises UnknownBackendError if nobody registers it, BackendPackageError if two packages do, if
    the module cannot be imported, or if it was written for another version of the contract.
    """
    if name == "numpy":
        return _checked(name, _builtin_numpy(), "nnx")
    found = _entries(name)
    if not found:
        raise UnknownBackendError(
            f"no backend named {name!r} is installed; installed: {', '.join(names())}. "
            f"Install the package that registers it (entry-point group {GROUP!r})"
        )
    if len({entry.value for entry in found}) > 1:
        claims = " and ".join(f"{_package(e)} ({e.value})" for e in found)
        raise BackendPackageError(
            f"two packages register a backend named {name!r}: {claims}; uninstall one of them"
        )
    return _checked(name, _import(found[0]), _package(found[0]))


def make(name: str, device: str) -> Backend:
    """The backend of that name, on that device if one is named, made anew.

    Raises what `backend_class` raises, DeviceError, and BackendPackageError for whatever else goes
    wrong in a plugin, so that one broken plugin never takes the others with it.
    """
    cls = backend_class(name)
    try:
        made = cls(device or None)
    except NnxError:
        raise
    except Exception as error:
        raise BackendPackageError(
            f"backend {name!r} of {_packages(name)} fails to start: {type(error).__name__}: {error}"
        ) from error
    if made.name.partition(":")[0] != name:
        raise BackendPackageError(
            f"backend {name!r} of {_packages(name)} calls itself {made.name!r}; the class "
            f"attribute `name` and the entry point must agree"
        )
    return made


def _entries(name: str) -> list[EntryPoint]:
    """The entry points of that name, one of those that repeat each other."""
    unique = {(e.value, _package(e)): e for e in entry_points(group=GROUP, name=name)}
    return list(unique.values())


def _package(entry: EntryPoint) -> str:
    return (
        f"{entry.dist.name} {entry.dist.version}"
        if entry.dist is not None
        else "an unnamed package"
    )


def _packages(name: str) -> str:
    return ", ".join(sorted({_package(e) for e in _entries(name)})) or "nnx"


def _import(entry: EntryPoint) -> Any:
    package = _package(entry)
    module, _, attribute = entry.value.partition(":")
    try:
        found = importlib.import_module(module.strip())
    except BackendError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(missing + "."):
            raise _outdated(entry, error) from error
        if not missing or missing.partition(".")[0] == module.partition(".")[0]:
            raise _broken(entry, error) from error
        raise BackendPackageError(
            f"backend {entry.name!r} of {package} needs the package {missing!r}, which is "
            f"not installed: pip install {missing}"
        ) from error
    except Exception as error:
        raise _broken(entry, error) from error
    try:
        return getattr(found, attribute.strip())
    except AttributeError as error:
        raise _outdated(entry, error) from error


def _outdated(entry: EntryPoint, error: Exception) -> BackendPackageError:
    package = _package(entry)
    return BackendPackageError(
        f"backend {entry.name!r}: {package} registers {entry.value!r}, which does not exist "
        f"({error}); the entry point is outdated: reinstall {package.partition(' ')[0]}"
    )


def _broken(entry: EntryPoint, error: Exception) -> BackendPackageError:
    return BackendPackageError(
        f"backend {entry.name!r} of {_package(entry)} fails to import: "
        f"{type(error).__name__}: {error}"
    )


def _checked(name: str, cls: Any, package: str) -> type[Backend]:
    if not (isinstance(cls, type) and issubclass(cls, Backend)):
        raise BackendPackageError(
            f"backend {name!r} of {package} is {cls!r}, not a subclass of nnx.Backend"
        )
    if cls.api_version != API_VERSION:
        raise BackendPackageError(
            f"backend {name!r} of {package} is written for version {cls.api_version} of the "
            f"Backend contract, this nnx has version {API_VERSION}: upgrade "
            f"{'the package' if cls.api_version < API_VERSION else 'nnx'}"
        )
    return cls


def _builtin_numpy() -> Any:
    """numpy needs no entry point, so that a checkout which nobody installed works too."""
    try:
        module = importlib.import_module("nnx_numpy")
    except ModuleNotFoundError:
        checkout = Path(__file__).resolve().parent.parent / "backends"
        if not (checkout / "nnx_numpy").is_dir():
            raise BackendPackageError(
                "the package nnx_numpy, a part of nnx, is missing: reinstall nnx"
            ) from None
        sys.path.append(str(checkout))
        module = importlib.import_module("nnx_numpy")
    return module.NumpyBackend
