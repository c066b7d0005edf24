"""Which calls are needed, where their results lie, and what may share memory."""

from __future__ import annotations

from typing import Any

from .log import Call
from .recording import Recording
from .trace import each


class Layout:
    """The calls to repeat, with their arrays where a replay has them.

    kept       ids of the storages that must outlive a replay: what the function returned,
               gradients
    calls      the calls, in order
    arena      bytes that all other results share
    eager      bytes of all results
    buffers    how many results the arena holds
    """

    def __init__(self, recording: Recording, kept: set[int]) -> None:
        self.memory, self.base = recording.memory, recording.base
        self.recording = recording
        self.kept = set(kept)
        self.calls = list(recording.calls)
        made = [s for s in recording.storages.values() if s.label[0] == "result"]
        self._roots = {id(s.root): s.root for s in made}
        self.eager = sum(root.nbytes for root in self._roots.values())
        self._needed_only()
        self._constants_out()
        self._without_copies()
        self._share()

    # which calls

    def _needed_only(self) -> None:
        """Drop the calls of which nothing is used."""
        live, needed = set(self.kept), []
        for call in reversed(self.calls):
            effects = call.writes or call.kind in ("numbers", "uniform", "check")
            if effects or any(self.root_id(a) in live for a in call.results):
                live |= {self.root_id(a) for a in self.reads(call)}
                needed.append(call)
        self.calls = needed[::-1]

    def _constants_out(self) -> None:
        """What is the same each time is kept, and not made again; so are the 0-d numbers."""
        written = {self.root_id(a) for c in self.calls for a in c.writes}
        rest = []
        for call in self.calls:
            ids = {self.root_id(a) for a in call.results}
            constant = self.memory.constant(call) and not ids & written
            if constant or call.kind == "numbers":
                self.kept |= ids
            if not constant:
                rest.append(call)
        self.calls = rest

    def _without_copies(self) -> None:
        """Let a result that is only copied be made where the copy is to be."""
        i = 0
        while i < len(self.calls):
            call = self.calls[i]
            if call.kind in ("copy", "write"):
                j = self._maker(i)
                if j is not None:
                    self._redirect(j, i)
                    del self.calls[i]
                    continue
            i += 1

    def _maker(self, i: int) -> int | None:
        """The call that may write straight into the target of the copy at i."""
        call = self.calls[i]
        target, value = call.args if call.kind == "write" else (call.results[0], call.args[0])
        source, held = self.root_id(value), self.root_id(target)
        if source in self.kept or source not in self._roots or source == held:
            return None
        users = [j for j, c in enumerate(self.calls) if source in self._touched(c)]
        if len(users) != 2 or users[1] != i or not self.memory.direct(self.calls[users[0]]):
            return None
        maker = self.calls[users[0]]
        if source != self.root_id(maker.results[0]):
            return None
        made, whole = maker.results[0], self._roots[source]
        plain = all(self.memory.contiguous(a) for a in (made, value, target))
        if not plain or made.nbytes != whole.nbytes or value.nbytes != whole.nbytes:
            return None
        if made.dtype != target.dtype or value.shape != target.shape:
            return None
        if any(held in self._touched(c) for c in self.calls[users[0] + 1 : i]):
            return None
        seen = [a for a in self.reads(maker) if self.root_id(a) == held]
        inplace = self.memory.elementwise(maker) and target.shape == made.shape
        if seen and not (inplace and all(self._same(a, target) for a in seen)):
            return None
        return users[0]

    def _redirect(self, j: int, i: int) -> None:
        maker, call = self.calls[j], self.calls[i]
        target = call.args[0] if call.kind == "write" else call.results[0]
        if target.shape != maker.results[0].shape:
            target = self.base.xp.reshape(target, maker.results[0].shape)
        writes = (target,) if call.kind == "write" else ()
        self.calls[j] = Call(
            maker.kind, maker.function, maker.args, maker.attrs, maker.line, (target,), writes
        )

    # where

    def _share(self) -> None:
        """Give every result that need not last a place in the arena."""
        born: dict[int, int] = {}
        last: dict[int, int] = {}
        for i, call in enumerate(self.calls):
            for a in call.results:
                born.setdefault(self.root_id(a), i)
            for key in self._touched(call):
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
            if not self.memory.elementwise(call):
                continue
            out = call.results[0]
            made = self.root_id(out)
            if made not in group or born[made] != i:
                continue
            for a in self.reads(call):
                key = self.root_id(a)
                if key not in group or last[key] != i or born[key] == i:
                    continue
                whole = self._roots[key].nbytes == out.nbytes == self._roots[made].nbytes
                views = [v for v in self.reads(call) if self.root_id(v) == key]
                if whole and all(self._same(v, out) for v in views):
                    group[made] = group[key]
                    break

    def _move(self, starts: dict[int, int]) -> None:
        """Views of outside memory are made anew too: nobody but its parameter may hold a slot."""
        arena = self.memory.arena(self.arena)
        moved: dict[int, Any] = {}

        def new(value: Any) -> Any:
            if not self.base.owns(value):
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

    # helpers

    def root_id(self, array: Any) -> int:
        return id(self.memory.root(array))

    def reads(self, call: Call) -> list[Any]:
        return list(self.recording.arrays((tuple(call.args), dict(call.attrs))))

    def _touched(self, call: Call) -> set[int]:
        return {self.root_id(a) for a in (*self.reads(call), *call.results, *call.writes)}

    def _same(self, a: Any, b: Any) -> bool:
        return bool(self.memory.same_layout(a, b))

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
