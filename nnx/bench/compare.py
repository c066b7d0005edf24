"""Runs the cases, one column per implementation, which are checked before they are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..backend import Backend, backends, load_backend
from ..errors import NnxError, OptionError
from . import naive, nnx_cases
from .cases import (
    NOT_TIMED,
    OPS,
    SWEEP_BATCHES,
    SWEEP_SIZES,
    Array,
    OpCase,
    OpInputs,
    Prepared,
    StepCase,
    StepInputs,
    op_inputs,
    step_inputs,
)
from .report import Row, Sweep, Time, has_torch
from .timing import Effort, crossover, measure, middle, speedup

CHECKED_STEPS = 3


@dataclass(frozen=True)
class Column:
    """One implementation; `reason` says why it cannot be timed ("" if it can)."""

    name: str
    reason: str = ""
    backend: Backend | None = None
    op: Callable[[OpCase, OpInputs, bool], Prepared | None] | None = None
    step: Callable[[StepCase, StepInputs], Prepared] | None = None


def columns(names: Iterable[str] | None = None) -> list[Column]:
    """The implementations named, or all: nnx's backends, the naive style, PyTorch.

    Raises OptionError for a name that does not exist; one that exists but is not usable here
    comes back with its reason.
    """
    found = [_backend(name) for name in _backend_names()]
    found += [_replay(c.backend) for c in found if c.backend is not None and c.backend.replay()]
    found.append(Column("naive", op=naive.op, step=naive.step))
    found += _torch()
    if names is None:
        return found
    known = {column.name: column for column in found}
    for name in names:
        if name not in known:
            raise OptionError(f"nnx bench: no column {name!r}; choose from {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _backend_names() -> list[str]:
    """cupy has a column even where nobody installed it, to say why it is empty."""
    return list(dict.fromkeys(["numpy", "cupy", *backends()]))


def _backend(name: str) -> Column:
    info = backends().get(name)
    if info is None:
        return Column(name, "nothing registers it; install nnx itself: pip install .")
    if not info.available:
        return Column(name, info.reason)
    backend = load_backend(name)
    op, step = partial(nnx_cases.op, backend), partial(nnx_cases.step, backend)
    return Column(name, backend=backend, op=op, step=step)


def _replay(backend: Backend) -> Column:
    """Training steps through `nnx.capture`."""
    step = partial(nnx_cases.step, backend, replay=True)
    return Column(f"{backend.name} replay", backend=backend, step=step)


def _torch() -> list[Column]:
    if not has_torch():
        return [Column("torch", "PyTorch is not installed: pip install torch")]
    from . import torch_cases as cases

    devices = {"torch": "cpu"}
    if cases.torch.cuda.is_available():
        devices["torch-cuda"] = "cuda"
    return [
        Column(name, op=partial(cases.op, device), step=partial(cases.step, device))
        for name, device in devices.items()
    ]


def agree(what: str, reference: list[Array], name: str, found: list[Array]) -> None:
    """Raise NnxError unless `found` equals the reference up to float32 rounding."""
    if len(found) != len(reference):
        raise NnxError(f"{what}: {name} gives {len(found)} arrays, nnx on NumPy {len(reference)}")
    for i, (a, b) in enumerate(zip(reference, found, strict=True)):
        scale = float(np.max(np.abs(a), initial=1e-3))
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-3, atol=1e-4 * scale):
            gap = f"{np.max(np.abs(a - b)):.3g}" if a.shape == b.shape else f"{b.shape}, {a.shape}"
            raise NnxError(
                f"{what}: result {i} of {name} and of nnx on NumPy differ ({gap}), so their times "
                f"cannot be compared"
            )


def op_row(case: OpCase, size: str, backward: bool, chosen: list[Column], effort: Effort) -> Row:
    """One op at one size on every column that has it."""
    inputs = op_inputs(case, size)
    rows, cols = case.sizes[size]
    what = "forward+backward" if backward else "forward"
    label = f"{case.op} {rows}x{cols} {what}"
    reference = nnx_cases.op(load_backend("numpy"), case, inputs, backward)
    expected = reference.values(reference.run())
    prepared = {}
    for column in chosen:
        made = _op(column, case, inputs, backward)
        if made is not None:
            agree(label, expected, column.name, made.values(made.run()))
            prepared[column.name] = made
    return _row("op", case.op, f"{rows}x{cols}", what, prepared, chosen, effort)


def _op(column: Column, case: OpCase, inputs: OpInputs, backward: bool) -> Prepared | None:
    """With inputs of its own: the naive style may write into what it is given."""
    if column.reason or column.op is None:
        return None
    mine = OpInputs(tuple(a.copy() for a in inputs.args), inputs.dy.copy())
    return column.op(case, mine, backward)


def step_row(case: StepCase, chosen: list[Column], effort: Effort) -> Row:
    """One training step (or inference) on every column, after three steps gave equal losses."""
    inputs = step_inputs(case)
    expected = losses(nnx_cases.step(load_backend("numpy"), case, inputs))
    prepared = {}
    for column in chosen:
        if column.step is not None and not column.reason:
            agree(case.name, expected, column.name, losses(column.step(case, inputs)))
            prepared[column.name] = column.step(case, inputs)
    what = "training step" if case.train else "inference"
    size = f"batch {case.batch}"
    name = "-".join(map(str, case.sizes))
    return _row("step", name, size, what, prepared, chosen, effort)


def losses(prepared: Prepared) -> list[Array]:
    """What the first steps give."""
    return [a for _ in range(CHECKED_STEPS) for a in prepared.values(prepared.run())]


def _row(
    kind: str, name: str, size: str, what: str, prepared: Mapping[str, Prepared],
    chosen: list[Column], effort: Effort,
) -> Row:  # fmt: skip
    times = measure(prepared, effort)
    ours = [c.name for c in chosen if c.backend is not None and c.name in times]
    speedups = {a: {b: list(speedup(times[a], times[b])) for b in times if b != a} for a in ours}
    return Row(
        kind=kind, name=name, size=size, what=what,
        times={k: _time(v) for k, v in times.items()},
        speedups=speedups,
    )  # fmt: skip


def _time(rounds: list[float]) -> Time:
    seconds, low, high = middle(rounds)
    return Time(seconds=seconds, low=low, high=high)


def sweep(chosen: list[Column], effort: Effort) -> Sweep | None:
    """A training step at growing batches on NumPy and each device; None without a device."""
    devices = [c for c in chosen if c.backend is not None and not c.backend.on_host]
    if not devices:
        return None
    runners = [_backend("numpy"), *devices]
    seconds: dict[str, list[float]] = {c.name: [] for c in runners}
    for batch in SWEEP_BATCHES:
        row = step_row(StepCase(SWEEP_SIZES, batch), runners, effort)
        for name, found in row["times"].items():
            seconds[name].append(found["seconds"])
    batches = list[int](SWEEP_BATCHES)
    return Sweep(
        step="-".join(map(str, SWEEP_SIZES)),
        batches=batches,
        seconds=seconds,
        wins_from={c.name: crossover(batches, seconds["numpy"], seconds[c.name]) for c in devices},
    )


def cases_named(names: Iterable[str]) -> list[OpCase]:
    """Raises OptionError for a name that is not a timed op."""
    for name in names:
        if name in NOT_TIMED:
            raise OptionError(f"nnx bench: {name} is not timed: {NOT_TIMED[name]}")
        if name not in OPS:
            raise OptionError(f"nnx bench: no op {name!r}; timed are {', '.join(OPS)}")
    return [OPS[name] for name in names]
