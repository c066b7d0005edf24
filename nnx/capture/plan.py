"""A plan: calls that repeat a recorded function, when they apply, and what they leave behind."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from ..calls import Run
from ..lanes import Lanes
from ..tensor import Tensor, tensor
from ..threads import get_num_threads
from .arguments import Arguments, Expected, Inputs
from .compare import Entry
from .fuse import fuse
from .log import SLOT, Leaf, gradient_of
from .memory import Layout
from .recording import WRITES, Recording
from .report import Report
from .schedule import Schedule
from .source import Hole, Source, visible
from .state import ARRAY, State
from .tree import TENSOR, rebuild


class Plan:
    """Repeats a recorded run on new arguments."""

    def __init__(
        self, recording: Recording, state: State, form: Any, entries: list[Entry], given: Arguments,
        fast: bool,
    ) -> None:  # fmt: skip
        self.recording, self.state, self.form, self.entries = recording, state, form, entries
        self.expected = Expected(given)
        self.memory = memory = recording.memory
        self.used = 0
        owns = recording.base.owns
        recording.outputs = [memory.alias(a) if owns(a) else a for a in recording.outputs]
        self.finals = [_final(recording, leaf, kind) for leaf, kind in state.leaves]
        kept = {id(memory.root(a)) for a in recording.outputs if owns(a)}
        left = [g for _, g, _, touched in self.finals if touched and owns(g)]
        kept |= {id(memory.root(g)) for g in left}
        schedule = Schedule(recording, kept)
        fused = fuse(schedule, fast)
        schedule.without_copies()
        layout = Layout(schedule)
        self.scratch: dict[Any, Any] = {}
        runs = [memory.forms(call, recording.base, self._scratch()) for call in layout.calls]
        lanes = any(isinstance(f, Lanes) for found in runs for f, _, _ in found)
        self._threads = get_num_threads() if lanes else None  # there are as many lanes
        self._compose(layout, runs)
        self.slots = [leaf for leaf, kind in state.leaves if kind is ARRAY]
        self.targets = self._targets(layout)
        written = {id(memory.root(a)) for a in (*self.targets, *left)}
        self.inputs = Inputs(memory, self._buffers, written, given.arrays)
        drawn = {id(c.args[0]): c.args[0] for c in layout.calls if c.kind == "uniform"}
        self.generators = list(drawn.values())
        self.records = [x for x, _ in state.layers if x._record is not None]
        self._report(layout, fused)
        recording.forget()  # the arrays that now lie elsewhere, or are others each time

    def _compose(self, layout: Layout, runs: list[list[Run]]) -> None:
        """The function that makes the calls, on arguments and new results where it can be."""
        memory, outputs = self.memory, self.recording.outputs

        def varies(hole: Hole) -> bool:
            key = id(memory.root(hole.stands))
            touching = [r for c, r in zip(layout.calls, runs, strict=True) if key in touched(c)]
            return visible(memory, hole, touching)

        touched = layout.schedule.touched
        returned = {id(memory.root(a)) for a in outputs if self.recording.base.owns(a)}
        given = [
            (i, a) for i, a in enumerate(self.recording.inputs)
            if a.nbytes >= memory.in_place and id(memory.root(a)) not in returned
        ]  # fmt: skip
        arguments = [Hole(f"x{i}", a) for i, a in given]
        constants = layout.schedule.constants  # nothing writes these anew
        results = [
            Hole(f"y{i}", a) for i, a in enumerate(outputs)
            if self._is_new(a) and id(memory.root(a)) not in constants
        ]  # fmt: skip
        arguments, results = list(filter(varies, arguments)), list(filter(varies, results))
        self._places = [int(h.name[1:]) for h in results]
        self.outputs = [None if i in self._places else a for i, a in enumerate(outputs)]
        read = {int(h.name[1:]) for h in arguments}
        self._buffers = [None if i in read else a for i, a in enumerate(self.recording.inputs)]
        source = Source(memory, arguments, results)
        varying = [h.stands for h in (*arguments, *results)]
        source.write(memory.assemble(list(itertools.chain(*runs)), varying))
        self.run, self.code = source.function(), source.text

    def _is_new(self, array: Any) -> bool:
        """Whether an output may be a new array each time: made by the run, and once returned."""
        outputs, memory = self.recording.outputs, self.memory
        if not self.recording.base.owns(array) or array.nbytes < self.memory.in_place:
            return False
        root = memory.root(array)
        storage = self.recording.storages.get(id(root))
        alone = sum(self.recording.base.owns(b) and memory.root(b) is root for b in outputs) == 1
        lasts = any(g is not None and memory.root(g) is root for g in self._gradients())
        made = storage is not None and storage.label[0] == "result" and not lasts
        return made and alone and memory.dense(array) and root.nbytes == array.nbytes

    def _gradients(self) -> list[Any]:
        return [g if self.recording.base.owns(g) else None for _, g, _, _ in self.finals]

    def _scratch(self) -> Any:
        """Scratch for one call; those after it may have the same."""
        count = itertools.count()

        def empty(shape: tuple[int, ...], dtype: Any) -> Any:
            key = (next(count), shape, str(dtype))
            if key not in self.scratch:
                self.scratch[key] = self.memory.new(shape, dtype)
            return self.scratch[key]

        return empty

    def _targets(self, layout: Layout) -> list[Any]:
        """Arrays from outside that a replay writes."""
        memory, found = self.memory, {}
        for call in layout.calls:
            for a in call.writes:
                root = memory.root(a)
                storage = self.recording.storages.get(id(root))
                if storage is not None and storage.label[0] == "outside":
                    found[id(root)] = root
        return list(found.values())

    def _report(self, layout: Layout, fused: dict[str, int]) -> None:
        names: Counter[str] = Counter(c.name for c in layout.calls)
        roots = {id(s.root): s.root for s in self.recording.storages.values()}
        label = {id(s.root): s.label[0] for s in self.recording.storages.values()}
        kept = sum(roots[k].nbytes for k in layout.kept if label.get(k) == "result")
        self.report = Report(
            dict(names.most_common()),
            fused,
            layout.buffers,
            layout.arena,
            kept + sum(a.nbytes for a in self.scratch.values()),
            self.inputs.nbytes,
            layout.schedule.eager_peak,
            layout.schedule.eager_total,
            self.code,
        )

    def holds(self) -> bool:
        """Whether a call now would do what was recorded."""
        if self._threads is not None and self._threads != get_num_threads():
            return False
        return self.state.holds() and all([s.holds() for s in self.recording.sources])

    def replay(self, arrays: list[Any]) -> Any:
        """Run the calls on these arguments; returns arrays of the caller's own."""
        given = self.inputs.bring(arrays)
        returned = self._returned()
        for leaf in self.slots:
            if leaf.tensor.grad is not leaf.grad:
                self.memory.copy(leaf.grad, leaf.tensor.grad)
        made = self.run(*given)
        for t, grad, bumps, touched in self.finals:
            if touched:
                t.grad = t.slot if grad is SLOT else grad
            t._version += bumps
        for layer in self.records:
            layer._record = None
        return self._results(made, returned)

    def _returned(self) -> Any:
        """How a result is copied; on a device its memory is there before anything is changed."""
        base, memory = self.recording.base, self.memory
        if base.on_host:
            return base.copy
        made = iter(
            [memory.new(a.shape, a.dtype) for a in self.outputs if a is not None and base.owns(a)]
        )

        def copy(array: Any) -> Any:
            if not base.owns(array):
                return base.copy(array)
            mine = next(made)
            memory.copy(mine, array)
            return mine

        return copy

    def _results(self, made: tuple[Any, ...], copy: Any) -> Any:
        """What the function returned: new arrays, or copies; Tensors without a history."""
        new = iter(made)
        if self.form is TENSOR:  # one, as a loss is
            array = self.outputs[0]
            return tensor(next(new) if array is None else copy(array))

        def make(array: Any, is_tensor: bool) -> Any:
            mine = next(new) if array is None else copy(array)
            return tensor(mine) if is_tensor else mine

        return rebuild(self.form, iter(self.outputs), make)


def _final(recording: Recording, leaf: Leaf, kind: str) -> tuple[Tensor, Any, int, bool]:
    """The gradient that the run left, how often the data changed, and whether it left any."""
    t = leaf.tensor
    grad = gradient_of(t)
    touched = grad is not leaf.grad or kind is ARRAY
    if grad is SLOT and leaf.grad is SLOT:
        touched = recording.touches(t.slot) == WRITES
    return t, grad, t._version - leaf.version, touched
