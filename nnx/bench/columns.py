"""The implementations that are compared: nnx on each backend, the naive style, and the peers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

from ..backend import Backend, backends, load_backend
from ..errors import OptionError
from .case import Case, Prepared
from .cases import OpCase

PEERS = {"torch": "PyTorch", "jax": "JAX"}
THP = "THP_MEM_ALLOC_ENABLE"  # PyTorch reads it once: arrays of 2 MiB and more get huge pages
HUGE_PAGE = 2 << 20


class Implementation(NamedTuple):
    """What a worker runs: prepares a case (None: it has none such), limits its threads."""

    prepare: Callable[[Case], Prepared | None]
    set_threads: Callable[[int], None] = lambda n: None  # the environment's variables are enough


def implementation(name: str, threads: int = 1) -> Implementation:
    """What the column of that name stands for, imported into this process."""
    if name == "naive":
        from . import naive

        return Implementation(naive.prepare)
    if name.startswith("floor "):
        from . import floor

        return Implementation(partial(floor.prepare, name, threads))
    if name.partition("-")[0] == "torch":
        from . import torch_cases

        torch_cases.set_precision("float32")  # as nnx computes
        return Implementation(partial(torch_cases.prepare, name), torch_cases.set_threads)
    if name == "jax":
        from . import jax_cases

        return Implementation(jax_cases.prepare)
    from . import nnx_cases

    backend, _, form = name.partition(" ")
    prepare = partial(nnx_cases.prepare, backend, form == "replay")
    return Implementation(prepare, nnx_cases.set_threads)


def _everything(case: Case) -> bool:
    return True


def _training(case: Case) -> bool:
    return case.trains


def _networks(case: Case) -> bool:
    return not isinstance(case, OpCase)


def _large_arrays(case: Case) -> bool:
    return isinstance(case, OpCase) and 4 * case.shape[0] * case.shape[1] >= HUGE_PAGE


@dataclass(frozen=True)
class Column:
    """One implementation, which runs in processes of its own.

    reason        why it cannot be timed ("" if it can)
    ours          whether it is nnx
    takes         the cases it is meant for
    environment   variables of its processes, beside those that set the threads
    program       what its processes run: `python *program NAME THREADS`
    """

    name: str
    reason: str = ""
    ours: bool = False
    takes: Callable[[Case], bool] = _everything
    environment: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "nnx.bench.worker")


def backend_of(column: Column) -> Backend | None:
    """The backend that the column computes on; None where it is not nnx, or cannot be used."""
    if not column.ours or column.reason:
        return None
    return load_backend(column.name.partition(" ")[0])


def on_device(column: Column) -> bool:
    """Whether it is nnx on a device of its own: a GPU."""
    backend = backend_of(column)
    return backend is not None and not backend.on_host


FLOOR = tuple(Column(f"floor {part}", takes=_training) for part in ("products", "update"))


def columns(
    against: Iterable[str] | None = None,
    names: Iterable[str] | None = None,
    *,
    quick: bool = False,
) -> list[Column]:
    """The peers in all their variants, the naive style, and nnx's backends, eager and replayed.

    The first is what the others are compared with: PyTorch as it comes, where it is installed.

    against   peers: "torch", "jax"; by default those that are installed
    names     exactly these columns, whatever else is asked for
    quick     of the peers only the plain variant

    Raises OptionError for a name that does not exist; one that exists but cannot be used here
    comes back with its reason.
    """
    peers = _peers(against)
    known = {c.name: c for c in (*_variants(), Column("naive"), *_ours())}
    if names is not None:
        names = list(dict.fromkeys(names))
        for name in names:
            if name not in known:
                raise OptionError(f"nnx bench: no column {name!r}; choose from {', '.join(known)}")
        return [known[name] for name in names]

    def wanted(column: Column) -> bool:
        """Of a peer that is not installed one column is enough to say so."""
        peer = column.name.partition("-")[0]
        plain_only = quick or (peer in known and bool(known[peer].reason))
        return peer in peers and (column.name == peer or not plain_only)

    rest = [c for c in known.values() if c.ours or c.name == "naive"]
    return [*filter(wanted, known.values()), *rest]


def _peers(against: Iterable[str] | None) -> list[str]:
    if against is None:
        return [name for name in PEERS if find_spec(name) is not None]
    chosen = list(against)
    for name in chosen:
        if name not in PEERS:
            raise OptionError(f"nnx bench: --against {name!r}, expected one of {', '.join(PEERS)}")
    return chosen


def _variants() -> list[Column]:
    """Each peer's plain form, named like the peer, and its variants."""
    missing = {
        name: "" if find_spec(name) else f"{title} is not installed: pip install {name}"
        for name, title in PEERS.items()
    }
    no_pages = "" if sys.platform == "linux" else "huge pages for PyTorch exist on Linux only"
    torch = missing["torch"]
    found = [
        Column("torch", torch),
        Column("torch-fused", torch, takes=_training),
        Column("torch-compile", torch, takes=_networks),
        Column("torch-thp", torch or no_pages, takes=_large_arrays, environment={THP: "1"}),
    ]
    if any(map(on_device, _ours())):
        found.append(Column("torch-cuda", torch))
        found.append(Column("torch-cuda-graphs", torch, takes=_training))
    return [*found, Column("jax", missing["jax"], environment={"JAX_PLATFORMS": "cpu"})]


def _ours() -> list[Column]:
    """Each backend eager and, where it can, replayed. cupy has a column even where nobody
    installed it, to say why it is empty.
    """
    found, installed = [], backends()
    for name in dict.fromkeys(["numpy", *installed, "cupy"]):
        info = installed.get(name)
        if info is None:
            reason = "nothing registers it; install nnx itself: pip install ."
        else:
            reason = "" if info.available else info.reason
        found.append(Column(name, reason, ours=True))
        if not reason and load_backend(name).replay() is not None:
            found.append(Column(f"{name} replay", ours=True))
    return found
