"""A plan: calls that repeat a recorded function, when they apply, and what they leave behind."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..tensor import tensor
from .compare import Entry
from .log import SLOT, Leaf, gradient_of, set_gradient
from .memory import Layout
from .recording import READS, WRITES, Recording
from .schedule import Schedule
from .tree import rebuild

ANY, NONE, ARRAY = "any", "none", "array"


@dataclass(frozen=True)
class Report:
    """What a plan does and holds.

    kernels         how often a replay calls each function, the most frequent first
    buffers         places in the shared memory
    shared_bytes    the memory that results share whose lifetimes do not overlap
    kept_bytes      results that last (outputs, gradients, constants) and scratch
    input_bytes     buffers that the arguments are copied to
    eager_bytes     all results of a call without the plan
    """

    kernels: dict[str, int]
    buffers: int
    shared_bytes: int
    kept_bytes: int
    input_bytes: int
    eager_bytes: int

    @property
    def planned_bytes(self) -> int:
        return self.shared_bytes + self.kept_bytes

    def __str__(self) -> str:
        calls = ", ".join(f"{name} {n}" for name, n in self.kernels.items())
        total = sum(self.kernels.values())
        ratio = self.planned_bytes / self.eager_bytes if self.eager_bytes else 1.0
        return (
            f"kernels   {total}: {calls}\n"
            f"buffers   {self.buffers} in {self.shared_bytes:,} shared bytes\n"
            f"planned   {self.planned_bytes:,} bytes: {self.shared_bytes:,} shared, "
            f"{self.kept_bytes:,} kept (outputs, gradients, constants, scratch)\n"
            f"eager     {self.eager_bytes:,} bytes of results; planned / eager = {ratio:.2f}\n"
            f"inputs    {self.input_bytes:,} bytes"
        )


class State:
    """Leaves and layers as a plan needs them."""

    def __init__(self, recording: Recording, leaves: list[Leaf]) -> None:
        self.recording = recording
        self.layers = list(recording.layers.values())
        self.leaves = [(leaf, self._gradient(leaf)) for leaf in leaves]

    def _gradient(self, leaf: Leaf) -> str:
        if leaf.grad is None:
            return NONE
        lies = leaf.tensor.slot if leaf.grad is SLOT else leaf.grad
        if self.recording.touches(lies) != READS:
            return ANY
        return SLOT if leaf.grad is SLOT else ARRAY

    def holds(self) -> bool:
        """Whether leaves and layers are as they were before the recorded run."""
        for layer, training in self.layers:
            if layer.training is not training:
                return False
        for leaf, kind in self.leaves:
            t = leaf.tensor
            if t._data is not leaf.data or t.requires_grad is not leaf.requires_grad:
                return False
            if kind is NONE:
                if t.grad is not None:
                    return False
            elif kind is SLOT:
                if t.grad is None or t.grad is not t.slot:
                    return False
            elif kind is ARRAY and not self.fits(leaf, t.grad):
                return False
        return True

    def fits(self, leaf: Leaf, grad: Any) -> bool:
        """Whether that gradient can be copied to where the recorded one lay."""
        if grad is leaf.grad:
            return True
        slot: Any = leaf.grad
        owns = self.recording.base.owns
        return owns(grad) and bool(grad.shape == slot.shape and grad.dtype == slot.dtype)

    def same(self, other: State) -> bool:
        """Whether two runs began alike: then a difference between them is not explained by it."""
        modes = {id(x): mode for x, mode in other.layers}
        if any(modes.get(id(x), mode) is not mode for x, mode in self.layers):
            return False
        theirs = {id(leaf.tensor): (leaf, kind) for leaf, kind in other.leaves}
        for leaf, kind in self.leaves:
            found = theirs.get(id(leaf.tensor))
            if found is None:
                continue
            b, kind_b = found
            if leaf.data is not b.data or leaf.requires_grad is not b.requires_grad:
                return False
            if kind is not kind_b and ANY not in (kind, kind_b):
                return False
        return True


class Plan:
    """Repeats a recorded run on new arguments."""

    def __init__(self, recording: Recording, state: State, form: Any, entries: list[Entry]) -> None:
        self.recording, self.state, self.form, self.entries = recording, state, form, entries
        memory = recording.memory
        self.used = 0
        self.finals = [_final(recording, leaf, kind) for leaf, kind in state.leaves]
        owns = recording.base.owns
        recording.outputs = [memory.alias(a) if owns(a) else a for a in recording.outputs]
        kept = {id(memory.root(a)) for a in recording.outputs if owns(a)}
        left = [g for _, g, _, touched in self.finals if touched and owns(g)]
        kept |= {id(memory.root(g)) for g in left}
        schedule = Schedule(recording, kept)
        schedule.without_copies()
        layout = Layout(schedule)
        self.scratch: dict[Any, Any] = {}
        self.calls = [
            (f, args, dict(attrs))
            for call in layout.calls
            for f, args, attrs in memory.forms(call, recording.base, self._scratch())
        ]
        self.slots = [leaf for leaf, kind in state.leaves if kind is ARRAY]
        self.targets = self._targets(layout)
        drawn = {id(c.args[0]): c.args[0] for c in layout.calls if c.kind == "uniform"}
        self.generators = list(drawn.values())
        self.records = [x for x, _ in state.layers if x._record is not None]
        self._report(layout)
        recording.forget()  # the arrays that now lie elsewhere

    def _scratch(self) -> Any:
        """Scratch for one call; those after it may have the same."""
        count = itertools.count()

        def empty(shape: tuple[int, ...], dtype: Any) -> Any:
            key = (next(count), shape, str(dtype))
            if key not in self.scratch:
                self.scratch[key] = self.recording.base.xp.empty(shape, dtype=dtype)
            return self.scratch[key]

        return empty

    def _targets(self, layout: Layout) -> list[Any]:
        """Arrays from outside that a replay writes."""
        memory, found = self.recording.memory, {}
        for call in layout.calls:
            for a in call.writes:
                root = memory.root(a)
                storage = self.recording.storages.get(id(root))
                if storage is not None and storage.label[0] == "outside":
                    found[id(root)] = root
        return list(found.values())

    def _report(self, layout: Layout) -> None:
        names: Counter[str] = Counter(c.name for c in layout.calls)
        roots = {id(s.root): s.root for s in self.recording.storages.values()}
        label = {id(s.root): s.label[0] for s in self.recording.storages.values()}
        kept = sum(roots[k].nbytes for k in layout.kept if label.get(k) == "result")
        self.report = Report(
            dict(names.most_common()),
            layout.buffers,
            layout.arena,
            kept + sum(a.nbytes for a in self.scratch.values()),
            sum(a.nbytes for a in self.recording.inputs),
            layout.eager,
        )

    def holds(self) -> bool:
        """Whether a call now would do what was recorded."""
        return self.state.holds() and all(s.holds() for s in self.recording.sources)

    def replay(self, arrays: list[Any]) -> Any:
        """Run the calls on these arguments; returns copies of the recorded results."""
        copy = self.recording.memory.copy
        for buffer, array in zip(self.recording.inputs, arrays, strict=True):
            copy(buffer, array)
        for leaf in self.slots:
            if leaf.tensor.grad is not leaf.grad:
                copy(leaf.grad, leaf.tensor.grad)
        for f, args, attrs in self.calls:
            f(*args, **attrs)
        for leaf, grad, bumps, touched in self.finals:
            if touched:
                set_gradient(leaf.tensor, grad)
            leaf.tensor._version += bumps
        for layer in self.records:
            layer._record = None
        return self.results()

    def results(self) -> Any:
        """Copies of what the function returned, Tensors without a history."""
        copy = self.recording.base.copy

        def make(array: Any, is_tensor: bool) -> Any:
            return tensor(copy(array)) if is_tensor else copy(array)

        return rebuild(self.form, iter(self.recording.outputs), make)


def _final(recording: Recording, leaf: Leaf, kind: str) -> tuple[Leaf, Any, int, bool]:
    """The gradient that the run left, how often the data changed, and whether it left any."""
    t = leaf.tensor
    grad = gradient_of(t)
    touched = grad is not leaf.grad or kind is ARRAY
    if grad is SLOT and leaf.grad is SLOT:
        touched = recording.touches(t.slot) == WRITES
    return leaf, grad, t._version - leaf.version, touched
