"""Where results lie: those whose lifetimes do not overlap share memory."""

from __future__ import annotations

from typing import Any

from .log import Call
from .schedule import Schedule
from .trace import each


class Layout:
    """The scheduled calls, with their arrays where a replay has them.

    calls      the calls, in order
    arena      bytes that all results share which need not last
    buffers    how many results the arena holds
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.memory, self.kept = schedule, schedule.memory, schedule.kept
        self.calls, self._roots = schedule.calls, schedule.roots
        born: dict[int, int] = {}
        last: dict[int, int] = {}
        for i, call in enumerate(self.calls):
            for a in call.results:
                born.setdefault(schedule.root_id(a), i)
            for key in schedule.touched(call):
                last[key] = i
        places = [k for k in born if k in self._roots and k not in self.kept]
        group = {k: k for k in places}
        self._lend(group, born, last)
        spans: dict[int, tuple[int, int]] = {}
        for k in places:
            first, end = spans.get(group[k], (born[k], last[k]))
            spans[group[k]] = (min(first, born[k]), max(end, last[k]))
        sizes = {g: self._rounded(self._roots[g].nbytes) for g in spans}
        starts = fit(sizes, spans)
        self.arena = max((starts[g] + sizes[g] for g in spans), default=0)
        self.buffers = len(spans)
        self._move({k: starts[group[k]] for k in places})

    def _lend(self, group: dict[int, int], born: dict[int, int], last: dict[int, int]) -> None:
        """An argument that is used for the last time may hold the result, entry by entry."""
        for i, call in enumerate(self.calls):
            lends = self.memory.lends(call)
            if not lends:
                continue
            out = call.results[0]
            made = self.schedule.root_id(out)
            if made not in group or born[made] != i:
                continue
            for a in lends:
                key = self.schedule.root_id(a)
                if key not in group or last[key] != i or born[key] == i:
                    continue
                whole = self._roots[key].nbytes == out.nbytes == self._roots[made].nbytes
                views = [v for v in self.schedule.reads(call) if self.schedule.root_id(v) == key]
                if call.kind != "run" and len(views) > 1:
                    continue  # the kernel may read the other one after it has written
                if whole and all(self.memory.same_layout(v, out) for v in views):
                    group[made] = group[key]
                    break

    def _move(self, starts: dict[int, int]) -> None:
        """Views of outside memory are made anew too: nobody but its parameter may hold a slot."""
        arena = self.memory.arena(self.arena)
        owns = self.schedule.base.owns
        moved: dict[int, Any] = {}

        def new(value: Any) -> Any:
            if not owns(value):
                return value
            if id(value) not in moved:
                root = self.memory.root(value)
                start = starts.get(id(root))
                if start is None:
                    moved[id(value)] = self.memory.alias(value)
                else:
                    at = start + self.memory.offset(value, root)
                    moved[id(value)] = self.memory.place(arena, at, value)
            return moved[id(value)]

        # Arrays are known by id while they move: the recording holds all of them until then.
        self.calls = [
            Call(
                c.kind, c.function, each(tuple(c.args), new), each(dict(c.attrs), new), c.line,
                each(c.results, new), each(c.writes, new),
            )
            for c in self.calls
        ]  # fmt: skip

    def _rounded(self, size: int) -> int:
        return int(-(-max(size, 1) // self.memory.alignment) * self.memory.alignment)


def fit(sizes: dict[int, int], spans: dict[int, tuple[int, int]]) -> dict[int, int]:
    """A start for each block, so that blocks whose spans of calls overlap do not.

    The largest first, each in the smallest gap that holds it.
    Pisarchyk and Lee (2020), "Efficient memory management for deep neural net inference", 5.2.
    """
    starts: dict[int, int] = {}
    for key in sorted(sizes, key=lambda k: -sizes[k]):
        first, last = spans[key]
        taken = sorted(
            (starts[k], sizes[k]) for k in starts if spans[k][0] <= last and first <= spans[k][1]
        )
        end, best = 0, None
        for start, size in taken:
            gap = start - end
            if gap >= sizes[key] and (best is None or gap < best[0]):
                best = (gap, end)
            end = max(end, start + size)
        starts[key] = end if best is None else best[1]
    return starts
