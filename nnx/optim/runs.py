"""Which calls of an update kernel a step makes: one for neighbours in a buffer, as one array."""

from __future__ import annotations

import operator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..backend import Array
from ..flat import neighbours
from ..tensor import Parameter
from .states import State

if TYPE_CHECKING:
    from .optimizer import Optimizer, Plan

Update = tuple[Parameter, Array, State]  # with the gradient


class Run:
    """One call: its arrays, and the parameters whose they are, all at the same step."""

    __slots__ = ("arrays", "data", "flat", "grad", "parameters", "states")

    def __init__(self, found: list[Update], optimizer: Optimizer) -> None:
        self.parameters = [p for p, _, _ in found]
        self.states = [state for _, _, state in found]
        p, self.grad, state = found[0]
        self.data, self.arrays = p.data, state.arrays
        self.flat = p.flat if self.grad is p.slot else None
        if self.flat is not None:
            first, last = p.place, self.parameters[-1].place
            self.data, self.grad = self.flat.pieces(first, last)
            buffers = optimizer.buffers(self.flat)
            self.arrays = tuple(self.flat.cut(buffers[n], first, last) for n in state.names)

    def take(self, held: Any) -> None:
        """What the kernel gave: the arrays that hold the values now."""
        if self.flat is not None:  # whose views the parameters are, written in place
            for p in self.parameters:
                p.update(p.data)
            return
        state = self.states[0]
        if state.names:
            held, state.arrays = held[0], held[1:]
        self.parameters[0].update(held)
        state.home = held


class Due:
    """A group's part of a step: what is updated, by which calls, with which numbers.

    A replay calls `advance` again, as long as `holds` says that nothing else has changed.
    """

    def __init__(self, optimizer: Optimizer, i: int, plan: Plan, found: list[Update]) -> None:
        self.optimizer, self.group, self.plan = optimizer, optimizer.param_groups[i], plan
        self.groups, self.changes = len(optimizer.param_groups), optimizer.changes
        self._note()
        self.data = [(p, p.data) for p, _, _ in found]
        updated = {p for p, _ in self.data}
        self.rest = [p for p in self.group["params"] if p not in updated]
        self.runs = [Run(part, optimizer) for part in _together(found)]
        self.in_buffers = all([run.flat is not None for run in self.runs])

    def _note(self) -> None:
        self.params = list(self.group["params"])
        self.options = {**self.group, "params": self.params}

    def again(self) -> bool:
        """Whether the next step finds all as this one did, and gradients in their buffer."""
        for p, data in self.data:
            g = p.grad
            if p._data is not data or g is None or g is not p.slot or not p.requires_grad:
                return False
        for p in self.rest:
            if p.grad is not None and p.requires_grad:
                return False
        return self.holds()

    def holds(self) -> bool:
        """Whether groups, options and state arrays are those that were recorded."""
        optimizer = self.optimizer
        if len(optimizer.param_groups) != self.groups or optimizer.changes != self.changes:
            return False
        for run in self.runs:
            step = run.states[0].step
            for state in run.states:
                if state.step != step:  # some were updated without the others in between
                    return False
        params = self.group["params"]
        if len(params) != len(self.params) or not all(map(operator.is_, params, self.params)):
            return False
        if self.group != self.options:  # parameters are the same ones, so they are not compared
            if optimizer.plan(self.group) != self.plan:
                return False
            self._note()
        return True

    def advance(self) -> list[tuple[float, ...]]:
        """Count the step, and give the kernel's numbers for each run."""
        last, rows = 0, []
        numbers: tuple[float, ...] = ()
        for run in self.runs:
            for state in run.states:
                state.step += 1
            if run.states[0].step != last:
                last = run.states[0].step
                numbers = self.optimizer.numbers(self.group, last)
            rows.append(numbers)
        return rows

    def uncount(self, first: int) -> None:
        """The step of this run and those after it, which was not made."""
        for run in self.runs[first:]:
            for state in run.states:
                state.step -= 1

    def parameters(self) -> list[Parameter]:
        """All of the group: those without a gradient were passed over because of that."""
        found: list[Parameter] = self.group["params"]
        return found

    def steps(self) -> list[int]:
        """The counts, for `rewind`."""
        return [state.step for run in self.runs for state in run.states]

    def rewind(self, steps: list[int]) -> None:
        for state, step in zip((s for run in self.runs for s in run.states), steps, strict=True):
            state.step = step


def _together(found: list[Update]) -> list[list[Update]]:
    """Those of one call: neighbours, gradients in their buffer, that have had as many updates."""
    by_parameter = {u[0]: u for u in found}
    parts: list[list[Update]] = []
    for near in neighbours(by_parameter):
        updates = [by_parameter[p] for p in near]
        parts += [list(part) for _, part in groupby(updates, lambda u: u[2].step)]
    return parts
