"""Which of the recorded calls a replay makes, and in which order."""

from __future__ import annotations

from typing import Any

from .log import Call
from .recording import Recording, Span, overlap


class Schedule:
    """The calls of a recording, less those that a replay need not make.

    kept        ids of the storages that outlive a replay: outputs, gradients, constants
    constants   ids of those whose values are the same in each
    roots       the memory that the run made, by id
    eager_total, eager_peak   bytes of it: all, and the most that is held at once
    """

    def __init__(self, recording: Recording, kept: set[int]) -> None:
        self.memory, self.base, self.owns = recording.memory, recording.base, recording.base.owns
        self.recording, self.kept = recording, set(kept)
        made = [s for s in recording.storages.values() if s.label[0] == "result"]
        self.roots = {id(s.root): s.root for s in made}
        self._spans: dict[int, tuple[Any, Span]] = {}
        self.constants: set[int] = set()
        self.eager_total = sum(root.nbytes for root in self.roots.values())
        self.eager_peak = self._peak(recording.calls)
        self.calls = self._needed(list(recording.calls))
        self.calls = self._early(self._without_constants(self.calls))

    def _peak(self, calls: list[Call]) -> int:
        """Bytes held at once if each result goes when it has been used for the last time."""
        last = {key: i for i, call in enumerate(calls) for key in self.touched(call)}
        held = most = 0
        seen: set[int] = set()
        for i, call in enumerate(calls):
            new = {self.root_id(a) for a in call.results} - seen
            seen |= new
            held += sum(self.roots[key].nbytes for key in new if key in self.roots)
            most = max(most, held)
            gone = {key for key in self.touched(call) if last[key] == i} - self.kept
            held -= sum(self.roots[key].nbytes for key in gone if key in self.roots)
        return most

    def _needed(self, calls: list[Call]) -> list[Call]:
        """Those of which something is used."""
        live, needed = set(self.kept), []
        for call in reversed(calls):
            effects = call.writes or call.kind in ("numbers", "uniform", "check")
            if effects or any(self.root_id(a) in live for a in call.results):
                live |= {self.root_id(a) for a in self.reads(call)}
                needed.append(call)
        return needed[::-1]

    def _without_constants(self, calls: list[Call]) -> list[Call]:
        """What is the same each time is kept, and not made again; so is what the host writes
        before the other calls.
        """
        written = {self.root_id(a) for c in calls for a in c.writes}
        rest = []
        for call in calls:
            ids = {self.root_id(a) for a in call.results}
            constant = self.memory.constant(call) and not ids & written
            if constant or call.kind in self.memory.early:
                self.kept |= ids
            if constant:
                self.constants |= ids
            if not constant:
                rest.append(call)
        return rest

    def _early(self, calls: list[Call]) -> list[Call]:
        """Checks of what is there from the start come first: what they refuse changes nothing.
        Then an optimizer may count its step.
        """
        changing = [a for c in calls for a in (*c.results, *c.writes)]

        def from_the_start(check: Call) -> bool:
            return not any(self.meet(a, b) for a in self.reads(check) for b in changing)

        checks = [c for c in calls if c.kind == "check"]
        early = [c for c in checks if from_the_start(c)]
        if len(early) == len(checks):
            early += [c for c in calls if c.kind == "numbers"]
        return early + [c for c in calls if c not in early]

    def without_copies(self) -> None:
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
        source = self.root_id(value)
        if source in self.kept or source not in self.roots or source == self.root_id(target):
            return None
        users = [j for j, c in enumerate(self.calls) if source in self.touched(c)]
        if len(users) != 2 or users[1] != i or not self.memory.direct(self.calls[users[0]]):
            return None
        maker = self.calls[users[0]]
        made = [a for a in maker.results if self.root_id(a) == source]
        if len(made) != 1:
            return None
        whole = made[0].nbytes == self.roots[source].nbytes == value.nbytes
        plain = all(self.memory.contiguous(a) for a in (made[0], value, target))
        if not (whole and plain) or made[0].dtype != target.dtype or value.shape != target.shape:
            return None
        for c in self.calls[users[0] + 1 : i]:
            if any(self.meet(target, a) for a in (*self.reads(c), *c.results, *c.writes)):
                return None
        lends = self.memory.lends(maker) if target.shape == made[0].shape else []
        for a in self.reads(maker):
            if self.meet(a, target) and not any(
                a is b and self.memory.same_layout(a, target) for b in lends
            ):
                return None
        return users[0]

    def _redirect(self, j: int, i: int) -> None:
        maker, call = self.calls[j], self.calls[i]
        write = call.kind == "write"
        target, value = call.args if write else (call.results[0], call.args[0])
        results = []
        for made in maker.results:
            if self.root_id(made) == self.root_id(value):
                if target.shape != made.shape:
                    target = self.base.xp.reshape(target, made.shape)
                made = target
            results.append(made)
        writes = (*maker.writes, target) if write else maker.writes
        self.calls[j] = maker.having(results=tuple(results), writes=writes)

    # helpers

    def root_id(self, array: Any) -> int:
        return id(self.memory.root(array))

    def reads(self, call: Call) -> list[Any]:
        return self.recording.reads(call)

    def touched(self, call: Call) -> set[int]:
        """Ids of the memory that a call reads or writes."""
        arrays = (*self.recording.arrays((tuple(call.args), dict(call.attrs))), *call.results)
        return {self.root_id(a) for a in (*arrays, *call.writes)}

    def meet(self, a: Any, b: Any) -> bool:
        """Whether two arrays lie in the same bytes."""
        return overlap(self._span(a), self._span(b))

    def same(self, a: Any, b: Any) -> bool:
        """Whether two values are one: arrays by their memory and layout."""
        if not (self.owns(a) and self.owns(b)):
            return a is b or (type(a) is type(b) and not self.owns(a) and bool(a == b))
        at = self._span(a) == self._span(b)
        return a is b or (at and bool(self.memory.same_layout(a, b)))

    def constantly(self, array: Any, value: float) -> bool:
        """Whether all entries of an array are that number in each replay."""
        if not self.owns(array) or self.root_id(array) not in self.constants:
            return False
        return bool((self.base.to_numpy(array) == value).all())

    def clash(self, a: Call, b: Call) -> bool:
        """Whether it matters which of two calls comes first."""
        made_a, made_b = (*a.results, *a.writes), (*b.results, *b.writes)
        return any(self.meet(x, y) for x in made_a for y in (*made_b, *self.reads(b))) or any(
            self.meet(x, y) for x in self.reads(a) for y in made_b
        )

    def _span(self, array: Any) -> Span:
        found = self._spans.get(id(array))
        if found is None:  # the array is kept: its id must not become another's
            found = self._spans[id(array)] = array, self.memory.span(array)
        return found[1]
