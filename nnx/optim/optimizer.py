"""What all optimizers share: parameter groups, the state of each parameter, the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from ..backend import Array, Backend, asarray, backend_of, get_backend, moved
from ..errors import OptionError
from ..tensor import Parameter, Tensor
from ..update import Update
from . import options, states
from .states import Count, State

Group = dict[str, Any]


class Plan(NamedTuple):
    """How a group is updated: the kernel, the names of its state arrays, its attributes."""

    kernel: Update
    names: tuple[str, ...]
    attrs: dict[str, Any]


class Optimizer:
    """Base of the optimizers; a subclass defines `defaults`, `plan` and `numbers`.

    params   an iterable of Parameters, or of dicts {"params": [...], "lr": 0.1, ...}: groups with
             options of their own

    `param_groups` is the list of these dicts, completed by the defaults. Options may be changed
    between steps: `opt.param_groups[0]["lr"] *= 0.1`.

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
        for group in options.groups(self._name, params):
            self.add_param_group(group)

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
        self.param_groups.append({"params": params, **made})

    def zero_grad(self) -> None:
        """Set every parameter's `.grad` to None."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient and is not frozen; others are not decayed.

        State follows a parameter that has moved to another backend or dtype. Raises
        MixedBackendsError, ShapeError or DtypeError, before anything is changed, if a gradient
        does not fit its parameter.
        """
        backend = get_backend()
        for i, (plan, due) in enumerate([self._due(i) for i in range(len(self.param_groups))]):
            kernel, attrs = plan.kernel, plan.attrs
            source = Count(self, i, plan, due)
            rows = backend.numbers(source, [g for _, g, _ in due])
            for (p, g, state), numbers in zip(due, rows, strict=True):
                held = kernel(p.data, g, *state.arrays, *numbers, **attrs)
                if state.names:
                    held, state.arrays = held[0], held[1:]
                p.update(held)
                state.home = held

    def _due(self, i: int) -> tuple[Plan, list[tuple[Parameter, Array, State]]]:
        """The parameters of a group that are to be updated, with gradients that fit."""
        group = self.param_groups[i]
        plan, found = self.plan(group), self._states
        due = []
        for j, p in enumerate(group["params"]):
            g = p.grad
            if g is None or not p.requires_grad:
                continue
            data = p.data
            state = found.get(p)
            if state is None or state.home is not data or state.names != plan.names:
                state = self._settle(p, group, plan.names)
            if isinstance(g, Tensor):
                g = g.data
            if not state.backend.owns(g) or g.shape != data.shape or g.dtype != data.dtype:
                raise states.misfit(self._name, self._index(i, j), p, g)
            due.append((p, g, state))
        return plan, due

    def _index(self, i: int, j: int) -> int:
        return sum(len(g["params"]) for g in self.param_groups[:i]) + j

    def _settle(self, p: Parameter, group: Group, names: tuple[str, ...]) -> State:
        """The parameter's state, where the parameter is now.

        An option that needs other arrays (momentum switched on) starts the parameter's state anew.
        """
        backend = backend_of(p.data).lasting
        state = self._states.get(p)
        if state is None or state.names != names:
            filled = tuple(self._filled(p, backend, self.initial(group)) for _ in names)
            state = self._states[p] = State(names, filled, p.data, backend)
        else:
            dtype = backend.dtype_name(p.data)
            state.arrays = tuple(
                asarray(moved(a, backend), dtype, backend=backend) for a in state.arrays
            )
        state.home, state.backend = p.data, backend
        return state

    @staticmethod
    def _filled(p: Parameter, backend: Backend, value: float) -> Array:
        zeros = backend.zeros(p.shape, p.dtype)
        return backend.result(zeros + value) if value else zeros

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

    def __repr__(self) -> str:
        lines = [
            f"{len(g['params'])} parameters, "
            + ", ".join(f"{k}={v!r}" for k, v in g.items() if k != "params")
            for g in self.param_groups
        ]
        return f"{self._name}({'; '.join(lines)})"
