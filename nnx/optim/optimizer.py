"""What all optimizers share: parameter groups, the state of each parameter, the step."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from ..arrays import incoming, written
from ..backend import Array, backend_of, get_backend
from ..errors import OptionError
from ..flat import Flat, pack
from ..tensor import Parameter, Tensor
from ..update import Update
from . import options, states
from .runs import Due
from .states import State

Group = dict[str, Any]


class Plan(NamedTuple):
    """How a group is updated: the kernel, the names of its state arrays, its attributes."""

    kernel: Update
    names: tuple[str, ...]
    attrs: dict[str, Any]


class Optimizer:
    """Base of the optimizers; a subclass defines `defaults`, `plan` and `numbers`.

    An option of its own is a finite number, or True or False where the default is; what else it
    must be, `check` says.

    params   an iterable of Parameters, or of dicts {"params": [...], "lr": 0.1, ...}: groups with
             options of their own

    `param_groups` is the list of these dicts, completed by the defaults. Options may be changed
    between steps: `opt.param_groups[0]["lr"] *= 0.1`.

    Parameters of a group are laid side by side in one buffer, where nobody else holds their arrays,
    so that one call updates them all: `p.data` is then another array, of the same values.

    Raises OptionError for no parameters, the same one twice, something else than a Parameter, an
    unknown option or a value out of range.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, params: Any, **given: Any) -> None:
        self._name = type(self).__name__
        self._options = options.checked(self._name, {**self.defaults, **given}, self.defaults)
        self.check(self._options)
        self.param_groups: list[Group] = []
        self._states: dict[Parameter, State] = {}
        self._start()
        for group in options.groups(self._name, params):
            self.add_param_group(group)

    def _start(self) -> None:
        """What is worked out when it is needed.

        changes   how often a state that was there was replaced
        """
        self.changes = 0
        self._last: dict[int, Due] = {}
        self._buffers: MutableMapping[Flat, dict[str, Array]] = WeakKeyDictionary()

    def plan(self, group: Group) -> Plan:
        """The kernel that updates a group with these options. Subclasses define it."""
        raise NotImplementedError

    def numbers(self, group: Group, step: int) -> tuple[float, ...]:
        """The kernel's numbers at a parameter's step 1, 2, ... Subclasses define it."""
        raise NotImplementedError

    def initial(self, group: Group) -> float:
        """What state arrays are filled with at first."""
        return 0.0

    def check(self, group: Group) -> None:
        """Raise OptionError for options that do not go together."""

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add {"params": [...], "lr": ...}; options left out have the optimizer's values."""
        i = len(self.param_groups)
        what = f"{self._name}, group {i}" if i else self._name
        made = {k: v for k, v in group.items() if k != "params"}
        made = {**self._options, **options.checked(what, made, self.defaults)}
        self.check(made)
        params = options.parameters(what, group.get("params"))
        seen = {p for g in self.param_groups for p in g["params"]}
        for j, p in enumerate(params):
            if p in seen:
                raise OptionError(
                    f"{what}: parameter {j} (shape {p.shape}) was given before; an optimizer "
                    f"updates each once. Leave out the second mention"
                )
            seen.add(p)
        pack(params)
        self.param_groups.append({"params": params, **made})

    def zero_grad(self) -> None:
        """Set every parameter's `.grad` to None."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient and is not frozen; others are not decayed.

        Parameters that lie side by side (`nnx.flat`) are updated by one call. State follows a
        parameter that has moved to another backend or dtype. Raises MixedBackendsError, ShapeError
        or DtypeError, before anything is changed, if a gradient does not fit its parameter. A call
        of a kernel for which there is no memory changes and counts nothing; those before it stay.
        """
        backend = get_backend()
        for due in [self._due(i) for i in range(len(self.param_groups))]:
            kernel, attrs, runs = due.plan.kernel, due.plan.attrs, due.runs
            rows = backend.numbers(due, [run.grad for run in runs])
            for i, (run, numbers) in enumerate(zip(runs, rows, strict=True)):
                try:
                    held = kernel(run.data, run.grad, *run.arrays, *numbers, **attrs)
                except MemoryError:
                    due.uncount(i)
                    raise
                run.take(held)

    def _due(self, i: int) -> Due:
        """What is to be updated in a group, with gradients that fit; as last time, if it can be."""
        last = self._last.get(i)
        if last is not None and last.again():
            return last
        group = self.param_groups[i]
        pack(group["params"])
        plan, found = self.plan(group), []
        for j, p in enumerate(group["params"]):
            g = p.grad
            if g is None or not p.requires_grad:
                continue
            state = self._states.get(p)
            if state is None or state.home is not p.data or state.names != plan.names:
                state = self._settle(p, group, plan.names)
            if isinstance(g, Tensor):
                g = g.data
            if not state.backend.owns(g) or g.shape != p.data.shape or g.dtype != p.data.dtype:
                raise states.misfit(self._name, self._index(i, j), p, g)
            found.append((p, g, state))
        self._last.pop(i, None)
        due = Due(self, i, plan, found)
        if due.in_buffers:  # else it holds gradients, which may be let go before the next step
            self._last[i] = due
        return due

    def _index(self, i: int, j: int) -> int:
        return sum(len(g["params"]) for g in self.param_groups[:i]) + j

    def _settle(self, p: Parameter, group: Group, names: tuple[str, ...]) -> State:
        """The parameter's state, where the parameter is now.

        An option that needs other arrays (momentum switched on) starts the parameter's state anew.
        """
        state = self._states.get(p)
        if state is not None and state.names == names:
            return self.remember(p, names, state.arrays, state.step)
        return self.remember(p, names, [self.initial(group)] * len(names))

    def places(self, p: Parameter, names: tuple[str, ...]) -> list[Array]:
        """Arrays for the parameter's state."""
        if p.flat is None:
            backend = backend_of(p.data).lasting
            return [backend.zeros(p.shape, p.dtype) for _ in names]
        buffers = self.buffers(p.flat, *names)
        return [p.flat.view(buffers[name], p.place, p.shape) for name in names]

    def remember(
        self, p: Parameter, names: tuple[str, ...], values: Sequence[Any], step: int = 0,
        places: list[Array] | None = None,
    ) -> State:  # fmt: skip
        """The parameter's state from now on: arrays of any backend and dtype, or numbers to fill
        with.
        """
        backend = backend_of(p.data).lasting
        arrays = []
        for array, value in zip(places or self.places(p, names), values, strict=True):
            if hasattr(value, "shape"):
                value = incoming(value, array, backend)
            else:
                zeros = backend.zeros(p.shape, p.dtype)
                value = backend.result(backend.call(_plus, (zeros, value), {}))
            arrays.append(written(array, value, backend))
        if p in self._states:
            self.changes += 1
        state = self._states[p] = State(names, tuple(arrays), p.data, backend, step)
        return state

    def buffers(self, flat: Flat, *names: str) -> dict[str, Array]:
        """State arrays of all the buffer's parameters, each name's as one; zeros where new."""
        found = self._buffers.setdefault(flat, {})
        for name in names:
            if name not in found:
                found[name] = flat.backend.buffer(flat.starts[-1], flat.data.dtype)
        return found

    def forget(self) -> None:
        """Start without any state."""
        self._states.clear()
        self._last.clear()
        self.changes += 1

    def state_dict(self) -> dict[str, Any]:
        """Copies on the host: NumPy arrays, Python numbers, tuples and strings.

            {"optimizer": "Adam",
             "param_groups": [{"params": [0, 1], "lr": 0.001, ...}],
             "state": {0: {"step": 3, "m": ndarray, "v": ndarray}}}

        Parameters are numbered in the order given; one that was never updated has no state.
        """
        return states.dump(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take options and state from what `state_dict()` gave, for parameters in the same order.

        Raises StateError with all that does not fit (optimizer, groups, options, names, shapes);
        the optimizer is then unchanged.
        """
        states.restore(self, saved)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("changes", "_last", "_buffers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        lines = [
            f"{len(g['params'])} parameters, "
            + ", ".join(f"{k}={v!r}" for k, v in g.items() if k != "params")
            for g in self.param_groups
        ]
        return f"{self._name}({'; '.join(lines)})"


def _plus(xp: Any, a: Array, number: Any) -> Any:
    return a + number
